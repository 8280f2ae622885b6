"""What one step of a micro-kernel reads of a stored weight: the matrix, the arrays, the registers and the banks."""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from widgets.figures.layout import LEGEND_BELOW, title_at_left
from widgets.figures.sentence import say_instead
from widgets.figures.weight_format import LEAST_WIDTH, hatched
from widgets.theme import CATEGORIES, PALETTE, template

__all__ = ["TILE", "banks_figure", "index_picture", "lanes_figure", "registers_figure", "tile_of", "tile_picture",
           "value_picture"]  # fmt: skip

WHOLE = 64  # up to this many rows and columns every cell of a matrix is drawn
TILE = (32, 48)  # of a larger one, as many rows and columns around what is read
LINES = 16  # of an array, at once
FRAMED = 300
REGISTERS = 32
_ZERO_TINT = {"light": "#f6dfb8", "dark": "#5a4a22"}
_READ_TINT = {"light": "#b9c3cc", "dark": "#56616b"}


def _palette(theme):
    colours = PALETTE[theme]
    return (
        colours["plot"], CATEGORIES[theme][0], _ZERO_TINT[theme], colours["highlight"], _READ_TINT[theme],
    )  # fmt: skip


def number(value) -> str:
    """Return a weight or an index as it stands in a cell."""
    return f"{value:.2g}" if abs(value) < 100 and value != int(value) else f"{value:.0f}"


def tile_of(scene, stored, step) -> tuple[int, int, int, int]:
    """Return (first row, end, first column, end) of the part of the matrix that is drawn as cells."""
    m, k = scene.weight.shape
    if max(m, k) <= WHOLE:
        return 0, m, 0, k
    slots = stored.slots(step) if stored.steps else np.zeros(0, np.int64)
    there = slots[stored.row[slots] >= 0]
    row, column = (int(stored.row[there].min()), int(stored.column[there].min())) if len(there) else (0, 0)
    top = max(0, min(row - row % 8, m - TILE[0]))
    left = max(0, min(column - column % 8 - 8, k - TILE[1]))
    return top, min(m, top + TILE[0]), left, min(k, left + TILE[1])


def tile_picture(scene, stored, step, theme="light") -> dict:
    """Return what ``CellImage.show`` takes to draw a part of the matrix and what a step reads of it."""
    top, bottom, left, right = tile_of(scene, stored, step)
    part = scene.weight[top:bottom, left:right]
    cells = (part != 0).astype(np.uint8)
    there = stored.row >= 0
    row, column = stored.row[there] - top, stored.column[there] - left
    inside = (row >= 0) & (row < bottom - top) & (column >= 0) & (column < right - left)
    zero = inside & (stored.value[there] == 0)
    cells[row[zero], column[zero]] = 2
    slots = stored.slots(step) if stored.steps else np.zeros(0, np.int64)
    slots = slots[stored.row[slots] >= 0]
    now = np.column_stack([stored.row[slots] - top, stored.column[slots] - left])
    now = now[(now >= 0).all(axis=1) & (now[:, 0] < bottom - top) & (now[:, 1] < right - left)]
    cells[now[:, 0], now[:, 1]] = np.where(part[now[:, 0], now[:, 1]] != 0, 3, 2)
    rows, columns = np.nonzero(part)
    where = "" if max(scene.weight.shape) <= WHOLE else f", rows {top} to {bottom - 1}, columns {left} to {right - 1}"
    return {
        "cells": cells,
        "palette": _palette(theme),
        "names": ("", "weight", "zero that is stored", "weight read now", ""),
        "frames": now[:FRAMED],
        "frame_colour": PALETTE[theme]["ink"],
        "texts": [(r, c, number(part[r, c])) for r, c in zip(rows, columns, strict=True)],
        "title": f"The weight{where}",
        "alt": f"The weight{where}: {len(rows):,} of {part.size:,} places hold a weight; the step reads "
        f"{len(now):,} of these places, {int((part[now[:, 0], now[:, 1]] == 0).sum()):,} of them zero.",
    }


