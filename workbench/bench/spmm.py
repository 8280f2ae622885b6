"""SpMM against dense torch, MKL, torch CSR and SciPy: unstructured CSR weights times dense activations.

The shapes are the linear layers of BERT-base and of a LLaMA of seven billion parameters (a quarter of it in rows), with
128 to 512 tokens; weights are kept at random places, 70 to 95 per cent of them are gone.
"""

from functools import cache, partial

import numpy as np
import scipy.sparse as sp

from workbench.bench import spgemm
from workbench.bench.timing import Bench, Case, CaseSpec, Contender, Goal, Peer

TOLERANCE = {"f32": 1e-5, "f64": 1e-12}
SPARSITIES = (70, 80, 90, 95)
QUICK = ((768, 768, 256),)
SUITE = ((768, 768, 128), (3072, 768, 256), (768, 3072, 256), (768, 3072, 512), (1024, 4096, 128), (2752, 4096, 512))
DTYPES = {"f32": np.float32, "f64": np.float64}


def weights(m, k, sparsity, dtype, seed=0) -> sp.csr_array:
    """Draw m x k weights; each is kept with probability 1 - sparsity / 100."""
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((m, k)) < 1 - sparsity / 100, rng.standard_normal((m, k)), 0)
    return sp.csr_array(dense.astype(DTYPES[dtype]))


@cache
def _load_torch():
    import torch

    return torch


def _ours(a, b):
    from kernels.matmul.spmm import spmm

    return partial(spmm, a, b)


def _dense(a, b):
    torch = _load_torch()
    full, right = torch.from_numpy(a.toarray()), torch.from_numpy(b)
    return lambda: (full @ right).numpy()


def _torch(a, b):
    torch = _load_torch()
    left = torch.sparse_csr_tensor(*map(torch.from_numpy, (a.indptr, a.indices, a.data)), size=a.shape)
    right = torch.from_numpy(b)
    return lambda: (left @ right).numpy()


CONTENDERS = {
    "torch dense": _dense,
    "MKL": lambda a, b: partial(spgemm.load_mkl().dot_product_mkl, a, b),
    "torch CSR": _torch,
    "SciPy": lambda a, b: lambda: a @ b,
}
PEERS = (
    Peer("torch dense", _load_torch, "pip install torch==2.13.0"),
    Peer("MKL", spgemm.load_mkl, "pip install .[bench]"),
    Peer("torch CSR", _load_torch, "pip install torch==2.13.0"),
    Peer("SciPy", lambda: sp, "pip install scipy"),
)


def _set_threads(threads, loaded):
    import kernels

    kernels.set_num_threads(threads)
    if "MKL" in loaded:
        spgemm.load_mkl().mkl_set_num_threads(threads)
    _load_torch().set_num_threads(threads)


def _checker(a, b, dtype):
    want = a.astype(np.float64) @ b.astype(np.float64)
    scale = float(np.abs(want).max(initial=1.0))

    def check(name, result):
        if result.shape != want.shape or result.dtype != DTYPES[dtype]:
            raise ValueError(f"result is {result.shape} {result.dtype}, wanted {want.shape} {DTYPES[dtype].__name__}")
        worst = float(np.abs(result - want).max(initial=0.0)) / scale
        if not worst <= TOLERANCE[dtype]:
            raise ValueError(f"values differ from float64 by {worst:.1e}, tolerance {TOLERANCE[dtype]:.0e}")

    return check


def _build(shape, sparsity, dtype, threads, loaded):
    m, k, n = shape
    a = weights(m, k, sparsity, dtype)
    b = np.random.default_rng(1).standard_normal((k, n)).astype(DTYPES[dtype])
    contenders = [Contender("ours", _ours(a, b), threads, ours=True)]
    contenders += [Contender(name, CONTENDERS[name](a, b), 1 if name == "SciPy" else threads) for name in loaded]
    result_bytes = m * n * a.dtype.itemsize
    return Case(
        work=2.0 * a.nnz * n,
        work_unit="flop",
        contenders=tuple(contenders),
        check=_checker(a, b, dtype),
        flops=2.0 * a.nnz * n,
        bytes=float(a.data.nbytes + a.indices.nbytes + a.indptr.nbytes + b.nbytes + result_bytes),
        dtype=np.dtype(DTYPES[dtype]).name,
        facts={"m": m, "k": k, "n": n, "nnz": a.nnz},
        result_bytes=result_bytes,
    )


def _specs(quick, threads, loaded):
    return [
        CaseSpec(
            f"{'x'.join(map(str, shape))}/{sparsity}/{dtype}",
            f"{dtype}, {sparsity} per cent gone",
            partial(_build, shape, sparsity, dtype, threads, tuple(loaded)),
        )
        for dtype in DTYPES
        for sparsity in SPARSITIES
        for shape in (QUICK if quick or dtype == "f64" else SUITE)
    ]


BENCH = Bench(
    key="spmm",
    title="Sparse weights (CSR) times dense activations",
    peers=PEERS,
    specs=_specs,
    set_threads=_set_threads,
    own_process=True,
    goals=(
        Goal("f32, 70 per cent gone", "torch dense", 2.0),
        Goal("f32, 90 per cent gone", "torch dense", 6.0),
        *(
            Goal(f"f32, {sparsity} per cent gone", peer, 2.0)
            for sparsity in SPARSITIES
            for peer in ("MKL", "torch CSR", "SciPy")
        ),
    ),
)
