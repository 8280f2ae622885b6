"""What an attention method keeps, and at what cost: the data that mask views draw, and the plots beside the masks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

from kernels.attention.trace import AttentionTrace
from widgets import theme
from widgets.figures.sentence import say_instead


@dataclass(frozen=True)
class Panel:
    """One picture that a method may have.

    Parameters
    ----------
    key, label : as in links, and what readers see.
    columns : what a column is, "key" or "channel".
    """

    key: str
    label: str
    columns: Literal["key", "channel"] = "key"


PANELS = (  # what every method may have, in the order of the menu; a method's own pictures follow the estimate
    Panel("attention", "true attention"),
    Panel("estimate", "the method's estimate"),
    Panel("read", "logits sampled for the estimate"),
    Panel("met", "true attention on the logits sampled"),
    Panel("keep", "kept blocks"),
    Panel("blocks", "blocks: full, partial, empty"),
    Panel("allowed", "pairs computed"),
    Panel("reached", "pairs that some chain of steps connects"),
    Panel("effective", "attention as computed"),
    Panel("lost", "true attention left out"),
    Panel("sorted", "true attention, keys sorted"),
    Panel("permuted", "pairs computed, keys sorted"),
    Panel("only", "pairs only this method computes"),
    Panel("change", "difference of attention as computed"),
)
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def pictures_of(seen: AttentionTrace) -> dict[str, np.ndarray]:
    """Return the pictures that a trace holds: weights (float32) or masks (bool), two-dimensional, by panel key."""
    weights = {"attention": seen.attention, "estimate": seen.estimate, "effective": seen.effective}
    masks = {"allowed": seen.allowed, "reached": seen.reached, "read": seen.read, "keep": seen.keep}
    found = {key: np.ascontiguousarray(array, np.float32) for key, array in weights.items() if array is not None}
    found |= {key: np.ascontiguousarray(array, bool) for key, array in masks.items() if array is not None}
    return found | {key: np.ascontiguousarray(array) for key, array in seen.maps.items()}


def tokens_per_cell(seen: AttentionTrace, key: str) -> int:
    """Return how many tokens a row (and column) of a panel stands for."""
    coarse = ("keep", "blocks") if seen.estimate is None or len(seen.estimate) == seen.t else (
        "keep", "blocks", "estimate")  # fmt: skip
    return seen.block_size if seen.block_size and key in coarse else 1


def panel_keys(seen: AttentionTrace, other: AttentionTrace | None = None) -> tuple[str, ...]:
    """Return the panels that a trace can show, those that compare it with another included."""
    has = {*seen.maps, *(key for key in _HELD if getattr(seen, key) is not None)}
    derived = {
        "lost": {"attention", "allowed"} <= has,
        "met": {"attention", "read"} <= has,
        "blocks": {"allowed", "keep"} <= has,
        "sorted": "attention" in has and is_sorted(seen),
        "permuted": "allowed" in has and is_sorted(seen),
        "only": other is not None and _shared(seen, other) is not None,
        "change": other is not None and seen.effective is not None and other.effective is not None,
    }
    shared = [each.key for each in PANELS if each.key in has or derived.get(each.key)]
    return (*shared, *(key for key in seen.maps if key not in shared))


def panel(seen: AttentionTrace, key: str, other: AttentionTrace | None = None) -> np.ndarray:
    """Return one picture of a trace; see `panel_keys` for what there is."""
    has = pictures_of(seen)
    if key in has:
        return has[key]
    if key == "lost":
        return np.where(has["allowed"], np.float32(0), has["attention"])
    if key == "met":
        return np.where(has["read"], has["attention"], np.float32(0))
    if key == "blocks" and seen.block_size:
        return block_shares(in_slots(seen, has["allowed"]), seen.block_size)
    if key in ("sorted", "permuted"):
        return in_slots(seen, has[{"sorted": "attention", "permuted": "allowed"}[key]])
    if key == "only" and other is not None and (shared := _shared(seen, other)):
        return has[shared] & ~pictures_of(other)[shared]
    if key == "change" and other is not None:
        return np.abs(has["effective"] - pictures_of(other)["effective"])
    raise ValueError(f"panel: {seen.method} has no {key!r}")


def panel_labels(scene, seen: AttentionTrace, shown: Panel, shape) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what the rows of a panel are, and its columns where they are something else; empty where unknown."""
    if shown.columns == "channel":
        rows = scene.tokens or tuple(f"token {i}" for i in range(shape[0]))
        return rows, tuple(f"channel {i}" for i in range(shape[1]))
    return (scene.tokens if shape == (len(scene.tokens),) * 2 and not is_sorted(seen) else ()), ()


def panel_axes(seen: AttentionTrace, shown: Panel, shape) -> tuple[str, str]:
    """Return what the rows and columns of a panel are called."""
    columns = "cell" if shown.columns == "key" and shape[0] != shape[1] else shown.columns
    blocks = " block" if tokens_per_cell(seen, shown.key) > 1 else ""
    return f"query{blocks}", f"{columns}{blocks}"


def block_shares(mask: np.ndarray, block: int) -> np.ndarray:
    """Return the share of every block's pairs that a mask (t, t) holds, (n, n) float32: 1 full, 0 empty."""
    t = len(mask)
    missing = -t % block
    padded = np.pad(mask, [(0, missing), (0, missing)]) if missing else mask
    n = len(padded) // block
    counts = padded.reshape(t + missing, n, block).sum(axis=2, dtype=np.int32).reshape(n, block, n).sum(axis=1)
    inside = np.minimum(block, t - block * np.arange(n))
    return (counts / (inside[:, None] * inside)).astype(np.float32)


