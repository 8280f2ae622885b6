"""Products of half-empty weights with few rows against dense torch, MKL, torch CSR and SciPy.

The shapes are the coefficients of a dictionary in layers of a sentence encoder and of a larger model: outputs by atoms,
of which an output uses half, or a quarter. Ours reads 4 bytes a weight and a bit a place, CSR 8 bytes a weight, the
dense matrix 4 for every place.
"""

from functools import partial

import numpy as np

from workbench.bench import skinny_spmm, spmm
from workbench.bench.timing import Bench, CaseSpec, Goal

SPARSITIES = (50, 75)
ROWS = (1, 4, 8)
QUICK = ((1536, 256),)
SUITE = ((384, 256), (1536, 256), (4096, 1024), (11008, 2184))


def _build(shape, n, sparsity, threads, loaded):
    from kernels.formats.bitmap_rows import BitmapRows
    from kernels.matmul.bitmap_spmm import bitmap_spmm

    w = spmm.weights(*shape, sparsity, "f32")
    b = np.random.default_rng(1).standard_normal((shape[1], n)).astype(np.float32)
    packed, rows = BitmapRows.from_csr(w), np.ascontiguousarray(b.T)
    return skinny_spmm.case_of(lambda: bitmap_spmm(packed, rows).T, packed.nbytes, w, b, threads, loaded)


def _specs(quick, threads, loaded):
    return [
        CaseSpec(
            f"{m}x{k}x{n}/{sparsity}",
            f"{sparsity} per cent gone",
            partial(_build, (m, k), n, sparsity, threads, tuple(loaded)),
        )
        for sparsity in SPARSITIES
        for m, k in (QUICK if quick else SUITE)
        for n in ROWS
    ]


BENCH = Bench(
    key="bitmap_spmm",
    title="Half-empty weights (bitmap) times few rows",
    peers=spmm.PEERS,
    specs=_specs,
    set_threads=spmm.BENCH.set_threads,
    own_process=True,
    goals=tuple(Goal(f"{sparsity} per cent gone", peer, least) for sparsity in SPARSITIES
                for peer, least in (("torch dense", 1.0), ("MKL", 2.0), ("torch CSR", 2.0), ("SciPy", 2.0))),
)  # fmt: skip
