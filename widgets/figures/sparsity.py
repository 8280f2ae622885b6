"""Figures about a sparsity pattern: how long its rows are, and how it falls into blocks."""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from widgets import theme
from widgets.figures.sentence import say_instead


@dataclass(frozen=True)
class RowLengths:
    """How many rows have how many entries.

    Parameters
    ----------
    first, last : int64, inclusive range of entries per row of each bin: 0, 1, 2-3, 4-7, ...
    rows : int64, rows in each bin.
    """

    first: np.ndarray
    last: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class BlockDensities:
    """How a pattern falls into blocks of several sizes.

    Parameters
    ----------
    sizes : int64, block sizes.
    kept_share : float64, share of the grid's blocks that hold an entry.
    fill : float64, density inside those blocks.
    chosen : the size that the reader looks at.
    """

    sizes: np.ndarray
    kept_share: np.ndarray
    fill: np.ndarray
    chosen: int


def row_lengths(lengths: np.ndarray) -> RowLengths:
    """Bin entries per row by powers of two."""
    lengths = np.asarray(lengths, dtype=np.int64)
    exponents = np.zeros(lengths.shape, np.int64)
    filled = lengths > 0
    exponents[filled] = 1 + np.floor(np.log2(lengths[filled])).astype(np.int64)
    bins = int(exponents.max(initial=0)) + 1
    first = np.concatenate([[0], 2 ** np.arange(bins - 1)]).astype(np.int64)
    last = np.concatenate([[0], 2 ** np.arange(1, bins) - 1]).astype(np.int64)
    return RowLengths(first, last, np.bincount(exponents, minlength=bins).astype(np.int64))


def row_length_figure(data: RowLengths, appearance: theme.Theme = "light") -> go.Figure:
    """Draw rows by entries per row as bars, each labelled with its count."""
    names = [str(a) if a == b else f"{a}–{b}" for a, b in zip(data.first, data.last, strict=True)]
    bars = go.Bar(
        x=names,
        y=data.rows,
        text=[f"{n:,}" if n else "" for n in data.rows],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{x} entries: %{y:,} rows<extra></extra>",
    )
    figure = go.Figure(bars)
    figure.update_layout(
        template=theme.template(appearance),
        title="Rows by entries per row (counted)",
        height=260,
        showlegend=False,
        xaxis={"title": {"text": "entries in the row"}, "type": "category", "tickangle": -45},
        yaxis={"title": {"text": "rows"}, "rangemode": "tozero"},
    )
    return figure if data.rows.any() else say_instead(figure, "The part shown has no rows, so there is none to count.")


def block_density_figure(data: BlockDensities, appearance: theme.Theme = "light") -> go.Figure:
    """Draw density inside kept blocks and share of kept blocks over block size; marker and dash tell them apart."""
    lines = (
        ("density inside kept blocks", data.fill, "circle", "solid"),
        ("share of blocks kept", data.kept_share, "square-open", "dash"),
    )
    figure = go.Figure()
    for name, values, symbol, dash in lines:
        figure.add_scatter(
            x=data.sizes,
            y=values,
            name=name,
            mode="lines+markers",
            marker={"symbol": symbol, "size": 9},
            line={"dash": dash},
            hovertemplate="%{x} x %{x}: %{y:.4g}<extra>" + name + "</extra>",
        )
    figure.add_vline(x=data.chosen, line={"color": theme.PALETTE[appearance]["muted"], "width": 2, "dash": "dot"})
    figure.update_layout(
        template=theme.template(appearance),
        title="Blocks (counted)",
        height=330,
        legend={"y": -0.32, "yanchor": "top"},
        xaxis={"title": {"text": "block size"}, "type": "log", "tickvals": data.sizes, "ticktext": data.sizes},
        yaxis={"title": {"text": "share"}, "range": [0, 1.05]},
    )
    if not len(data.sizes):
        return say_instead(figure, "No size of blocks divides both sides of this mask, so none are counted.")
    if not data.kept_share.any():
        return say_instead(figure, "The part shown has no entries, so no block holds one.")
    return figure
