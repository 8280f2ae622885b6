"""One step of a dataflow as pictures and words: the entries it uses, the lines it walks, what it has formed so far."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from kernels.matmul.dataflow import products_between
from widgets.theme import CATEGORIES, PALETTE

WRITTEN = 24  # up to this many rows and columns, values are written into the cells
FRAMED = 64
_TINTS = {"light": ("#f6efd9", "#b9c3cc"), "dark": ("#2b2a22", "#56616b")}
_NAMES = {
    "A": ("", "", "entry", "entry of the current line", "used now"),
    "B": ("", "", "entry", "entry of the current line", "used now"),
    "C": ("", "", "to come", "formed", "reached now"),
}


@dataclass(frozen=True)
class StepMarks:
    """What one step of a dataflow touches.

    Parameters
    ----------
    sentence : the step in words.
    formed : products formed once the step is done.
    cells : "A", "B", "C" -> int64[t, 2], the entries used and reached, as (row, column).
    lines : "A", "B", "C" -> (rows, columns) that the dataflow walks along.
    """

    sentence: str
    formed: int
    cells: dict[str, np.ndarray]
    lines: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]


def step_marks(scene, dataflow, position):
    """Return what the step before ``position`` touches; position 0 is the state before the first product.

    Parameters
    ----------
    scene : TrafficScene.
    dataflow : "inner", "outer", "row" or "column".
    position : from 0 to the number of steps.
    """
    steps = scene.steps[dataflow]
    nothing = {name: np.zeros((0, 2), np.int64) for name in "ABC"}
    if position == 0 or not len(steps.live):
        text = (
            f"Nothing is formed yet; {steps.products:,} partial products are to come."
            if steps.products
            else ("These operands form no partial product at all.")
        )
        return StepMarks(text, 0, nothing, dict.fromkeys("ABC", ((), ())))
    s = position - 1
    run = products_between(scene.orders[dataflow], int(steps.edges[s]), int(steps.edges[s + 1]))
    cells = {"A": (run.i, run.k), "B": (run.k, run.j), "C": (run.i, run.j)}
    cells = {name: np.unique(np.column_stack(pair), axis=0) for name, pair in cells.items()}
    i, k, j = ({int(x[0])} if len(set(x.tolist())) == 1 else set() for x in (run.i, run.k, run.j))
    lines = {
        "inner": {"A": (i, ()), "B": ((), j), "C": ((), ())},
        "outer": {"A": ((), k), "B": (k, ()), "C": (i, ())},
        "row": {"A": (i, ()), "B": (k, ()), "C": (i, ())},
        "column": {"A": ((), k), "B": ((), j), "C": ((), j)},
    }[dataflow]
    lines = {name: (tuple(rows), tuple(columns)) for name, (rows, columns) in lines.items()}
    say = _say_product if steps.exact else _say_run
    return StepMarks(say(scene, steps, s, run), int(steps.edges[s + 1]), cells, lines)


def _say_product(scene, steps, s, run):
    i, k, j = int(run.i[0]), int(run.k[0]), int(run.j[0])
    a, b = (scene.orders[steps.dataflow].a_data[run.a_entry[0]], scene.orders[steps.dataflow].b_data[run.b_entry[0]])
    start = f"A[{i}, {k}] = {a:g} times B[{k}, {j}] = {b:g}"
    amount, merged = f"{run.product[0]:g}", bool(steps.merged[s])
    then = {
        "inner": f"adds {amount} to the running dot product C[{i}, {j}]"
        if merged
        else f"starts the dot product C[{i}, {j}] with {amount}",
        "outer": f"is stored: {amount} for C[{i}, {j}], to be merged after the last product",
    }.get(
        steps.dataflow,
        f"adds {amount} to C[{i}, {j}]: merge" if merged else f"opens C[{i}, {j}] with {amount}: new entry",
    )
    return f"{start} {then}. {_say_alive(steps, s)}"


def _say_run(scene, steps, s, run):
    low, high = int(steps.edges[s]), int(steps.edges[s + 1])
    merged = int(steps.merged[s])
    rows = f"rows {run.i.min():,} to {run.i.max():,} of A, {run.k.min():,} to {run.k.max():,} of B"
    what = (
        "all stored" if steps.dataflow == "outer" else f"{merged:,} merge, {high - low - merged:,} open an entry of C"
    )
    return f"Products {low + 1:,} to {high:,}, from {rows}: {what}. {_say_alive(steps, s)}"


def _say_alive(steps, s):
    text = f"{steps.live[s]:,} alive."
    if steps.dataflow == "outer" and s == len(steps.live) - 1:
        text += f" Merging them leaves {steps.outputs:,}."
    return text


def cell_classes(shape, entries, lines, now, used=None):
    """Return the class of every cell of a small matrix: uint8[m, n].

    0 empty, 1 empty but on a walked line, 2 an entry, 3 an entry on a walked line (or, with ``used``, one of those),
    4 touched now.

    Parameters
    ----------
    shape : (m, n).
    entries : (rows, columns) of the entries.
    lines : (rows, columns) walked.
    now : int64[t, 2].
    used : bool per entry; None to tell entries on the walked lines apart instead.
    """
    cells, on_line = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    on_line[list(lines[0])] = True
    on_line[:, list(lines[1])] = True
    cells[on_line] = 1
    rows, columns = entries
    cells[rows, columns] = np.where(on_line[rows, columns] if used is None else used, 3, 2)
    cells[now[:, 0], now[:, 1]] = 4
    return cells


def cell_picture(scene, dataflow, marks, name, theme="light"):
    """Return what ``CellImage.show`` takes to draw one small operand at a step: keyword arguments.

    Parameters
    ----------
    scene, dataflow : as for ``step_marks``.
    marks : from ``step_marks``.
    name : "A", "B" or "C".
    """
    operand = {"A": scene.a, "B": scene.b, "C": scene.c}[name]
    rows = np.repeat(np.arange(operand.shape[0]), np.diff(operand.indptr))
    used = formed_entries(scene, dataflow, marks) if name == "C" else None
    now = marks.cells[name]
    texts = []
    if max(operand.shape) <= WRITTEN:
        values = _sums_so_far(scene, dataflow, marks.formed) if name == "C" else operand.values
        written = range(len(rows)) if used is None else np.flatnonzero(used)
        texts = [(rows[e], operand.indices[e], f"{values[e]:.4g}") for e in written]
    colours = PALETTE[theme]
    return {
        "cells": cell_classes(operand.shape, (rows, operand.indices), marks.lines[name], now, used),
        "palette": (colours["plot"], *_TINTS[theme], CATEGORIES[theme][0], colours["highlight"]),
        "names": _NAMES[name],
        "frames": now if len(now) <= FRAMED else (),
        "frame_colour": colours["ink"],
        "texts": texts,
        "title": matrix_title(operand),
        "alt": pattern_words(operand, now, used),
    }


def formed_entries(scene, dataflow, marks):
    """Return, per entry of C, whether a product has reached it."""
    return scene.births[dataflow] < marks.formed


def operand_matrix(operand, used=None):
    """Return an operand as a csr_array, or only its ``used`` entries."""
    if used is None:
        return sp.csr_array((operand.values, operand.indices, operand.indptr), shape=operand.shape)
    before = np.concatenate(([0], np.cumsum(used)))
    kept = (operand.values[used], operand.indices[used], before[operand.indptr])
    return sp.csr_array(kept, shape=operand.shape)


def matrix_title(operand):
    """Return an operand's name, shape and density in words."""
    m, n = operand.shape
    return f"{operand.name}: {m:,} x {n:,}, {operand.nnz:,} entries (density {operand.nnz / max(m * n, 1):.2g})"


