"""N:M SpMM against dense torch, MKL, torch CSR and SciPy: weights of 2:4 and 1:4 times dense activations.

The shapes are linear layers of BERT-base and BERT-large with 128 to 512 tokens; of every four weights the largest stay.
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
    return [
        CaseSpec(
            f"{rows}x{k}x{tokens}/{n}:{m}",
            f"{n}:{m}",
            partial(_build, (rows, k), tokens, (n, m), threads, tuple(loaded)),
        )
        for n, m in PATTERNS
        for rows, k in (QUICK if quick else SUITE)
        for tokens in TOKENS
    ]


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
    ),
)
