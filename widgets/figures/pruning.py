"""Figures about pruning: quality over cost, methods at an equal budget, losses by layer, and where the bytes go."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import plotly.graph_objects as go

from kernels.pareto import pareto_front
from widgets import theme
from widgets.figures.layout import LEGEND_BELOW, title_at_left
from widgets.figures.sentence import say_instead

__all__ = [
    "LOSSES",
    "Axis",
    "LayerLoss",
    "PruningScene",
    "TradeoffPoint",
    "at_budget",
    "budget_figure",
    "bytes_figure",
    "front_points",
    "recounted",
    "shown_points",
    "tradeoff_figure",
]

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross", "triangle-down", "pentagon", "hexagram")
STORED, INDICES = "stored", "indices"  # the cost that parts add up to, and a kind of parts
VALUES = ("values", "dense factors")  # kinds of parts that are values
VALUE_BITS = 16  # of a value in the parts of a scene's points
PLOTTED, AXIS_BELOW, LEGEND_LINE = 380, 70, 20  # pixels: the plot, what belongs to its axis, a line of the legend
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
LOSSES = (
    ("output_error", "relative error of the layer's outputs"),
    ("weight_error", "relative error of the weights"),
    ("density", "weights kept / all weights"),
)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One quantity that points can be drawn over.

    Parameters
    ----------
    key, label, unit : in links, what readers see, and what it is counted in.
    better : whether more of it is better or less.
    kind : how it comes about.
    """

    key: str
    label: str
    unit: str
    better: Literal["higher", "lower"]
    kind: Literal["counted", "measured", "modelled"]

    @property
    def told(self) -> str:
        """The label with the unit, where it does not say it itself, and how the numbers come about."""
        unit = "" if self.unit in self.label or self.unit in ("fraction", "relative") else f" [{self.unit}]"
        return f"{self.label}{unit} ({self.kind})"


@dataclass(frozen=True, kw_only=True)
class LayerLoss:
    """What pruning did to one matrix.

    Parameters
    ----------
    name : of the layer in its model, such as "layers.3.feed_in".
    density : weights kept over all weights.
    weight_error, output_error : Frobenius norms of the change over those of the original; NaN where unknown.
    """

    name: str
    density: float
    weight_error: float = math.nan
    output_error: float = math.nan


@dataclass(frozen=True, kw_only=True)
class TradeoffPoint:
    """One pruned model.

    Parameters
    ----------
    key : unique in its scene; what a link stores.
    method, level : what pruned it and how far, in words, such as "SparseGPT" and "2:4".
    stage : "one-shot", or "recovered" after a short training.
    quality, cost : axis key -> value; a key may be missing.
    parts : what the bytes of the pruned matrices are, by kind: `VALUES` of `VALUE_BITS` each, `INDICES`, others.
    layers : what happened to each matrix.
    added : whether a reader asked for it on this page, in place of a record.
    """

    key: str
    method: str
    level: str
    stage: str = "one-shot"
    quality: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)
    layers: tuple[LayerLoss, ...] = ()
    added: bool = False


@dataclass(frozen=True, kw_only=True)
class PruningScene:
    """All that the view of pruning draws.

    Parameters
    ----------
    model : which model was pruned, in words.
    dense : the model before.
    points : pruned models, those of a method beside each other.
    qualities, costs : what may be drawn over what; the first of each is drawn unless a reader chooses.
    note : what a reader should know of these points, a sentence or "".
    """

    model: str
    dense: TradeoffPoint
    points: tuple[TradeoffPoint, ...]
    qualities: tuple[Axis, ...]
    costs: tuple[Axis, ...]
    note: str = ""

    def axis(self, key: str, kind: Literal["qualities", "costs"]) -> Axis:
        """Return the axis of a key, or the first one where the scene lacks it."""
        axes: tuple[Axis, ...] = getattr(self, kind)
        return next((axis for axis in axes if axis.key == key), axes[0])


def recounted(scene: PruningScene, value_bits: int, with_indices: bool) -> PruningScene:
    """Return the scene as if every stored value took ``value_bits``, with or without the bytes of indices.

    The cost `STORED` of every point, the model before pruning among them, is added up anew from its parts; a point
    whose parts are not known loses it. Qualities stay those of the values as they were judged.
    """
    if value_bits == VALUE_BITS and with_indices:
        return scene

    def counted(point):
        parts = {kind: size * (value_bits / VALUE_BITS if kind in VALUES else 1) for kind, size in point.parts.items()
                 if with_indices or kind != INDICES}  # fmt: skip
        cost = {key: value for key, value in point.cost.items() if key != STORED}
        return replace(point, parts=parts, cost=cost | ({STORED: sum(parts.values())} if point.parts else {}))

    told = f"values of {value_bits} bits" + ("" if with_indices else ", without indices")
    caution = (
        f"Quality is that of weights that were not rounded to {value_bits} bits, and scales of rounded values are not "
        "counted."
    )
    return replace(
        scene,
        dense=counted(scene.dense),
        points=tuple(counted(point) for point in scene.points),
        costs=tuple(
            replace(axis, label=f"{axis.label}, {told}") if axis.key == STORED else axis for axis in scene.costs
        ),
        note=" ".join(filter(None, (scene.note, caution if value_bits < VALUE_BITS else ""))),
    )