def pattern_words(operand, now, used=None):
    """Return what an operand's picture shows, in words."""
    m, n = operand.shape
    text = f"Pattern of {operand.name}, {m:,} rows, {n:,} columns, {operand.nnz:,} entries"
    if used is not None:
        text += f", {int(used.sum()):,} of them formed"
    if len(now) == 1:
        text += f"; now at row {now[0][0]}, column {now[0][1]}"
    return text + "."


def table_picture(table, theme="light"):
    """Return what ``CellImage.show`` takes to draw a hash table, coloured by the row of C in each slot.

    Parameters
    ----------
    table : TableOccupancy.
    """
    slots = len(table.row)
    width = 2 ** min(9, -(-int(np.ceil(np.log2(max(slots, 4)))) // 2))
    height = -(-slots // width)
    row = np.full(width * height, -1, np.int64)
    row[:slots] = table.row
    shades = CATEGORIES[theme][:7]
    cells = np.where(row >= 0, 1 + row % len(shades), 0).reshape(height, width)
    used = float((table.row >= 0).mean()) if slots else 0.0
    return {
        "cells": cells,
        "palette": (PALETTE[theme]["plot"], *shades),
        "names": ("free", "taken; the colour tells the row of C", *[""] * (len(shades) - 1)),
        "axes": ("table line", "slot"),
        "title": f"Table of window {table.window + 1} of {table.windows}, {table.label} ({table.kind})",
        "alt": f"Hash table with {slots:,} slots, {used:.1%} of them taken by {table.rows:,} rows of C, "
        f"coloured by row; {table.label}.",
    }


def _sums_so_far(scene, dataflow, formed):
    run = products_between(scene.orders[dataflow], 0, formed)
    n = scene.c.shape[1]
    rows = np.repeat(np.arange(scene.c.shape[0]), np.diff(scene.c.indptr))
    place = np.searchsorted(rows * n + scene.c.indices, run.i * n + run.j)
    return np.bincount(place, run.product, scene.c.nnz)
