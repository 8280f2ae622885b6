"""N:M SpMM against dense torch, MKL, torch CSR and SciPy: weights of 2:4 and 1:4 times dense activations.

The shapes are linear layers of BERT-base and BERT-large with 128 to 512 tokens; of every four weights the largest stay.
Then, as when a language model writes word by word, 2:4 weights meet 1, 4 and 8 columns, in layers of width 384 and
1024, which lie in a cache, and in one of 4096, which does not.
"""

from functools import partial

import numpy as np
import scipy.sparse as sp

from workbench.bench import skinny_spmm
from workbench.bench.timing import Bench, CaseSpec, Goal

PATTERNS = ((2, 4), (1, 4))
TOKENS = (128, 256, 512)
QUICK = ((768, 768),)
SUITE = ((768, 768), (3072, 768), (768, 3072), (1024, 4096), (4096, 1024))
COLUMNS = (1, 4, 8)
FEW = ((384, 384), (1536, 384), (384, 1536), (1024, 1024), (4096, 4096))


def weights(rows, k, n, m, seed=0) -> np.ndarray:
    """Draw rows x k weights and keep the n largest of every m neighbours in a row."""
    w = np.random.default_rng(seed).standard_normal((rows, k // m, m)).astype(np.float32)
    rank = np.argsort(np.argsort(-np.abs(w), axis=-1), axis=-1)
    return np.where(rank < n, w, 0).reshape(rows, k)


def _build(shape, tokens, pattern, threads, loaded):
    from kernels.formats.nm_packed import NMPacked
    from kernels.matmul.nm_spmm import nm_spmm

    w = weights(*shape, *pattern)
    b = np.random.default_rng(1).standard_normal((shape[1], tokens)).astype(np.float32)
    packed = NMPacked.from_dense(w, *pattern)
    return skinny_spmm.case_of(partial(nm_spmm, packed, b), packed.nbytes, sp.csr_array(w), b, threads, loaded)


def _specs(quick, threads, loaded):
    def spec(shape, columns, pattern, group):
        (rows, k), (n, m) = shape, pattern
        build = partial(_build, shape, columns, pattern, threads, tuple(loaded))
        return CaseSpec(f"{rows}x{k}x{columns}/{n}:{m}", group, build)

    many = [
        spec(shape, tokens, (n, m), f"{n}:{m}")
        for n, m in PATTERNS
        for shape in (QUICK if quick else SUITE)
        for tokens in TOKENS
    ]
    few = [spec(shape, columns, (2, 4), _few(columns)) for columns in COLUMNS for shape in (FEW[:1] if quick else FEW)]
    return many + few


def _few(columns):
    return f"2:4, {columns} {'column' if columns == 1 else 'columns'}"


BENCH = Bench(
    key="nm_spmm",
    title="N:M weights times dense activations",
    peers=skinny_spmm.PEERS,
    specs=_specs,
    set_threads=skinny_spmm.BENCH.set_threads,
    own_process=True,
    goals=(
        Goal("2:4", "torch dense", 1.6),
        *(Goal(f"{n}:{m}", peer, 2.0) for n, m in PATTERNS for peer in ("MKL", "torch CSR", "SciPy")),
        Goal(_few(1), "torch dense", 1.0),
        *(Goal(_few(columns), peer, 2.0) for columns in COLUMNS for peer in ("MKL", "SciPy")),
    ),
)
