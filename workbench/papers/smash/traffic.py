"""The off-chip traffic of the dataflows, counted without a cache."""

from kernels.matmul.traffic import dataflow_traffic
from workbench.paper import row
from workbench.papers.smash.inputs import DATAFLOWS, counts, main_input


def traffic(size, seed, report, matrix=None):
    """Return what each dataflow moves, by stream, and how many partial results it keeps alive."""
    title, a, b = main_input(size, seed, matrix)
    rows = counts(title, a, b)
    for place, dataflow in enumerate(DATAFLOWS):
        report(place / len(DATAFLOWS), dataflow)
        moved = dataflow_traffic(a, b, dataflow)
        labels = {"matrix": title, "dataflow": dataflow}
        rows.append(row("elements moved", moved.elements, "elements", "counted", **labels))
        rows += [row(f"bytes, {s}", x, "bytes", "counted", **labels) for s, x in moved.bytes_by_stream.items()]
        rows.append(row("products F", moved.flops, "products", "counted", **labels))
        rows.append(row("most partial results alive", moved.peak_live, "elements", "counted", **labels))
    return rows
