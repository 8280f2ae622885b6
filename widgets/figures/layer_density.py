"""How much of every layer stays before training, the channels that are cropped to it, and what nets so made reach."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import plotly.graph_objects as go

from widgets.figures.layout import LEGEND_BELOW, title_at_left
from widgets.figures.sentence import say_instead
from widgets.theme import CATEGORIES, PALETTE, template

__all__ = ["AXES", "AccuracyPoint", "DensityScene", "density_figure", "kept_figure", "network_figure", "points_figure"]

LEAST_WIDTH = 560  # of bars with their names, in pixels: a narrower page scrolls them
FEWEST_MISSED = 1e-3  # where none is missed: a logarithmic axis has no zero
MOST_NAMED = 60  # layers whose names are written
AXES = (("parameters", "weights that stay"), ("time", "time of an inference"))
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross", "triangle-down", "pentagon", "hexagon")


@dataclass(frozen=True, kw_only=True)
class AccuracyPoint:
    """A trained net.

    Parameters
    ----------
    name : how it was pruned or cropped.
    density : the share of weights that it was pruned to.
    accuracy : share of the test examples, the mean over seeds.
    low, high : the least and the largest of the seeds.
    parameters : weights that stay.
    time_ms : of an inference; None where it was not measured.
    seeds : how many were trained.
    here : whether it was trained on the page.
    """

    name: str
    density: float
    accuracy: float
    low: float
    high: float
    parameters: float
    time_ms: float | None = None
    seeds: int = 1
    here: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class DensityScene:
    """All that the view of layer densities draws. Layers are in the order in which they compute.

    Parameters
    ----------
    title : which net, in words.
    scored : how weights were scored, in words.
    names : of the layers.
    masks : bool (outputs, inputs, kernel places) of each layer: the weights that stay.
    once : int64 (layers,), weights that stay when the same pruner has one round.
    rounds : how many it had.
    channels, cropped : int64 (layers, 2), inputs and outputs before and after cropping.
    groups : name, channels before, channels after, and whether it is a residual stream, of each group.
    level : water level, in weights: as many in every layer fill the budget.
    budget, used : in ``unit``; of the cropped net.
    unit : "weights" or "multiply-adds".
    refused : why nothing could be cropped, a sentence, or "".
    points : trained nets of this family, from records and from this page.
    outcomes : what nets with a kind of mask reached, by kind ("scored", "shuffled", "cropped"), at the recorded density
        that is nearest; empty where nothing was recorded.
    recorded : where the points come from, words.
    """

    title: str
    scored: str
    names: tuple[str, ...]
    masks: tuple[np.ndarray, ...]
    once: np.ndarray
    rounds: int
    channels: np.ndarray
    cropped: np.ndarray
    groups: tuple[tuple[str, int, int, bool], ...]
    level: float
    budget: float
    used: float
    unit: str
    refused: str = ""
    points: tuple[AccuracyPoint, ...] = ()
    recorded: str = ""
    outcomes: Mapping[str, AccuracyPoint] = field(default_factory=dict)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Weights of every layer, int64 (layers,)."""
        return np.array([mask.size for mask in self.masks], np.int64)

    @cached_property
    def kept(self) -> np.ndarray:
        """Weights of every layer that stay, int64 (layers,)."""
        return np.array([int(np.count_nonzero(mask)) for mask in self.masks], np.int64)

    @cached_property
    def density(self) -> np.ndarray:
        """Share of every layer that stays."""
        return self.kept / np.maximum(self.sizes, 1)

    @cached_property
    def cropped_sizes(self) -> np.ndarray:
        """Weights of every layer after cropping, int64 (layers,)."""
        area = np.array([mask.shape[2] for mask in self.masks], np.int64)
        pairs = zip(self.masks, self.channels, strict=True)
        depthwise = np.array([mask.shape[1] == 1 and inputs > 1 for mask, (inputs, _) in pairs])
        return area * self.cropped[:, 1] * np.where(depthwise, 1, self.cropped[:, 0])

    @property
    def is_cropped(self) -> bool:
        """Whether there are widths to show."""
        return not self.refused

    def place(self, layer: str) -> int:
        """Return the number of a layer; that of the largest layer where there is none of this name."""
        return self.names.index(layer) if layer in self.names else int(np.argmax(self.sizes))


