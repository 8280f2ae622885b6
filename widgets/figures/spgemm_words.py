"""Numbers of a traffic scene in words and columns: what captions, tables and exports say."""

import html

import numpy as np

from widgets.figures.spgemm_dataflows import STEPPED, counted
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
    """Return what every dataflow keeps on the chip, over the products formed: one curve each, in the menu's order."""
    return [live_curve(scene.steps[key], curve_label(scene, key)) for key in STEPPED]


def curve_label(scene, key):
    """Return what a legend calls a dataflow, with the number of its windows where rows share a table."""
    windows = scene.windows[key] if STEPPED[key].windows == "table" else None
    return STEPPED[key].label + ("" if windows is None else f" ({counted(len(windows), 'window')})")


def live_words(scene, key):
    """Return in words what the curves show, the present dataflow first."""
    peaks = {flow: int(scene.steps[flow].live_max.max(initial=0)) for flow in STEPPED}
    others = ", ".join(f"{STEPPED[flow].label} {peak:,}" for flow, peak in peaks.items() if flow != key)
    return f"{STEPPED[key].label} keeps at most {counted(peaks[key], 'element')} on the chip; the others: {others}."


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
        "kept on the chip": steps.live,
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


def machine_words(machine):
    """Return in words what each plot of the machine's part shows, by the plot's name."""
    run, roof = machine.runs[machine.shown], machine.roofline
    shares = ", ".join(f"{name} {mean_share(run.utilisation, name):.0%}" for name in run.utilisation.series)
    probes = zip(machine.probes.labels, machine.probes.mean, strict=True)
    points = zip(roof.labels, roof.ops_per_cycle, roof.ops_per_byte, strict=True)
    return {
        "gantt": f"{run.label}: {run.gantt.events_total:,} pieces of work on {run.gantt.threads} threads over "
        f"{run.gantt.cycles:,.0f} cycles, modelled.",
        "utilisation": f"{run.label} on average: {shares}, modelled.",
        "machine live": f"{run.label}: at most {int(run.live.live.max(initial=0)):,} live products, modelled.",
        "probes": "Extra probes a product: " + ", ".join(f"{label} {mean:.3g}" for label, mean in probes) + ".",
        "roofline": "; ".join(f"{n}: {y:.3g} {roof.ops} a cycle at {x:.3g} a byte" for n, y, x in points)
        + "; modelled.",
    }