def value_picture(stored, step, theme="light") -> dict:
    """Return what ``CellImage.show`` takes to draw the stored values around those that a step reads."""
    now = stored.slots(step) if stored.steps else np.zeros(0, np.int64)
    classes = np.where(stored.value == 0, 2, 1)
    classes[now] = np.where(stored.value[now] == 0, 2, 3)
    texts, names = stored.value, ("", "value", "stored zero", "read now", "")
    if stored.banks is not None:
        texts = _bank_of_slot(stored)
        met = np.bincount(texts[now], minlength=REGISTERS)[texts[now]]
        classes[now] = np.where(met > 1, 3, 4)
        names = ("", "word, by its bank", "word of zero", "stored now, with others in its bank", "stored now, alone")
    cells, texts, frames, first = _array_cells(texts, stored.line, now, classes)
    return {
        "cells": cells,
        "palette": _palette(theme),
        "names": names,
        "frames": frames,
        "frame_colour": PALETTE[theme]["ink"],
        "texts": texts,
        "axes": ("line", "place in the line"),
        "title": _array_title("Values", stored.value, stored.line, first, len(cells)),
        "alt": f"The array of {len(stored.value):,} values; the step reads {len(now):,} of them.",
    }


def index_picture(stored, step, theme="light") -> dict:
    """Return what ``CellImage.show`` takes to draw the stored indices around those that a step reads."""
    edges = stored.index_edges
    now = np.arange(edges[step], edges[step + 1]) if stored.steps else np.zeros(0, np.int64)
    classes = np.full(len(stored.index), 4)
    classes[now] = 3
    cells, texts, frames, first = _array_cells(stored.index, stored.index_line, now, classes)
    return {
        "cells": cells,
        "palette": _palette(theme),
        "names": ("", "", "", "read now", "index"),
        "frames": frames,
        "frame_colour": PALETTE[theme]["ink"],
        "texts": texts,
        "axes": ("line", "place in the line"),
        "title": _array_title("Indices", stored.index, stored.index_line, first, len(cells)),
        "alt": f"The array of {len(stored.index):,} indices; the step reads {len(now):,} of them: "
        f"{', '.join(number(stored.index[i]) for i in now[:16])}.",
    }


def _array_title(name, array, line, first, lines):
    if not len(array):
        return f"{name}: none are stored"
    end = min(len(array), (first + lines) * line)
    part = "" if end - first * line == len(array) else f", {first * line:,} to {end - 1:,}"
    return f"{name}: {len(array):,} stored{part}"


def _bank_of_slot(stored):
    """Return the bank of every word."""
    order = stored.banks.shown
    bank = np.zeros(len(stored.value), np.int64)
    bank[stored.read] = order[order >= 0]
    return bank


