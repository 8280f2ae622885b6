"""Formats of a weight in words and numbers: headline, alternative texts, tables."""

import html
import math

import numpy as np

from widgets.figures.fact_table import short_number
from widgets.figures.weight_format import KINDS, product, share_of_dense

__all__ = [
    "about_html", "bytes_columns", "bytes_words", "headline", "roofline_columns", "roofline_words", "step_columns",
    "step_words", "times_words",
]  # fmt: skip


def headline(scene) -> str:
    """Return the sentences above the view, as HTML."""
    m, k = scene.weight.shape
    kept, places = scene.nnz, max(m * k, 1)
    sparse = list(scene.formats[1:]) or list(scene.formats)
    best = min(sparse, key=lambda each: each.total_bits)
    text = (
        f"<b>{html.escape(scene.title)}</b>: {m:,} x {k:,}, {kept:,} weights kept (sparsity {1 - kept / places:.3g}). "
        f"Dense it takes {scene.formats[0].nbytes:,} bytes at {scene.value_bits} bits a value; the smallest sparse "
        f"format here, <b>{html.escape(best.label)}</b>, takes {best.nbytes:,}, "
        f"<b>{share_of_dense(scene, best.total_bits):.2f} times the dense bytes</b> (counted)."
    )
    notes = "".join(f"<br>{html.escape(said)}" for said in scene.left_out)
    small = f"<div class='wb wb-note' style='padding:0 4px'>Left out: {notes.removeprefix('<br>')}</div>"
    return f"<div class='wb wb-headline' style='font-size:17px;padding:6px 4px'>{text}</div>" + small * bool(notes)


def about_html(stored) -> str:
    """Return what a format is and what multiplies it, as HTML."""
    return f"<p class='wb' style='margin:2px 4px'>{html.escape(stored.about)} {html.escape(stored.kernel.about)}</p>"


def bytes_words(scene) -> str:
    """Return the bytes of every format."""
    told = "; ".join(f"{each.label} {each.nbytes:,} B" for each in scene.formats)
    return f"{scene.title}: {told}. Values at unknown places need at least {scene.bound_bits / 8:,.0f} B."


def step_words(scene, stored, step) -> str:
    """Return one step in words: what it reads and what it computes; ``step`` counts from 0, -1 is before the first."""
    if not stored.steps:
        return f"{stored.label}: the weight holds no entry, so no step reads anything."
    if step < 0:
        return f"{stored.label}: {stored.steps:,} steps of one {stored.unit} each read the whole weight."
    slots = stored.slots(step)
    there = slots[stored.row[slots] >= 0]
    zeros = int((stored.value[slots] == 0).sum())
    read = int(stored.index_edges[step + 1] - stored.index_edges[step])
    values = f"{len(slots):,} {'values' if len(slots) != 1 else 'value'}"
    said = f"One {stored.unit} of {_named('row', stored.row[there])} and {_named('column', stored.column[there])}"
    if not len(there):
        said = f"One {stored.unit} without a weight"
    said += f": {values} ({_size(len(slots) * scene.value_bits)}"
    said += f", {zeros:,} of them stored zeros)" if zeros else ")"
    if read:
        said += f" and {read:,} {'indices' if read != 1 else 'index'} ({_size(read * stored.index_bits)})"
    return f"{said}. {_work(stored, step, len(slots), len(set(stored.column[there].tolist())))}"


def _work(stored, step, slots, columns):
    kernel = stored.kernel
    if stored.banks is not None:
        words = [int(stored.banks.fullest(order)[step]) for order in ("plain", "dealt")]
        return (
            f"32 lanes store a word each into the dense tile; in the fullest bank meet {words[0]} words if they lie "
            f"row by row and {words[1]} if they are dealt over the banks, and so many turns the store takes."
        )
    tokens = kernel.vectors * kernel.lanes
    count = slots * kernel.vectors // kernel.dot
    rows = f"{columns:,} {'rows' if columns != 1 else 'row'} of activations"
    return f"It takes {count:,} x {kernel.instruction} with {rows}, for {tokens} columns of them."


def _named(what, places):
    found = sorted(set(places.tolist()))
    if len(found) == 1:
        return f"{what} {found[0]}"
    if found and found[-1] - found[0] == len(found) - 1:
        return f"{what}s {found[0]} to {found[-1]}"
    return f"{what}s {', '.join(map(str, found[:8]))}" + (f" and {len(found) - 8} more" if len(found) > 8 else "")


def _size(bits):
    return f"{bits // 8:,} B" if bits % 8 == 0 else f"{bits:,} bits"


def roofline_words(scene, products, machine, tokens) -> str:
    """Return every format's place on the roofline."""
    told = "; ".join(
        f"{stored.label} {each.intensity:.3g} flops a byte, {short_number(each.gflops)} Gflop/s"
        for stored, each in zip(scene.formats, products, strict=True)
    )
    return f"{machine.label}, {tokens:,} columns of activations, with {machine.origin} (modelled): {told}."


def times_words(scene, products) -> str:
    """Return every format's least time."""
    told = "; ".join(
        f"{stored.label} {each.least_us:.3g} us" for stored, each in zip(scene.formats, products, strict=True)
    )
    return f"Least time of the product (modelled): {told}."


def bytes_columns(scene) -> dict[str, np.ndarray]:
    """Return the bytes of every format by kind, as columns."""
    columns = {"format": np.array([each.label for each in scene.formats])}
    columns |= {f"{kind} (B)": np.array([each.bits[kind] / 8 for each in scene.formats]) for kind in KINDS}
    columns["total (B)"] = np.array([each.nbytes for each in scene.formats])
    columns["share of dense"] = np.array([share_of_dense(scene, each.total_bits) for each in scene.formats])
    columns["bits a kept weight"] = np.array(
        [each.total_bits / scene.nnz if scene.nnz else math.nan for each in scene.formats]
    )
    return columns


def step_columns(stored, step) -> dict[str, np.ndarray]:
    """Return what a step reads: place in its array, row and column of the matrix, content; -1 is no place."""
    slots = stored.slots(step) if stored.steps and step >= 0 else np.zeros(0, np.int64)
    first, end = stored.index_edges[max(step, 0) : max(step, 0) + 2] if len(slots) or step >= 0 else (0, 0)
    places = np.arange(first, end) if stored.steps and step >= 0 else np.zeros(0, np.int64)
    none = np.full(len(places), -1)
    return {
        "array": np.array(["values"] * len(slots) + ["indices"] * len(places), dtype="U7"),
        "place": np.concatenate([slots, places]),
        "row": np.concatenate([stored.row[slots], none]),
        "column": np.concatenate([stored.column[slots], none]),
        "content": np.concatenate([stored.value[slots].astype(float), stored.index[places].astype(float)]),
    }


def roofline_columns(scene, machine, tokens) -> dict[str, np.ndarray]:
    """Return every format's product on a machine, as columns."""
    products = [product(scene, each, tokens, machine) for each in scene.formats]
    dense = products[0].least_us
    return {
        "format": np.array([each.label for each in scene.formats]),
        "weight (B)": np.array([each.nbytes for each in scene.formats]),
        "moved (B)": np.array([each.bytes for each in products]),
        "flops": np.array([each.flops for each in products]),
        "flops a byte": np.array([each.intensity for each in products]),
        "Gflop/s": np.array([each.gflops for each in products]),
        "least time (us)": np.array([each.least_us for each in products]),
        "times as fast as dense": np.array([dense / each.least_us if each.least_us else math.nan for each in products]),
    }
