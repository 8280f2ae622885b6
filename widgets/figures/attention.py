"""What an attention method keeps, and at what cost: the data that mask views draw, and the plots beside the masks."""

from dataclasses import dataclass, field

import numpy as np
import plotly.graph_objects as go

from widgets import theme

PANELS = (
    ("attention", "true attention"),
    ("estimate", "the method's estimate"),
    ("read", "logits read for the estimate"),
    ("keep", "kept blocks"),
    ("allowed", "pairs computed"),
    ("effective", "attention as computed"),
    ("lost", "true attention left out"),
    ("permuted", "pairs computed, keys in the method's order"),
)
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


@dataclass(frozen=True)
class MaskResult:
    """One head under one method.

    Parameters
    ----------
    method : name shown to readers.
    panels : key of `PANELS` -> weights (float32) or a mask (bool), two-dimensional; a missing panel has no key.
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
    """

    source: str
    t: int
    result: MaskResult
    other: MaskResult | None = None
    tokens: tuple[str, ...] = ()
    curves: tuple[CoverageCurve, ...] = ()


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
