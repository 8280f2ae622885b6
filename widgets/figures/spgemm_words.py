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


def step_columns(steps):
    """Return a dataflow's steps as named columns; a run of products is told by its first."""
    return {
        "product": steps.edges[1:],
        "i": steps.i,
        "k": steps.k,
        "j": steps.j,
        "a_ik b_kj": steps.product,
        "merged": steps.merged,
        "alive": steps.live,
    }


def mean_share(utilisation, name):
    """Return a resource's share in use, averaged over time."""
    width = np.diff(utilisation.edges)
    return float(np.average(utilisation.series[name], weights=width)) if width.sum() else 0.0


def short_number(value):
    """Return a number as a table shows it."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10 else f"{value:,.4g}"