def shown_points(scene: PruningScene, quality: Axis, cost: Axis, stage: str) -> list[TradeoffPoint]:
    """Return the points of a stage that have both quantities."""
    return [
        point
        for point in scene.points
        if point.stage == stage and _known(point.quality, quality) and _known(point.cost, cost)
    ]


def front_points(points: Sequence[TradeoffPoint], quality: Axis, cost: Axis) -> list[TradeoffPoint]:
    """Return the points that no other one beats in cost and quality, from the cheapest on."""
    if not points:
        return []
    places = np.array([(point.cost[cost.key], point.quality[quality.key]) for point in points])
    on_front = pareto_front(places, (cost.better == "lower", quality.better == "lower"))
    found = [point for point, there in zip(points, on_front, strict=True) if there]
    return sorted(found, key=lambda point: point.cost[cost.key] * _signed(cost, "lower"))


def at_budget(points: Sequence[TradeoffPoint], quality: Axis, cost: Axis, most: float) -> list[TradeoffPoint]:
    """Return each method's best point that costs at most ``most``, the best method first."""
    best: dict[str, TradeoffPoint] = {}
    good = _signed(quality, "higher")
    for point in points:
        within = point.cost[cost.key] <= most * (1 + 1e-9)
        known = best.get(point.method)
        if within and (known is None or good * point.quality[quality.key] > good * known.quality[quality.key]):
            best[point.method] = point
    return sorted(best.values(), key=lambda p: -good * p.quality[quality.key])