def in_slots(seen: AttentionTrace, array: np.ndarray) -> np.ndarray:
    """Return a (t, t) array with its queries and keys in the order in which the method computes them."""
    if seen.query_order is not None:
        array = array[seen.query_order]
    return array if seen.order is None else np.ascontiguousarray(array[:, seen.order])


def is_sorted(seen: AttentionTrace) -> bool:
    """Tell whether the method computes keys or queries in another order than the text's."""
    orders = [order for order in (seen.order, seen.query_order) if order is not None]
    return any(bool((order != np.arange(len(order))).any()) for order in orders)


_HELD = ("attention", "estimate", "effective", "allowed", "reached", "read", "keep")


def _shared(seen, other):
    """The finest mask that both have at one shape and in one order: pairs, else kept blocks of unsorted keys."""
    for key in ("allowed", "keep"):
        a, b = getattr(seen, key), getattr(other, key)
        plain = key == "allowed" or not (is_sorted(seen) or is_sorted(other))
        if a is not None and b is not None and a.shape == b.shape and plain:
            return key
    return None


@dataclass(frozen=True, kw_only=True)
class CoverageCurve:
    """Coverage of the true attention over density, one point per setting.

    Parameters
    ----------
    label : legend entry.
    density, coverage : float64 (n,).
    settings : (n,) texts for the hover, such as "threshold 0.9".
    """

    label: str
    density: np.ndarray
    coverage: np.ndarray
    settings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class AttentionScene:
    """All that one picture of attention masks draws.

    Parameters
    ----------
    source : where queries and keys come from, in words.
    t : tokens.
    tokens : their texts; empty where there are none.
    result, other : the method, and the one it is compared with (None for none); their facts are texts, and every
        number among them says "counted", "measured" or "modelled".
    kind : how attention and coverage come about: "measured" where trained weights made them, else "counted".
    curves : coverage over density; the present settings are drawn as a larger marker.
    numbers : (method, what, number) of every fact that is a number, for tables of data.
    query : ``query(row, state)`` -> what one query attends to, a `attention_query.QueryRow` or `QueryMaps`; None where
        rows are too long to hold.
    """

    source: str
    t: int
    result: AttentionTrace
    other: AttentionTrace | None = None
    kind: Literal["counted", "measured"] = "counted"
    tokens: tuple[str, ...] = ()
    curves: tuple[CoverageCurve, ...] = ()
    numbers: tuple[tuple[str, str, float], ...] = ()
    query: Callable[[int, Mapping[str, Any]], Any] | None = None


def coverage_figure(scene: AttentionScene, appearance: theme.Theme = "light") -> go.Figure:
    """Draw coverage over density: curves by symbol and dash, the present settings as large open markers."""
    figure = go.Figure()
    for i, curve in enumerate(scene.curves):
        figure.add_scatter(
            x=curve.density,
            y=curve.coverage,
            name=curve.label,
            mode="lines+markers",
            marker={"symbol": _SYMBOLS[i % len(_SYMBOLS)], "size": 8},
            line={"dash": _DASHES[i % len(_DASHES)]},
            text=curve.settings,
            hovertemplate="%{text}: %{y:.3f} of the attention at density %{x:.3f}<extra>" + curve.label + "</extra>",
        )
    ink = theme.PALETTE[appearance]["ink"]
    for result, symbol in ((scene.result, "circle-open"), (scene.other, "square-open")):
        if result is not None and result.density and result.coverage == result.coverage:
            figure.add_scatter(
                x=[result.density],
                y=[result.coverage],
                name=f"present settings: {result.method}",
                mode="markers",
                marker={"symbol": symbol, "size": 17, "line": {"width": 3}, "color": ink},
                hovertemplate="%{y:.3f} of the attention at density %{x:.3f}<extra></extra>",
            )
    figure.update_layout(
        template=theme.template(appearance),
        title=f"Attention covered by what is computed ({scene.kind})",
        height=430,
        margin={"t": 60, "b": 170},
        legend={"orientation": "h", "yanchor": "top", "y": -0.32, "x": 0},
        xaxis={"title": {"text": "density (pairs kept / pairs of dense attention)"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "share of true attention"}, "range": [0, 1.04]},
    )
    if not figure.data:
        why = "How much of the true attention these settings cover is not known, so there is no point to draw."
        return say_instead(figure, why)
    return figure


def key_score_figure(scores: np.ndarray, kind: str, appearance: theme.Theme = "light") -> go.Figure:
    """Draw the score of every key as a line (binned to its maximum beyond 2,000 keys)."""
    step = max(1, -(-len(scores) // 2000))
    starts = np.arange(0, len(scores), step)
    binned = np.maximum.reduceat(scores, starts) if len(scores) else scores
    figure = go.Figure(go.Scatter(x=starts, y=binned, mode="lines", hovertemplate="key %{x}: %{y:.4g}<extra></extra>"))
    figure.update_layout(
        template=theme.template(appearance),
        title="Score of every key" + (f", largest of {step}" if step > 1 else "") + f" ({kind})",
        height=240,
        showlegend=False,
        xaxis={"title": {"text": "key position"}},
        yaxis={"title": {"text": "score"}, "rangemode": "tozero"},
    )
    return figure if len(scores) else say_instead(figure, "There are no keys, so none has a score.")
