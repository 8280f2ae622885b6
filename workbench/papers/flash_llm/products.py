"""Times of products of sparse weights with few columns, beside dense products and CSR."""

from functools import partial

import numpy as np
import torch
from scipy import sparse

import kernels
from kernels.formats.tiled_csl import TiledCSL
from kernels.matmul.skinny_spmm import skinny_spmm
from kernels.matmul.spmm import spmm
from workbench.machines.roofline import ceilings
from workbench.machines.stopwatch import measure
from workbench.paper import row
from workbench.papers.flash_llm.packing import random_weights

SHAPES = {
    "tiny": ((256, 256),),
    "small": ((2048, 2048),),
    "full": ((4096, 4096), (11008, 4096), (4096, 11008), (7168, 7168)),
}
COLUMNS = {"tiny": (1, 8), "small": (1, 16), "full": (1, 8, 16, 32, 64)}
SPARSITIES = {"tiny": (0.8,), "small": (0.7, 0.8, 0.9), "full": (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)}
ROUNDS = {"tiny": 1, "small": 5, "full": 7}
DENSE32, DENSE16 = "dense, 32 bits", "dense, bfloat16"
CSR, CSR_TORCH, CSR_SCIPY = "CSR, ours", "CSR, torch", "CSR, SciPy"  # SciPy's has one thread
LSCD, ENTRIES = "tiled-CSL, computed dense", "tiled-CSL, entry by entry"
TOLERANCE = {DENSE16: 3e-2}  # others 1e-4: the weights are the same, in half precision
CPU_TILE_K = 512


def products(size, seed, report):
    """Time each product with all contenders in turn, and say how near each is to what memory and arithmetic allow."""
    threads = 1 if size == "tiny" else kernels.get_num_threads()
    cases = [(*shape, sparsity) for shape in SHAPES[size] for sparsity in SPARSITIES[size]]
    before, rows = torch.get_num_threads(), []
    torch.set_num_threads(threads)
    try:
        for place, (m, k, sparsity) in enumerate(cases):
            report(place / len(cases), f"{m} x {k}, {sparsity:.0%} sparse")
            contenders = _contenders(random_weights(m, k, sparsity, seed), threads)
            for n in COLUMNS[size]:
                labels = {"m": m, "k": k, "n": n, "sparsity": sparsity, "threads": threads, "rounds": ROUNDS[size]}
                rows += _timed(contenders, n, seed, labels)
    finally:
        torch.set_num_threads(before)
    return rows


def _contenders(weights, threads):
    """Return name -> (call of b (k, n) -> product (m, n), bytes of the weights, flops for each column)."""
    wide = weights.astype(np.float32)
    csr = sparse.csr_array(wide)
    paper = TiledCSL.encode(weights, pad=True)
    rows = TiledCSL.encode(weights, tile_k=CPU_TILE_K, reorder=False, pad=True)
    of_torch = torch.sparse_csr_tensor(*map(torch.from_numpy, (csr.indptr, csr.indices, csr.data)), size=csr.shape)
    dense, half = torch.from_numpy(wide), torch.from_numpy(wide).bfloat16()
    full, kept, stored = 2 * weights.size, 2 * csr.nnz, csr.data.nbytes + csr.indices.nbytes + csr.indptr.nbytes
    how = {"num_threads": threads}
    return {
        DENSE32: (lambda b: (torch.from_numpy(b).t() @ dense.t()).t(), 4 * weights.size, full),
        DENSE16: (lambda b: (torch.from_numpy(b).t().bfloat16() @ half.t()).t(), 2 * weights.size, full),
        CSR: (lambda b: spmm(csr, b, **how), stored, kept),
        CSR_TORCH: (lambda b: of_torch @ torch.from_numpy(b), stored, kept),
        CSR_SCIPY: (lambda b: csr @ b, stored, kept),
        LSCD: (lambda b: skinny_spmm(paper, b, method="dense_tile", **how), paper.nbytes, full),
        ENTRIES: (lambda b: skinny_spmm(rows, b, method="entries", **how), rows.nbytes, kept),
    }


def _timed(contenders, n, seed, labels):
    k = labels["k"]
    b = np.random.default_rng(seed).standard_normal((k, n), np.float32)
    wanted = np.asarray(contenders[DENSE32][0](b))
    for name, (call, _, _) in contenders.items():
        found = call(b)
        found = found.float().numpy() if isinstance(found, torch.Tensor) else found
        worst = float(np.abs(found - wanted).max() / np.abs(wanted).max())
        if not worst <= TOLERANCE.get(name, 1e-4):
            raise ValueError(f"products: {name} differs from the dense product by {worst:.1e} of its largest element")
    peak, rows = ceilings(labels["threads"]), []
    times = measure({name: partial(call, b) for name, (call, _, _) in contenders.items()}, rounds=labels["rounds"])
    for name, timing in times.items():
        _, held, flops = contenders[name]
        moved = held + b.nbytes + 4 * labels["m"] * n
        floor = peak.floor_s(flops * n, moved, np.float32)
        ours = labels | {"contender": name, "weight_bytes": held}
        rows.append(row("time", 1e3 * timing.median_s, "ms", "measured", spread_ms=1e3 * timing.spread_s, **ours))
        rows.append(row("share of the roofline", floor / timing.median_s, "x", "measured", **ours))
    return rows
