"""Block-sparse (BSR) weights times dense activations against SciPy's BSR and dense torch, float32.

Blocks of five shapes are kept at random; the matrices are linear layers of BERT-base with 256 tokens.
"""

from functools import cache, partial

import numpy as np
import scipy.sparse as sp

from workbench.bench.timing import Bench, Case, CaseSpec, Contender, Goal, Peer

TOLERANCE = 1e-5
SPARSITIES = (70, 90)
BLOCKS = ((4, 1), (16, 1), (4, 4), (16, 16), (32, 32))
QUICK = ((768, 768, 256),)
SUITE = ((768, 768, 256), (3072, 768, 256), (768, 3072, 256))


def weights(m, k, block, sparsity, seed=0) -> sp.bsr_array:
    """Draw m x k weights in blocks; each block is kept with probability 1 - sparsity / 100."""
    rng = np.random.default_rng(seed)
    kept = np.kron(rng.random((m // block[0], k // block[1])) < 1 - sparsity / 100, np.ones(block, bool))
    return sp.bsr_array(np.where(kept, rng.standard_normal((m, k)), 0).astype(np.float32), blocksize=block)


@cache
def _load_torch():
    import torch

    return torch


def _ours(a, b):
    from kernels.matmul.bsr_spmm import bsr_spmm

    return partial(bsr_spmm, a, b)


def _dense(a, b):
    torch = _load_torch()
    full, right = torch.from_numpy(a.toarray()), torch.from_numpy(b)
    return lambda: (full @ right).numpy()


CONTENDERS = {"torch dense": _dense, "SciPy BSR": lambda a, b: lambda: a @ b}
PEERS = (
    Peer("torch dense", _load_torch, "pip install torch==2.13.0"),
    Peer("SciPy BSR", lambda: sp, "pip install scipy"),
)


def _set_threads(threads, loaded):
    import kernels

    kernels.set_num_threads(threads)
    _load_torch().set_num_threads(threads)


def _checker(a, b):
    want = a.astype(np.float64) @ b.astype(np.float64)
    size = float(np.abs(want).max(initial=1.0))

    def check(name, result):
        if result.shape != want.shape or result.dtype != np.float32:
            raise ValueError(f"result is {result.shape} {result.dtype}, wanted {want.shape} float32")
        worst = float(np.abs(result - want).max(initial=0.0)) / size
        if not worst <= TOLERANCE:
            raise ValueError(f"values differ from float64 by {worst:.1e}, tolerance {TOLERANCE:.0e}")

    return check


def _build(shape, block, sparsity, threads, loaded):
    m, k, n = shape
    a = weights(m, k, block, sparsity)
    b = np.random.default_rng(1).standard_normal((k, n)).astype(np.float32)
    contenders = [Contender("ours", _ours(a, b), threads, ours=True)]
    contenders += [Contender(name, CONTENDERS[name](a, b), 1 if name == "SciPy BSR" else threads) for name in loaded]
    flops, result_bytes = 2.0 * a.data.size * n, 4 * m * n
    return Case(
        work=flops,
        work_unit="flop",
        contenders=tuple(contenders),
        check=_checker(a, b),
        flops=flops,
        bytes=float(a.data.nbytes + a.indices.nbytes + a.indptr.nbytes + b.nbytes + result_bytes),
        dtype="float32",
        facts={"m": m, "k": k, "n": n, "blocks": len(a.indices)},
        result_bytes=result_bytes,
    )


def _name(sides):
    return "x".join(map(str, sides))


def _specs(quick, threads, loaded):
    return [
        CaseSpec(
            f"{_name(shape)}/{_name(block)}/{sparsity}",
            f"{sparsity} per cent gone",
            partial(_build, shape, block, sparsity, threads, tuple(loaded)),
        )
        for sparsity in SPARSITIES
        for block in BLOCKS
        for shape in (QUICK if quick else SUITE)
    ]


BENCH = Bench(
    key="bsr_spmm",
    title="Block-sparse weights (BSR) times dense activations",
    peers=PEERS,
    specs=_specs,
    set_threads=_set_threads,
    own_process=True,
    goals=(
        Goal("70 per cent gone", "torch dense", 2.0),
        Goal("90 per cent gone", "torch dense", 6.0),
        *(Goal(f"{sparsity} per cent gone", "SciPy BSR", 10.0) for sparsity in SPARSITIES),
    ),
)