def _array_cells(array, line, now, classes):
    """Cut an array into lines; return cells, texts and frames of those around ``now``, and the first line's number."""
    lines = -(-len(array) // line)
    span = LINES if not len(now) else max(LINES, int(now.max() // line - now.min() // line) + 1)
    first = 0 if not len(now) else max(0, min(int(now.min()) // line - LINES // 4, lines - span))
    part = array[first * line : (first + span) * line]
    cells = np.zeros((max(1, -(-len(part) // line)), line), np.uint8)
    cells.ravel()[: len(part)] = classes[first * line : first * line + len(part)]
    at = now - first * line
    texts = [(p // line, p % line, number(value)) for p, value in enumerate(part)]
    return cells, texts, np.column_stack([at // line, at % line])[:FRAMED], first


def registers_figure(stored, theme="light") -> go.Figure:
    """Draw what the 32 vector registers hold while a format is multiplied, as one bar."""
    figure = go.Figure()
    held = dict(stored.kernel.registers)
    if held:
        held["temporaries and free"] = REGISTERS - sum(held.values())
    for i, (role, count) in enumerate(held.items()):
        figure.add_bar(
            name=f"{role}: {count}",
            x=[count],
            y=["zmm"],
            orientation="h",
            text=[str(count)],
            insidetextanchor="middle",
            textangle=0,
            marker={
                "color": CATEGORIES[theme][(2, 0, 1, 6)[i]],
                "pattern": hatched(("", "/", "x", ".")[i], theme, solidity=0.15),
            },
            hovertemplate=f"{role}: {count} of {REGISTERS} registers<extra></extra>",
        )
    figure.update_layout(
        template=template(theme),
        title=f"The {REGISTERS} vector registers (counted)",
        barmode="stack",
        height=210,
        margin={"t": 44, "b": 96, "l": 8},
        legend=LEGEND_BELOW,
        xaxis={"range": [0, REGISTERS], "dtick": 4},
        yaxis={"showticklabels": False},
    )  # fmt: skip
    if not held:
        return say_instead(figure, stored.kernel.about)
    return figure


def lanes_figure(stored, step, theme="light") -> go.Figure:
    """Draw the registers of a step lane by lane: rows of activations, weights spread over all lanes, results.

    A line of activations is written with its row, one of weights with what every lane holds, one of results with its
    row. Of a format that picks some of its inputs, the inputs that are not picked are shown as well.
    """
    slots = stored.slots(step) if stored.steps else np.zeros(0, np.int64)
    lines = _lines(stored, slots)
    colours, lanes = PALETTE[theme], stored.kernel.lanes
    fills = (colours["plot"], CATEGORIES[theme][1], CATEGORIES[theme][0], CATEGORIES[theme][2])
    scale = [[edge / 4, colour] for i, colour in enumerate(fills) for edge in (i, i + 1)]
    names = [name for _, name, _ in lines]
    figure = go.Figure(
        go.Heatmap(
            z=[[kind + 0.5] * lanes for kind, _, _ in lines],
            y=list(range(len(lines))),
            x=list(range(lanes)),
            text=[[text] * lanes for _, _, text in lines],
            texttemplate="%{text}",
            textfont={"size": 10},
            zmin=0,
            zmax=4,
            colorscale=scale,
            showscale=False,
            xgap=2,
            ygap=2,
            customdata=[[name] * lanes for name in names],
            hovertemplate="%{customdata}<br>lane %{x}<extra></extra>",
        )
    )
    kernel = stored.kernel
    figure.update_layout(
        template=template(theme),
        title=title_at_left(f"{kernel.instruction}, {lanes} of {lanes * kernel.vectors} columns of activations"),
        height=110 + 24 * len(lines),
        margin={"t": 44, "b": 44, "l": 8},
        xaxis={"title": {"text": "lane = column of activations"}, "dtick": 1, "showgrid": False},
        yaxis={"tickvals": list(range(len(lines))), "ticktext": names, "autorange": "reversed", "showgrid": False},
        meta={"leastWidth": LEAST_WIDTH},
    )  # fmt: skip
    if not lines:
        return say_instead(figure, "The weight holds no entry, so no step reads anything.")
    return figure


def _lines(stored, slots):
    """Return (class, name, text in every lane) of the registers of a step; class 0 is an input that is not picked."""
    there = stored.row[slots] >= 0
    columns = stored.column[slots][there]
    read = sorted(set(columns.tolist()))
    if stored.choice and read:
        start = read[0] - read[0] % stored.choice
        around = range(start, start + stored.choice)
        lines = [(1, f"X[{c}, n], picked", f"{c}") if c in read else (0, f"X[{c}, n], not read", "") for c in around]
    else:
        lines = [(1, f"X[{c}, n]", f"{c}") for c in read]
    rows = sorted(set(stored.row[slots][there].tolist()))
    for r in rows:
        values = stored.value[slots][there & (stored.row[slots] == r)]
        told = " ".join(number(value) for value in values[:8]) + (" ..." if len(values) > 8 else "")
        lines.append((2, f"W[{r}, .] = {told}", number(values[0]) if len(values) == 1 else ""))
    return lines + [(3, f"C[{r}, n] += W X", "+=") for r in rows]


def banks_figure(banks, step, theme="light") -> go.Figure:
    """Draw how many of a step's 32 words meet in each bank, row by row and dealt, and the means over all steps."""
    orders = {"plain": "words row by row", "dealt": "words dealt over the banks"}
    means = {key: float(banks.fullest(key).mean()) if len(getattr(banks, key)) else 0.0 for key in orders}
    told = [f"{name}{' (shown)' if key == banks.order else ''}" for key, name in orders.items()]
    figure = make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.24,
        subplot_titles=[
            f"{name}: {mean:.2f} at the fullest bank, on average"
            for name, mean in zip(told, means.values(), strict=True)
        ],
    )
    most = 1
    for at, key in enumerate(orders, 1):
        found = getattr(banks, key)
        now = found[step][found[step] >= 0] if len(found) else np.zeros(0, int)
        counts = np.bincount(now, minlength=32)
        most = max(most, int(counts.max()))
        figure.add_bar(
            row=at, col=1, x=list(range(32)), y=counts,
            marker={"color": [CATEGORIES[theme][0] if count < 2 else PALETTE[theme]["highlight"] for count in counts],
                    "pattern": hatched(["" if count < 2 else "/" for count in counts], theme)},
            hovertemplate="bank %{x}: %{y} words at once<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        template=template(theme),
        title="Words that meet in one bank at this step (counted)",
        height=400,
        margin={"t": 80},
        showlegend=False,
    )
    figure.update_yaxes(title="words", range=[0, most + 0.5], dtick=1)
    figure.update_xaxes(title="bank of on-chip memory", row=2, col=1)
    figure.update_annotations(font_size=13)
    if not len(banks.plain):
        return say_instead(figure, "The weight holds no entry, so no word is stored into any bank.")
    return figure