def density_figure(scene: DensityScene, shown: str = "", theme="light") -> go.Figure:
    """Draw the share of every layer that stays as bars, and the share after cropping as boxes around them."""
    names = _names(scene, shown)
    cropped = scene.cropped_sizes / np.maximum(scene.sizes, 1)
    least = 10.0 ** np.floor(np.log10(max(min([*scene.density[scene.density > 0], *cropped, 1.0]), 1e-6)))
    figure = go.Figure()
    figure.add_bar(
        name="pruned: share of the weights that stays",
        x=scene.density,
        y=names,
        orientation="h",
        marker={"color": CATEGORIES[theme][0]},
        text=["nothing stays" if kept == 0 else "" for kept in scene.kept],
        textposition="outside",
        customdata=np.column_stack([scene.kept, scene.sizes]),
        hovertemplate="%{customdata[0]:,} of %{customdata[1]:,} weights stay: %{x:.3g}<extra>%{y}</extra>",
    )
    if scene.is_cropped:
        figure.add_bar(
            name="cropped: share after whole channels went",
            x=cropped,
            y=names,
            orientation="h",
            marker={"color": "rgba(0,0,0,0)", "line": {"color": PALETTE[theme]["highlight"], "width": 2.5}},
            customdata=np.column_stack([scene.cropped, scene.channels]),
            hovertemplate=(
                "%{customdata[0]} of %{customdata[2]} inputs, %{customdata[1]} of %{customdata[3]} outputs: %{x:.3g}"
                "<extra>%{y}</extra>"
            ),
        )
    figure.update_layout(
        template=template(theme),
        title=title_at_left("Share of each layer (counted)", "bars: pruned weights; boxes: cropped channels"),
        barmode="overlay",
        height=_height(scene),
        margin={"t": 70, "b": 110, "l": 8},
        legend=LEGEND_BELOW,
        xaxis={"title": {"text": "share that stays"}, "type": "log", "range": [np.log10(least), 0.12], "dtick": 1},
        yaxis=_layer_axis(scene),
        bargap=0.25,
        meta={"leastWidth": LEAST_WIDTH},
    )
    return figure


def kept_figure(scene: DensityScene, shown: str = "", theme="light") -> go.Figure:
    """Draw how many weights of every layer stay, after one round and after all, and the water level over them."""
    names = _names(scene, shown)
    figure = go.Figure()
    several = scene.rounds > 1
    rounds = (("1 round", scene.once, "/"),) if several else ()
    for name, kept, pattern in (*rounds, (_rounds(scene.rounds), scene.kept, "")):
        figure.add_bar(
            name=name,
            x=np.where(kept > 0, kept, np.nan),
            y=names,
            orientation="h",
            marker={
                "color": CATEGORIES[theme][1 if pattern else 0],
                "pattern": {"shape": pattern, "fillmode": "overlay", "fgcolor": PALETTE[theme]["paper"]},
            },
            customdata=kept,
            hovertemplate="%{customdata:,} weights stay after " + name + "<extra>%{y}</extra>",
        )
    water = np.minimum(scene.sizes, scene.level)
    figure.add_scatter(
        name="water level",
        x=water,
        y=names,
        mode="markers",
        marker={"symbol": "line-ns", "size": 15, "line": {"width": 3, "color": PALETTE[theme]["ink"]}},
        customdata=scene.sizes,
        hovertemplate="the level leaves %{x:,.0f} of %{customdata:,} weights<extra>%{y}</extra>",
    )
    top = float(np.log10(max(*scene.kept, *scene.once, *water, 2))) + 0.15
    figure.update_layout(
        template=template(theme),
        title=title_at_left(
            "Weights that stay in each layer (counted)",
            f"marks: as many in every layer, {scene.level:,.0f}, or all of a smaller one",
        ),
        barmode="group",
        height=_height(scene, 30 if several else 22),
        margin={"t": 70, "b": 110, "l": 8},
        legend=LEGEND_BELOW,
        xaxis={"title": {"text": "weights that stay"}, "type": "log", "range": [-0.3, top], "dtick": 1},
        yaxis=_layer_axis(scene),
        bargap=0.25,
        meta={"leastWidth": LEAST_WIDTH},
    )
    return figure


