"""Numbers of a traffic scene in words and columns: what captions, tables and exports say."""

import html

import numpy as np

from widgets.figures.spgemm_scene import live_curve


def headline(scene):
    """Return the sentence above the view, as HTML."""
    merged = f"{scene.products / scene.c.nnz:.3g}" if scene.c.nnz else "0"
    text = (
        f"<b>{html.escape(scene.title)}</b>: {scene.a.nnz:,} entries times {scene.b.nnz:,}. Every dataflow forms "
        f"the same <b>{scene.products:,} partial products</b>; they merge into {scene.c.nnz:,} entries of C, "
        f"{merged} each (counted)."
    )
    return f"<div class='wb wb-headline' style='font-size:17px;padding:6px 4px'>{text}</div>"


def total_bytes(scene):
    """Return (dataflow, off-chip bytes of all streams) pairs."""
    return list(zip(scene.traffic.dataflows, scene.traffic.bytes.sum(axis=1), strict=True))


def live_curves(scene):
    """Return the live curves that are worth comparing; an inner product never has more than one alive per dot."""
    windows = "1 window" if len(scene.windows) == 1 else f"{len(scene.windows):,} windows"
    labels = {"outer": "outer", "row": f"row-wise, {windows}", "column": "column-wise"}
    return [live_curve(scene.steps[flow], label) for flow, label in labels.items()]


def section_columns(scene, section, dataflow):
    """Return the data behind a section of the view as named columns; a column holds numbers or words, never both.

    Parameters
    ----------
    scene : TrafficScene. section : "step", "bytes", "machine" or "constants". dataflow : whose steps.
    """
    columns = {"step": _step_columns, "bytes": _byte_columns, "machine": _run_columns, "constants": _constant_columns}
    return columns[section](scene, dataflow)


def _step_columns(scene, dataflow):
    """Return a dataflow's steps; a run of products is told by its first."""
    steps = scene.steps[dataflow]
    return {
        "product": steps.edges[1:],
        "i": steps.i,
        "k": steps.k,
        "j": steps.j,
        "a_ik b_kj": steps.product,
        "merged": steps.merged,
        "alive": steps.live,
    }


def _byte_columns(scene, dataflow):
    traffic = scene.traffic
    streams = {f"{stream} (bytes)": traffic.bytes[:, s] for s, stream in enumerate(traffic.streams)}
    return {"dataflow": np.array(traffic.dataflows)} | streams


def _run_columns(scene, dataflow):
    runs = scene.machine.runs if scene.machine else ()
    names = list(runs[0].totals) if runs else []
    totals = {name: np.array([float(run.totals[name]) for run in runs]) for name in names}
    return {"kernel": np.array([run.label for run in runs])} | totals


def _constant_columns(scene, dataflow):
    constants = scene.machine.constants if scene.machine else ()
    values = np.array([_number(constant.value) for constant in constants])
    words = ["" if value == value else c.value for value, c in zip(values, constants, strict=True)]
    told = {name: np.array([getattr(c, name) for c in constants]) for name in ("unit", "tag", "source")}
    names = np.array([constant.name for constant in constants])
    return {"name": names, "value": values, "value in words": np.array(words)} | told


def _number(text):
    """Return the number that a text is, NaN if it is none."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return float("nan")


def matrix_arrays(operands):
    """Return sparse matrices as named arrays of one NPZ file, with a line ``about`` that says how to rebuild them.

    Parameters
    ----------
    operands : of the names A, B and C.
    """
    parts = ("values", "indices", "indptr", "shape")
    arrays = {
        f"{x.name}_{part.replace('values', 'data')}": np.asarray(getattr(x, part)) for x in operands for part in parts
    }
    about = (
        "A = scipy.sparse.csr_array((f['A_data'], f['A_indices'], f['A_indptr']), shape=f['A_shape']); B and C alike"
    )
    return arrays | {"about": np.array(about)}


def mean_share(utilisation, name):
    """Return a resource's share in use, averaged over time."""
    width = np.diff(utilisation.edges)
    return float(np.average(utilisation.series[name], weights=width)) if width.sum() else 0.0


def short_number(value):
    """Return a number as a table shows it."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10 else f"{value:,.4g}"
