"""The place on the chip at one step of a dataflow, as HTML: what it holds, how full it is, what has just changed."""

import html

import numpy as np

from kernels.matmul.on_chip import kept_on_chip, probe_slots
from widgets.figures.spgemm_dataflows import STEPPED
from widgets.figures.spgemm_steps import kept_words

_STYLE = (  # its height is kept on wide screens, so that nothing below it jumps
    "<style>.wb-kept{padding:4px}@media (min-width:900px){.wb-kept{min-height:31em}}"
    ".wb-kept h4{margin:4px 0;font-size:16px;font-weight:600}.wb-kept p{margin:4px 0}"
    ".wb-kept ol{list-style:none;display:flex;flex-wrap:wrap;gap:6px;margin:6px 0;padding:0}"
    ".wb-kept li{border:1px solid var(--wb-control);border-radius:4px;padding:2px 8px;"
    "font-variant-numeric:tabular-nums}.wb-kept li.wb-now{border:2px solid var(--wb-highlight);font-weight:600}"
    ".wb-kept .wb-level{height:12px;max-width:480px;border:1px solid var(--wb-control);border-radius:3px}"
    ".wb-kept .wb-level i{display:block;height:100%;background:var(--wb-accent)}</style>"
)


def kept_html(scene, dataflow, marks):
    """Return the place on the chip after a step.

    Parameters
    ----------
    scene : TrafficScene.
    dataflow : one of ``spgemm_dataflows.STEPPED``.
    marks : from ``spgemm_steps.step_marks``.
    """
    flow, kept = STEPPED[dataflow], marks.kept
    most = int(scene.steps[dataflow].live_max.max(initial=0))
    i, j = (int(kept.row[-1]), int(kept.column[-1])) if len(kept.row) else ("i", "j")
    held = f"{kept_words(kept.total)}, of at most {most:,} at once in this dataflow."
    if not kept.total:
        held = f"It is empty. At most {kept_words(most)} are in it at once." if most else "It stays empty."
    return (
        f"{_STYLE}<section class='wb wb-kept' aria-label='On the chip'><h4>On the chip: "
        f"{html.escape(flow.place.format(i=i, j=j))}</h4>"
        f"<div class='wb-level' aria-hidden='true'><i style='width:{100 * kept.total / max(most, 1):.4g}%'></i></div>"
        f"<p>{html.escape(held)}</p>{_elements(scene, dataflow, marks)}"
        f"<p class='wb-note'>{html.escape(flow.about)} Source of the order: {html.escape(flow.source)}.</p></section>"
    )


def element_texts(scene, dataflow, marks):
    """Return each named element on the chip in words, such as ``C[0, 1] = 24``."""
    flow, kept = STEPPED[dataflow], marks.kept
    slots = _slots(scene, dataflow, marks)
    texts = []
    for e, (i, k, j) in enumerate(zip(kept.row.tolist(), kept.inner.tolist(), kept.column.tolist(), strict=True)):
        value = f"{kept.value[e]:.4g}"
        if k < 0:
            texts.append(f"{slots[e]}C[{i}, {j}] = {value}")
        elif flow.waits_in_b:
            texts.append(f"B[{k}, {j}] = {value} waits")
        else:
            texts.append(f"A[{i}, {k}] B[{k}, {j}] = {value}")
    return texts


def _elements(scene, dataflow, marks):
    kept = marks.kept
    if not len(kept.row):
        return ""
    touched = {tuple(cell) for cell in marks.cells["C"].tolist()}
    newest = len(kept.row) - 1
    items = []
    for e, text in enumerate(element_texts(scene, dataflow, marks)):
        changed = (int(kept.row[e]), int(kept.column[e])) in touched
        changed &= e == newest if STEPPED[dataflow].merges_last else kept.inner[e] < 0
        items.append(f"<li{' class=wb-now' if changed else ''}>{html.escape(text)}</li>")
    more = kept.total - len(kept.row)
    if more:
        items.insert(0, f"<li>{more:,} older ones</li>")
    return f"<ol>{''.join(items)}</ol>"


def _slots(scene, dataflow, marks):
    """Return "slot 5: " for each named element of a hash table, "" where there is none or a row needs several."""
    flow, named = STEPPED[dataflow], len(marks.kept.row)
    if flow.windows != "table" or not 0 < marks.kept.total <= scene.slots:
        return [""] * named
    windows = scene.windows[dataflow]
    whole = kept_on_chip(scene.orders[flow.order], marks.formed, windows=windows, most=scene.slots)
    first = windows[np.searchsorted(windows, whole.row[-1], "right") - 1]
    tags = (whole.row - first) * scene.c.shape[1] + whole.column
    return [f"slot {slot:,}: " for slot in probe_slots(tags, scene.slots)[-named:]]