def network_figure(scene: DensityScene, shown: str = "", theme="light") -> go.Figure:
    """Draw every layer as a box, inputs wide and outputs high, with the cropped layer filled inside it."""
    if not scene.is_cropped:
        return say_instead(_titled(theme), f"Nothing is cropped: {scene.refused}")
    most = float(scene.channels.max())
    scale, inner = _log(scene.channels), _log(scene.cropped)  # a linear scale would hide the narrow layers
    unit = 1 / _log(most)  # the widest layer is one wide
    ticks = [2**i for i in range(int(np.log2(most)) + 1)]
    figure, at, middles = go.Figure(), 0.0, []
    for i, name in enumerate(scene.names):
        (w, h), (cw, ch) = scale[i] * (unit, 1), inner[i] * (unit, 1)
        told = (
            f"{name}: inputs {scene.channels[i, 0]} to {scene.cropped[i, 0]}, "
            f"outputs {scene.channels[i, 1]} to {scene.cropped[i, 1]}"
        )
        for label, width, height, fill, line in (
            ("before", w, h, "rgba(0,0,0,0)", PALETTE[theme]["control"]),
            ("cropped", cw, ch, CATEGORIES[theme][1], PALETTE[theme]["ink"]),
        ):
            x, y = np.array([0, 1, 1, 0, 0]) * width + at, np.array([0, 0, 1, 1, 0]) * height
            figure.add_scatter(
                name=label, x=x, y=y, mode="lines", fill="toself", fillcolor=fill, hoveron="fills", text=told,
                hoverinfo="text", legendgroup=label, showlegend=i == 0,
                line={"color": line, "width": 3 if name == shown else 1.2},
            )  # fmt: skip
        middles.append(at + w / 2)
        at += w + 0.25
    figure.update_layout(
        template=template(theme),
        title=title_at_left(
            "The layers, before and after cropping (counted)",
            "width: input channels, height: output channels, both on a logarithmic scale; filled: cropped",
        ),
        height=400,
        margin={"t": 70, "b": 150, "l": 8},
        legend=LEGEND_BELOW,
        xaxis={
            "tickvals": middles[:MOST_NAMED],
            "ticktext": list(scene.names[:MOST_NAMED]),
            "tickangle": -90,
            "range": [-0.2, at],
            "title": {"text": "layer"},
            "showgrid": False,
            "zeroline": False,
        },
        yaxis={
            "title": {"text": "output channels"},
            "tickvals": _log(np.array(ticks)),
            "ticktext": [str(tick) for tick in ticks],
            "range": [0, 1.05 * float(_log(most))],
        },
        meta={"leastWidth": max(LEAST_WIDTH, 34 * len(scene.names))},
    )
    return figure


def points_figure(scene: DensityScene, axis: str, theme="light") -> go.Figure:
    """Draw the test error of trained nets over the weights that stay, or over the measured time of an inference.

    The error is the share of the test examples that are missed, on a logarithmic axis: most nets miss very few.
    """
    found = [point for point in scene.points if axis == AXES[0][0] or point.time_ms is not None]
    figure = _titled(theme)
    if not found:
        return say_instead(figure, "No net of this family has been trained and recorded. Train one on this page.")
    names = list(dict.fromkeys(point.name for point in found))
    for name in names:
        mine = sorted((p for p in found if p.name == name), key=lambda p: p.density)
        i = names.index(name)
        figure.add_scatter(
            name=name,
            x=[_across(point, axis) for point in mine],
            y=[_missed(point.accuracy) for point in mine],
            mode="markers",
            marker={
                "symbol": _SYMBOLS[i % len(_SYMBOLS)],
                "size": [16 if point.here else 11 for point in mine],
                "color": CATEGORIES[theme][i % 8],
                "line": {"width": [2.5 if p.here else 1 for p in mine], "color": PALETTE[theme]["ink"]},
            },
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [_missed(point.low) - _missed(point.accuracy) for point in mine],
                "arrayminus": [_missed(point.accuracy) - _missed(point.high) for point in mine],
                "thickness": 1,
            },
            customdata=[
                [point.density, point.seeds, "on this page" if point.here else "recorded", point.accuracy]
                for point in mine
            ],
            hovertemplate=(
                "accuracy %{customdata[3]:.3f}, density %{customdata[0]:.3g}, %{customdata[1]} seed(s), "
                "%{customdata[2]}<extra>" + name + "</extra>"
            ),
        )
    label = dict(AXES)[axis]
    figure.update_layout(
        title=title_at_left(
            f"Test error over {label} (measured)", "lines: from the best to the worst seed; large: trained here"
        ),
        height=540,
        margin={"t": 70, "b": 150},
        legend=LEGEND_BELOW,
        yaxis={
            "title": {"text": "share of test examples missed"},
            "type": "log",
            "tickvals": [0.003, 0.01, 0.03, 0.1, 0.3, 1],
        },
        meta={"leastWidth": 420},
    )
    figure.update_xaxes(
        title=label + (" (ms)" if axis != AXES[0][0] else ""), type="log", exponentformat="SI", dtick="D2"
    )
    return figure


def _log(channels):
    """Return where a number of channels lies on the axis; none at zero."""
    return np.log2(np.asarray(channels, float) + 1)


def _missed(accuracy):
    return max(1 - accuracy, FEWEST_MISSED)


def _across(point, axis):
    return point.parameters if axis == AXES[0][0] else point.time_ms


def _titled(theme):
    return go.Figure(layout={"template": template(theme), "title": title_at_left("Trained nets (measured)")})


def _rounds(count):
    return f"{count} rounds" if count != 1 else "1 round"


def _names(scene, shown) -> Sequence[str]:
    return [f"<b>{name}</b>" if name == shown else name for name in scene.names]


def _layer_axis(scene):
    axis = {"autorange": "reversed", "type": "category", "title": {"text": "layer"}}
    return axis if len(scene.names) <= MOST_NAMED else axis | {"nticks": MOST_NAMED}


def _height(scene, each=26):
    return 200 + each * min(len(scene.names), MOST_NAMED)
