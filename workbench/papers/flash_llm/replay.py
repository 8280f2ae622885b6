"""The paper's twelve products on a model of its GPU: what the memory traffic allows, and what the loop makes of it."""

from typing import Any

from kernels.formats.tiled_csl import TiledCSL
from workbench.machines.roofline import roofline
from workbench.paper import row
from workbench.papers.flash_llm.packing import random_weights
from workbench.papers.flash_llm.pipeline import A100, OVERLAPS, dense_cycles, sparse_cycles

# (rows, columns) of the weights: query, key and value; output of attention; into and out of the feed-forward part
SHAPES = {
    "OPT-30B": ((21504, 7168), (7168, 7168), (28672, 7168), (7168, 28672)),
    "OPT-66B": ((27648, 9216), (9216, 9216), (36864, 9216), (9216, 36864)),
    "OPT-175B": ((36864, 12288), (12288, 12288), (49152, 12288), (12288, 49152)),
}
COLUMNS, SPARSITIES = (8, 16, 32, 64), (0.7, 0.8, 0.9)
MEASURED = {  # means over the paper's products on an A100, as its repository reports them
    "cuBLAS": {0.7: 1.4, 0.8: 1.7, 0.9: 2.1},
    "Sputnik": {0.7: 3.6, 0.8: 3.0, 0.9: 2.0},
    "SparTA": {0.7: 1.4, 0.8: 1.4, 0.9: 1.6},
}
MACHINE: dict[str, Any] = {"peak_flops": A100.peak_flops, "bandwidth": A100.bandwidth}


def replay(size, seed, report):
    """Model every product of the paper, and compare the means with what the paper measured."""
    models = dict(list(SHAPES.items())[: 1 if size == "tiny" else None])
    shapes = [(model, *shape) for model, found in models.items() for shape in found]
    rows, conflicts = [], {}
    for place, sparsity in enumerate(SPARSITIES):
        report(place / (len(SPARSITIES) + 1), f"conflicts at {sparsity:.0%}")
        conflicts[sparsity] = _conflicts(sparsity, seed)
    report(len(SPARSITIES) / (len(SPARSITIES) + 1), "products")
    for model, m, k in shapes:
        for n in COLUMNS:
            dense = roofline(m, k, n, fmt="dense16", **MACHINE)
            rows += _product(dense, 1.0, "dense16", model=model, m=m, k=k, n=n, sparsity=0.0)
            for sparsity in SPARSITIES:
                found = roofline(m, k, n, sparsity, fmt="tiled-csl", **MACHINE)
                labels = {"model": model, "m": m, "k": k, "n": n, "sparsity": sparsity}
                rows += _product(found, dense.time_s / found.time_s, "tiled-csl", **labels)
    for n in COLUMNS:
        for sparsity in SPARSITIES:
            rows += _loops(n, sparsity, conflicts[sparsity])
    return rows


def _conflicts(sparsity, seed):
    """Words that meet in the fullest bank, for random tiles: row by row, and reordered."""
    weights = random_weights(512, 512, sparsity, seed)
    return {reorder: TiledCSL.encode(weights, reorder=reorder).bank_conflict_degree() for reorder in (False, True)}


def _product(found, gain, fmt, **labels):
    labels |= {"format": fmt, "bound": found.bound}
    return [
        row("time", 1e3 * found.time_s, "ms", "modelled", **labels),
        row("intensity", found.intensity, "operations per byte", "modelled", **labels),
        row("speed over dense, bound by memory and arithmetic", gain, "x", "modelled", **labels),
    ]


def _loops(n, sparsity, conflicts):
    """Speed of the kernel's loop over a dense one: as it is, without overlap, and with words row by row."""
    rows = []
    for words, reorder in (("reordered", True), ("row by row", False)):
        for overlap in OVERLAPS if reorder else OVERLAPS[2:]:
            cycles = sparse_cycles(n, sparsity, conflicts=conflicts[reorder], overlap=overlap)
            labels = {"n": n, "sparsity": sparsity, "words": words, "overlap": overlap}
            rows.append(row("cycles of a tile", cycles, "cycles", "modelled", **labels))
            rows.append(row("speed over dense, loop", dense_cycles(n) / cycles, "x", "modelled", **labels))
    return rows
