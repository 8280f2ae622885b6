"""What an attention method keeps, and at what cost: the data that mask views draw, and the plots beside the masks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go

from widgets import theme

PANELS = (
    ("attention", "true attention"),
    ("positions", "positions as values (V_I)"),
    ("linear", "output of the linear pass (sizes)"),
    ("estimate", "the method's estimate"),
    ("read", "logits read for the estimate"),
    ("met", "true attention on the logits read"),
    ("cells", "chosen cells of the estimate"),
    ("keep", "kept blocks"),
    ("blocks", "blocks: full, partial, empty"),
    ("allowed", "pairs computed"),
    ("effective", "attention as computed"),
    ("lost", "true attention left out"),
    ("sorted", "true attention, keys sorted"),
    ("permuted", "pairs computed, keys sorted"),
    ("ga", "read by global aggregation"),
    ("smp", "winners of segment maxima"),
    ("lmp", "winners of local maxima"),
    ("likeness", "likeness of output rows"),
    ("fused", "fused output (size)"),
    ("only", "pairs only this method computes"),
    ("change", "difference of attention as computed"),
)
CHANNELS = frozenset({"fused"})  # panels whose columns are channels, not keys
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


@dataclass(frozen=True)
class MaskResult:
    """One head under one method.

    Parameters
    ----------
    method : name shown to readers.
    panels : key of `PANELS` -> weights (float32) or a mask (bool), two-dimensional; a missing panel has no key. Those
        that follow from others (see `panel`) need no key.
    order, query_order : (t,) original key (query) of each sorted slot; None where nothing is sorted.
    cells : key -> tokens per row and column of that panel, where it is coarser than tokens.
    coverage : share of the true attention that the computed pairs hold; NaN where unknown.
    density : computed pairs over dense pairs, at the method's own grain.
    facts : label -> text, in reading order; every number says "counted", "measured" or "modelled".
    key_scores : (t,) float, a score per key; None where the method has none.
    """

    method: str
    panels: dict[str, np.ndarray]
    coverage: float
    density: float
    cells: dict[str, int] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    key_scores: np.ndarray | None = None
    order: np.ndarray | None = None
    query_order: np.ndarray | None = None


def panel_keys(result: MaskResult, other: MaskResult | None = None) -> tuple[str, ...]:
    """Return the keys of `PANELS` that a result can show, those that compare it with another included."""
    has = result.panels
    derived = {
        "lost": "attention" in has and "allowed" in has,
        "met": "attention" in has and "read" in has,
        "blocks": "allowed" in has and "keep" in has,
        "sorted": "attention" in has and result.order is not None,
        "permuted": "allowed" in has and result.order is not None,
        "only": other is not None and _shared(result, other) is not None,
        "change": other is not None and "effective" in has and "effective" in other.panels,
    }
    return tuple(key for key, _ in PANELS if key in has or derived.get(key))


def panel(result: MaskResult, key: str, other: MaskResult | None = None) -> np.ndarray:
    """Return one picture of a result; see `panel_keys` for what there is."""
    has = result.panels
    if key in has:
        return has[key]
    if key == "lost":
        return np.where(has["allowed"], np.float32(0), has["attention"])
    if key == "met":
        return np.where(has["read"], has["attention"], np.float32(0))
    if key == "blocks":
        return block_shares(_sorted(result, "allowed"), result.cells["keep"])
    if key in ("sorted", "permuted"):
        return _sorted(result, {"sorted": "attention", "permuted": "allowed"}[key])
    if key == "only":
        shared = _shared(result, other)
        return has[shared] & ~other.panels[shared]
    if key == "change":
        return np.abs(has["effective"] - other.panels["effective"])
    raise ValueError(f"panel: {result.method} has no {key!r}")


def panel_labels(scene, result: MaskResult, key: str, shape) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what the rows of a panel are, and its columns where they are something else; empty where unknown."""
    if key in CHANNELS:
        rows = scene.tokens or tuple(f"token {i}" for i in range(shape[0]))
        return rows, tuple(f"channel {i}" for i in range(shape[1]))
    return (scene.tokens if shape == (len(scene.tokens),) * 2 and result.order is None else ()), ()


def block_shares(mask: np.ndarray, block: int) -> np.ndarray:
    """Return the share of every block's pairs that a mask (t, t) holds, (n, n) float32: 1 full, 0 empty."""
    t = len(mask)
    missing = -t % block
    padded = np.pad(mask, [(0, missing), (0, missing)]) if missing else mask
    n = len(padded) // block
    counts = padded.reshape(t + missing, n, block).sum(axis=2, dtype=np.int32).reshape(n, block, n).sum(axis=1)
    inside = np.minimum(block, t - block * np.arange(n))
    return (counts / (inside[:, None] * inside)).astype(np.float32)


def _sorted(result, key):
    array = result.panels[key]
    if result.query_order is not None:
        array = array[result.query_order]
    return array if result.order is None else np.ascontiguousarray(array[:, result.order])


def _shared(result, other):
    """The finest mask that both have at one shape and in one order: pairs, else kept blocks of unsorted keys."""
    for key in ("allowed", "keep"):
        a, b = result.panels.get(key), other.panels.get(key)
        plain = key == "allowed" or (result.order is None and other.order is None)
        if a is not None and b is not None and a.shape == b.shape and plain:
            return key
    return None


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class AttentionScene:
    """All that one picture of attention masks draws.

    Parameters
    ----------
    source : where queries and keys come from, in words.
    t : tokens.
    tokens : their texts; empty where there are none.
    result, other : the method, and the one it is compared with (None for none).
    curves : coverage over density; the present settings are drawn as a larger marker.
    query : ``query(row, state)`` -> what one query reads, a `attention_query.QueryRow` or `QueryMaps`; None where rows
        are too long to hold.
    """

    source: str
    t: int
    result: MaskResult
    other: MaskResult | None = None
    tokens: tuple[str, ...] = ()
    curves: tuple[CoverageCurve, ...] = ()
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
        if result is not None and result.coverage == result.coverage:
            figure.add_scatter(
                x=[result.density],
                y=[result.coverage],
                name=f"now: {result.method}",
                mode="markers",
                marker={"symbol": symbol, "size": 17, "line": {"width": 3}, "color": ink},
                hovertemplate="%{y:.3f} of the attention at density %{x:.3f}<extra></extra>",
            )
    figure.update_layout(
        template=theme.template(appearance),
        title="Attention covered by what is computed (counted)",
        height=430,
        margin={"t": 60, "b": 170},
        legend={"orientation": "h", "yanchor": "top", "y": -0.32, "x": 0},
        xaxis={"title": {"text": "density (computed / dense)"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "share of true attention"}, "range": [0, 1.04]},
    )
    return figure


def key_score_figure(scores: np.ndarray, appearance: theme.Theme = "light") -> go.Figure:
    """Draw the score of every key as a line (binned to its maximum beyond 2,000 keys)."""
    step = max(1, -(-len(scores) // 2000))
    starts = np.arange(0, len(scores), step)
    binned = np.maximum.reduceat(scores, starts) if len(scores) else scores
    figure = go.Figure(go.Scatter(x=starts, y=binned, mode="lines", hovertemplate="key %{x}: %{y:.4g}<extra></extra>"))
    figure.update_layout(
        template=theme.template(appearance),
        title="Score of every key" + (f", largest of {step}" if step > 1 else "") + " (counted)",
        height=240,
        showlegend=False,
        xaxis={"title": {"text": "key position"}},
        yaxis={"title": {"text": "score"}, "rangemode": "tozero"},
    )
    return figure
