"""One step of a dataflow as pictures and words: entries it uses, lines it walks, what it keeps and what is written."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from kernels.matmul.dataflow_order import products_between
from kernels.matmul.on_chip import Kept, kept_on_chip
from widgets.figures.spgemm_dataflows import NOTHING, STEPPED, counted
from widgets.figures.spgemm_traffic import readable_bytes
from widgets.theme import CATEGORIES, PALETTE

ELEMENT_BYTES = 16  # an index and a value, as the traffic counts them
NAMED = 8  # elements on the chip that are named one by one, the newest
WRITTEN = 24  # up to this many rows and columns, values are written into the cells
FRAMED = 64
SPELLED = 9  # characters of unmerged values that are spelled out; longer ones are counted
REMERGED = 2 * 10**6  # products of which a large picture still tells how many meet in one place
_TINTS = {"light": ("#f6efd9", "#b9c3cc"), "dark": ("#2b2a22", "#56616b")}
_TO_COME, _WRITTEN, _NOW, _ON_CHIP = 2, 3, 4, 5
_NAMES = {
    "A": ("", "", "entry", "entry of the current line", "used now", ""),
    "B": ("", "", "entry", "entry of the current line", "used now", ""),
    "C": ("", "", "to come", "written", "reached now", "on the chip"),
}


@dataclass(frozen=True, kw_only=True)
class StepMarks:
    """One position in a dataflow: what its step touches, and what is on the chip and written after it.

    Parameters
    ----------
    sentence : the step in words.
    formed : products formed once the step is done.
    cells : "A", "B", "C" -> int64[t, 2], the entries used and reached, as (row, column).
    lines : "A", "B", "C" -> (rows, columns) that the dataflow walks along.
    kept : what is on the chip; nothing before the first product, and once all is written.
    """

    sentence: str
    formed: int
    cells: dict[str, np.ndarray]
    lines: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    kept: Kept


def positions(steps):
    """Return how many positions follow the start: every step, and the one at which what is left is written."""
    return len(steps.live) + bool(len(steps.live))


def step_marks(scene, dataflow, position):
    """Return what a position shows.

    Parameters
    ----------
    scene : TrafficScene.
    dataflow : one of ``spgemm_dataflows.STEPPED``.
    position : 0 is the state before the first product, s the state after step s, and the last the state in which the
        rest is written; see ``positions``.
    """
    steps, flow = scene.steps[dataflow], STEPPED[dataflow]
    order = scene.orders[flow.order]
    if position == 0 or not steps.products:
        kept = kept_on_chip(order, 0)
        text = f"Nothing is formed yet; {counted(steps.products, 'partial product')} to come."
        if not steps.products:
            text = "These operands form no partial product at all."
        return _untouched(text, 0, kept)
    if position > len(steps.live):
        return _untouched(_say_end(scene, dataflow), steps.products, _all_written(order))
    s = position - 1
    low, high = int(steps.edges[s]), int(steps.edges[s + 1])
    run = products_between(order, low, high)
    kept = kept_on_chip(order, high, windows=scene.windows[dataflow], most=NAMED)
    cells = {"A": (run.i, run.k), "B": (run.k, run.j), "C": (run.i, run.j)}
    cells = {name: np.unique(np.column_stack(pair), axis=0) for name, pair in cells.items()}
    i, k, j = ({int(x[0])} if len(set(x.tolist())) == 1 else set() for x in (run.i, run.k, run.j))
    lines = {name: (tuple(rows), tuple(columns)) for name, (rows, columns) in flow.lines(i, k, j).items()}
    say = _say_product if steps.exact else _say_run
    sentence = f"{say(scene, dataflow, s, run, kept)} {_say_state(scene, dataflow, kept)}"
    return StepMarks(sentence=sentence, formed=high, cells=cells, lines=lines, kept=kept)


def kept_words(total):
    """Return how much is on the chip, in elements and bytes."""
    return f"{counted(total, 'element')} ({readable_bytes(total * ELEMENT_BYTES)})"


def _untouched(sentence, formed, kept):
    nothing = {name: np.zeros((0, 2), np.int64) for name in "ABC"}
    return StepMarks(sentence=sentence, formed=formed, cells=nothing, lines=dict.fromkeys("ABC", NOTHING), kept=kept)


def _all_written(order):
    none = np.zeros(0, np.int64)
    return Kept(row=none, column=none, inner=none, value=np.zeros(0), total=0, since=order.products)


def _say_product(scene, dataflow, s, run, kept):
    flow, steps = STEPPED[dataflow], scene.steps[dataflow]
    order = scene.orders[flow.order]
    i, k, j = int(run.i[0]), int(run.k[0]), int(run.j[0])
    a, b = order.a_data[run.a_entry[0]], order.b_data[run.b_entry[0]]
    does = flow.adds if steps.merged[s] else flow.opens
    text = f"A[{i}, {k}] = {a:g} times B[{k}, {j}] = {b:g} {does.format(i=i, j=j, amount=f'{run.product[0]:g}')}."
    return f"{_say_written(scene, dataflow, s)} {text}" if s and kept.since == s else text


def _say_written(scene, dataflow, s):
    """Return the sentence of what left the chip before a product."""
    flow = STEPPED[dataflow]
    order = scene.orders[flow.order]
    last = products_between(order, s - 1, s)
    left = kept_on_chip(order, s, windows=scene.windows[dataflow], most=0).total
    return flow.written.format(i=int(last.i[0]), j=int(last.j[0]), entries=counted(left, "entry", "entries"))


def _say_run(scene, dataflow, s, run, kept):
    steps = scene.steps[dataflow]
    low, high, merged = int(steps.edges[s]), int(steps.edges[s + 1]), int(steps.merged[s])
    rows = f"rows {run.i.min():,} to {run.i.max():,} of A, {run.k.min():,} to {run.k.max():,} of B"
    what = f"{merged:,} merge, {high - low - merged:,} open an entry of C"
    if STEPPED[dataflow].merges_last:
        what = "all are stored"
    return f"Products {low + 1:,} to {high:,}, from {rows}: {what}."


def _say_state(scene, dataflow, kept):
    births = scene.births[STEPPED[dataflow].order]
    written = int(np.count_nonzero(births < kept.since))
    entries = counted(len(births), "entry", "entries")
    return f"On the chip: {kept_words(kept.total)}. Written: {written:,} of {entries} of C."


def _say_end(scene, dataflow):
    flow, steps = STEPPED[dataflow], scene.steps[dataflow]
    entries = counted(steps.outputs, "entry", "entries")
    last = _say_written(scene, dataflow, steps.products)
    if flow.merges_last:
        last = f"The {counted(steps.products, 'product')} on the list are merged into {entries} of C."
    return f"{last} C is complete with {entries}, and nothing is left on the chip."


def cell_classes(shape, entries, lines, now, classes=None):
    """Return the class of every cell of a small matrix: uint8[m, n].

    0 empty, 1 empty but on a walked line, 2 an entry (C: to come), 3 an entry on a walked line (C: written), 4 touched
    now, 5 on the chip.

    Parameters
    ----------
    shape : (m, n).
    entries : (rows, columns) of the entries.
    lines : (rows, columns) walked.
    now : int64[t, 2].
    classes : class per entry; None to tell entries on the walked lines apart.
    """
    cells, on_line = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    on_line[list(lines[0])] = True
    on_line[:, list(lines[1])] = True
    cells[on_line] = 1
    rows, columns = entries
    cells[rows, columns] = np.where(on_line[rows, columns], 3, 2) if classes is None else classes
    cells[now[:, 0], now[:, 1]] = _NOW
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
    now, names, classes = marks.cells[name], _NAMES[name], None
    used = formed_entries(scene, dataflow, marks) if name == "C" else None
    if used is not None:
        kept = scene.births[STEPPED[dataflow].order] >= marks.kept.since
        classes = np.where(used, np.where(kept, _ON_CHIP, _WRITTEN), _TO_COME)
    cells = cell_classes(operand.shape, (rows, operand.indices), marks.lines[name], now, classes)
    if name == "B" and STEPPED[dataflow].waits_in_b:
        waits = marks.kept.inner >= 0
        cells[marks.kept.inner[waits], marks.kept.column[waits]] = _ON_CHIP
        names = (*names[:_ON_CHIP], "waits in the merge")
    texts = []
    if max(operand.shape) <= WRITTEN:
        said = _values_so_far(scene, dataflow, marks) if name == "C" else [f"{v:.4g}" for v in operand.values]
        texts = [(r, c, text) for r, c, text in zip(rows, operand.indices, said, strict=True) if text]
    colours = PALETTE[theme]
    return {
        "cells": cells,
        "palette": (colours["plot"], *_TINTS[theme], CATEGORIES[theme][0], colours["highlight"], CATEGORIES[theme][2]),
        "names": names,
        "frames": now if len(now) <= FRAMED else (),
        "frame_colour": colours["ink"],
        "texts": texts,
        "title": matrix_title(operand),
        "alt": pattern_words(operand, now, used),
    }


def formed_entries(scene, dataflow, marks):
    """Return, per entry of C, whether a product has reached it."""
    return scene.births[STEPPED[dataflow].order] < marks.formed


def formed_matrix(scene, dataflow, marks):
    """Return C as far as it is formed, as a csr_array: unmerged products one by one, unless they are too many."""
    unmerged = STEPPED[dataflow].merges_last and marks.kept.total
    if not unmerged or marks.formed > REMERGED:
        return operand_matrix(scene.c, formed_entries(scene, dataflow, marks))
    run = products_between(scene.orders[STEPPED[dataflow].order], 0, marks.formed)
    by_row = np.lexsort((run.j, run.i))
    pointers = np.concatenate(([0], np.cumsum(np.bincount(run.i, minlength=scene.c.shape[0]))))
    return sp.csr_array((run.product[by_row], run.j[by_row], pointers), shape=scene.c.shape)


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
        text += f", {int(used.sum()):,} of them reached"
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


def _values_so_far(scene, dataflow, marks):
    """Return what is known of each entry of C: its sum, the products that wait to be merged, or "" for nothing yet."""
    flow, c = STEPPED[dataflow], scene.c
    run = products_between(scene.orders[flow.order], 0, marks.formed)
    rows = np.repeat(np.arange(c.shape[0]), np.diff(c.indptr))
    place = np.searchsorted(rows * c.shape[1] + c.indices, run.i * c.shape[1] + run.j)
    if flow.merges_last and marks.kept.total:
        return [_unmerged(run.product[place == entry]) for entry in range(c.nnz)]
    sums, met = np.bincount(place, run.product, c.nnz), np.bincount(place, minlength=c.nnz)
    return [f"{value:.4g}" if count else "" for value, count in zip(sums, met, strict=True)]


def _unmerged(products):
    text = "+".join(f"{value:.4g}" for value in products)
    return text if len(text) <= SPELLED or len(products) < 2 else f"{len(products)} values"
