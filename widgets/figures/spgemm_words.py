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


def step_columns(steps):
    """Return a dataflow's steps as named columns; a run of products is told by its first."""
    return {
        "product": steps.edges[1:],
        "i": steps.i,
        "k": steps.k,
        "j": steps.j,
        "a_ik b_kj": steps.product,
        "merged": steps.merged,
        "kept on the chip": steps.live,
    }


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


def short_number(value):
    """Return a number as a table shows it."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10 else f"{value:,.4g}"