def tradeoff_figure(
    scene: PruningScene, quality: Axis, cost: Axis, stage: str, budget: float, chosen: str, appearance: theme.Theme
) -> go.Figure:
    """Draw quality over cost: a curve for each method by symbol and dash, the front, the budget and the dense model.

    A point's key stands in ``customdata``, so that a click can name it.
    """
    points = shown_points(scene, quality, cost, stage)
    colours, ink = theme.CATEGORIES[appearance], theme.PALETTE[appearance]["ink"]
    figure = go.Figure()
    for i, method in enumerate(dict.fromkeys(point.method for point in scene.points)):
        own = sorted((p for p in points if p.method == method), key=lambda p: p.cost[cost.key])
        if own:
            figure.add_scatter(
                **_over(own, quality, cost),
                name=method,
                mode="lines+markers",
                marker={
                    "symbol": SYMBOLS[i % len(SYMBOLS)],
                    "size": [13 if point.added else 9 for point in own],
                    "color": colours[i % len(colours)],
                    "line": {"width": [2 if point.added else 0 for point in own], "color": ink},
                },
                line={"dash": DASHES[i % len(DASHES)], "color": colours[i % len(colours)], "width": 1.5},
                hovertemplate="%{text}: %{y:.4g} at %{x:.4g}<extra>" + method + "</extra>",
            )
    front = front_points(points, quality, cost)
    if front:
        figure.add_scatter(
            **_over(front, quality, cost),
            name="Pareto front",
            mode="lines",
            line={"width": 7, "color": theme.PALETTE[appearance]["line"], "shape": "hv"},
            hoverinfo="skip",
            zorder=-1,
        )
    if _known(scene.dense.quality, quality) and _known(scene.dense.cost, cost):
        figure.add_scatter(
            **_over([scene.dense], quality, cost),
            name="the model before pruning",
            mode="markers",
            marker={"symbol": "diamond-open", "size": 14, "color": ink, "line": {"width": 2}},
            hovertemplate="before pruning: %{y:.4g} at %{x:.4g}<extra></extra>",
        )
    picked = [point for point in points if point.key == chosen]
    if picked:
        figure.add_scatter(
            **_over(picked, quality, cost),
            name="chosen",
            mode="markers",
            marker={"symbol": "circle-open", "size": 20, "color": theme.PALETTE[appearance]["highlight"],
                    "line": {"width": 3}},
            hoverinfo="skip",
        )  # fmt: skip
    most = budget * scene.dense.cost.get(cost.key, math.nan)
    if most == most:
        figure.add_vline(x=most, line={"color": theme.PALETTE[appearance]["muted"], "width": 2, "dash": "dot"})
        figure.add_annotation(
            x=most, y=1, yref="paper", yanchor="bottom", text=f"budget: {budget:.3g} of before", showarrow=False
        )
    below = AXIS_BELOW + LEGEND_LINE * -(-len(figure.data) // 2)  # a pane has room for two names in a line
    figure.update_layout(
        template=theme.template(appearance),
        height=PLOTTED + below,
        margin={"t": 30, "b": below},
        legend=LEGEND_BELOW,
        meta={"leastWidth": 520},
        xaxis={"title": {"text": cost.told}, "rangemode": "tozero", "exponentformat": "SI"},
        yaxis={"title": {"text": _wrapped(quality.told, 34)}},
        clickmode="event",
    )
    if not points:
        return say_instead(figure, f"No record holds {quality.label} over {cost.label} for this stage.")
    return figure


def budget_figure(
    scene: PruningScene, quality: Axis, cost: Axis, stage: str, budget: float, appearance: theme.Theme
) -> go.Figure:
    """Draw every method's quality at an equal budget, the best on top: bars go from the model before pruning to it."""
    most = budget * scene.dense.cost.get(cost.key, math.nan)
    found = at_budget(shown_points(scene, quality, cost, stage), quality, cost, most)
    before = scene.dense.quality.get(quality.key, 0.0)
    figure = go.Figure(
        go.Bar(
            x=[point.quality[quality.key] - before for point in found],
            base=before,
            y=[f"{point.method}, {point.level}" for point in found],
            text=[f"{point.quality[quality.key]:.4g}" for point in found],
            customdata=[
                [point.key, point.cost[cost.key] / scene.dense.cost[cost.key], point.quality[quality.key]]
                for point in found
            ],
            orientation="h",
            textposition="auto",
            hovertemplate="%{y}: %{customdata[2]:.4g} at %{customdata[1]:.3f} of the cost before<extra></extra>",
        )
    )
    figure.add_vline(x=before, line={"color": theme.PALETTE[appearance]["ink"], "width": 2})
    figure.update_layout(
        template=theme.template(appearance),
        title=title_at_left(f"Within {budget:.3g} of the cost before pruning", "the line is the model before"),
        height=160 + 30 * max(len(found), 2),
        showlegend=False,
        meta={"leastWidth": 420},
        margin={"l": 170, "t": 64},
        xaxis={"title": {"text": _wrapped(quality.told, 28)}},
        yaxis={"autorange": "reversed"},
        clickmode="event",
    )
    if not found:
        return say_instead(figure, f"No method has a point within {budget:.3g} of the cost before pruning.")
    return figure


def bytes_figure(scene: PruningScene, point: TradeoffPoint | None, appearance: theme.Theme) -> go.Figure:
    """Draw what the bytes of the pruned matrices are, beside those of the dense matrices."""
    figure = go.Figure()
    shown = [(scene.dense, "before")] + ([(point, f"{point.method}, {point.level}")] if point else [])
    kinds = dict.fromkeys(kind for each, _ in shown for kind in each.parts)
    for i, kind in enumerate(kinds):
        figure.add_bar(
            x=[each.parts.get(kind, 0) / 1e6 for each, _ in shown],
            y=[name for _, name in shown],
            name=kind,
            orientation="h",
            marker={"pattern": {"shape": ("", "/", "x", ".", "-")[i % 5]}},
            hovertemplate=f"{kind}: %{{x:.3f}} MB<extra></extra>",
        )
    figure.update_layout(
        template=theme.template(appearance),
        title=title_at_left("Bytes of the pruned matrices (counted)"),
        barmode="stack",
        height=240,
        margin={"l": 190, "t": 44, "b": 84},
        legend=LEGEND_BELOW,
        xaxis={"title": {"text": "MB"}},
        yaxis={"autorange": "reversed"},
    )
    return figure if kinds else say_instead(figure, "No record says what the bytes of this point are.")


def _known(values: Mapping[str, float], axis: Axis) -> bool:
    return math.isfinite(values.get(axis.key, math.nan))


def _signed(axis: Axis, wanted: str) -> int:
    return 1 if axis.better == wanted else -1


def _wrapped(text: str, width: int) -> str:
    return "<br>".join(textwrap.wrap(text, width))


def _over(points, quality, cost):
    return {
        "x": [point.cost[cost.key] for point in points],
        "y": [point.quality[quality.key] for point in points],
        "text": [point.level for point in points],
        "customdata": [point.key for point in points],
    }
