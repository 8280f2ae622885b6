"""SpGEMM against SciPy, MKL, SuiteSparse:GraphBLAS and torch: CSR in, CSR out, f64 and f32, sorted and unsorted."""

import os
import sys
import warnings
from functools import cache, partial
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from workbench.bench.timing import Bench, Case, CaseSpec, Contender, Goal, Peer
from workbench.data import matrices, text_matrices

TOLERANCE = {"f64": 1e-12, "f32": 1e-5}
DTYPES = {"f64": np.float64, "f32": np.float32}


def _squared(make):
    def pair():
        a = make()
        return a, a

    return pair


def _gram(make):
    def pair():
        a = make()
        b = sp.csr_array(a.T)
        b.sort_indices()
        return a, b

    return pair


def _rmat(scale, edge_factor):
    return partial(matrices.rmat, scale, edge_factor, values="uniform")


def _mild_rmat(scale, edge_factor):
    """R-MAT with the quadrants of W0: graphs this large with Graph500's would give outputs of 10^9 entries."""
    return partial(matrices.rmat, scale, edge_factor, 0.47, 0.115, 0.115, 0.30, values="uniform", permute=True)


def _rectangular():
    return matrices.erdos_renyi(40_000, 5_000, 6, seed=1), matrices.erdos_renyi(5_000, 80_000, 24, seed=2)


QUICK = {
    "rmat-12x8 A*A": _squared(_rmat(12, 8)),
    "w0 A*B": matrices.w0,
    "poisson2d-300 A*A": _squared(partial(matrices.poisson2d, 300)),
    "erdos-renyi-50k A*A": _squared(partial(matrices.erdos_renyi, 50_000, nnz_per_row=8)),
    "rectangular A*B": _rectangular,
}
SUITE = {
    "rmat-12x8 A*A": QUICK["rmat-12x8 A*A"],
    "rmat-12x16 A*A^T": _gram(_rmat(12, 16)),
    "rmat-14x8 A*A": _squared(_rmat(14, 8)),
    "rmat-14x16 A*A": _squared(_rmat(14, 16)),
    "w0 A*B": QUICK["w0 A*B"],
    "rmat-mild-16x16 A*A": _squared(_mild_rmat(16, 16)),
    "rmat-mild-18x8 A*A": _squared(_mild_rmat(18, 8)),
    "poisson2d-700 A*A": _squared(partial(matrices.poisson2d, 700)),
    "poisson3d-60 A*A": _squared(partial(matrices.poisson3d, 60)),
    "erdos-renyi-200k A*A": _squared(partial(matrices.erdos_renyi, 200_000, nnz_per_row=8)),
    "banded-60k A*A": _squared(partial(matrices.banded, 60_000, 12)),
    "power-law-100k A*A": _squared(partial(matrices.power_law, 100_000, nnz_per_row=8, exponent=2.5)),
    "power-law-60k A*A^T": _gram(partial(matrices.power_law, 60_000, nnz_per_row=8, exponent=2.5)),
    "rectangular A*B": _rectangular,
    "source-documents A*A^T": _gram(partial(text_matrices.term_document, "sources")),
    "word-cooccurrence A*A": _squared(text_matrices.word_cooccurrence),
}


@cache
def _load_scipy():
    return sp


@cache
def load_mkl():
    if "MKL_RT" not in os.environ:  # pip puts the library where the loader does not look
        found = sorted((Path(sys.prefix) / "lib").glob("libmkl_rt.so*"))
        if found:
            os.environ["MKL_RT"] = str(found[0])
    import sparse_dot_mkl

    return sparse_dot_mkl


@cache
def _load_graphblas():
    import graphblas

    graphblas.init("suitesparse", blocking=True)
    return graphblas


@cache
def _load_torch():
    import torch

    return torch


def _set_threads(threads, loaded):
    import kernels

    kernels.set_num_threads(threads)
    if "MKL" in loaded:
        load_mkl().mkl_set_num_threads(threads)
    if "GraphBLAS" in loaded:
        _load_graphblas().ss.config["nthreads"] = threads
    if "torch" in loaded:
        _load_torch().set_num_threads(threads)


def _ours(a, b, is_sorted):
    from kernels.matmul.spgemm import spgemm

    return lambda: spgemm(a, b, sort=is_sorted)


def _scipy(a, b, is_sorted):
    def run():
        c = a @ b
        if is_sorted:
            c.sort_indices()
        return c

    return run


def _mkl(a, b, is_sorted):
    return partial(load_mkl().dot_product_mkl, a, b, reorder_output=is_sorted)


def _graphblas(a, b, is_sorted):
    gb = _load_graphblas()
    left, right = (
        gb.Matrix.from_csr(m.indptr.astype(np.uint64), m.indices.astype(np.uint64), m.data, ncols=m.shape[1])
        for m in (a, b)
    )
    times = gb.semiring.plus_times

    def run():
        return left.mxm(right, times).new().ss.export("csr", sort=is_sorted, give_ownership=True)

    return run


def _torch(a, b, is_sorted):
    torch = _load_torch()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse", category=UserWarning)  # beta, invariants unchecked: known
        left, right = (
            torch.sparse_csr_tensor(*map(torch.from_numpy, (m.indptr, m.indices, m.data)), size=m.shape) for m in (a, b)
        )

    def run():
        c = left @ right
        if not is_sorted:
            return c
        c = sp.csr_array((c.values().numpy(), c.col_indices().numpy(), c.crow_indices().numpy()), shape=tuple(c.shape))
        c.sort_indices()  # torch leaves columns unsorted
        return c

    return run


CONTENDERS = {"SciPy": _scipy, "MKL": _mkl, "GraphBLAS": _graphblas, "torch": _torch}
PEERS = (
    Peer("SciPy", _load_scipy, "pip install scipy"),
    Peer("MKL", load_mkl, "pip install .[bench]"),
    Peer("GraphBLAS", _load_graphblas, "pip install .[bench]"),
    Peer("torch", _load_torch, "pip install torch==2.13.0"),
)


def _as_csr(result, shape):
    """Wrap any contender's result as csr_array without sorting it."""
    if isinstance(result, dict):
        parts = result["values"], result["col_indices"].astype(np.int64), result["indptr"].astype(np.int64)
        if result["is_iso"]:
            parts = np.full(parts[1].size, parts[0][0]), *parts[1:]
        return sp.csr_array(parts, shape=shape)
    if hasattr(result, "crow_indices"):
        parts = result.values().numpy(), result.col_indices().numpy(), result.crow_indices().numpy()
        return sp.csr_array(parts, shape=shape)
    return result


def _checker(a, b, dtype, is_sorted):
    want = sp.csr_array(a.astype(np.float64) @ b.astype(np.float64))
    want.sort_indices()
    scale = float(np.abs(want.data).max(initial=1.0))

    def check(name, result):
        got = _as_csr(result, want.shape)
        if got.shape != want.shape or got.dtype != DTYPES[dtype]:
            raise ValueError(f"result is {got.shape} {got.dtype}, wanted {want.shape} {DTYPES[dtype].__name__}")
        if is_sorted and not _columns_ascend(got):
            raise ValueError("columns are not sorted within rows")
        if not is_sorted:
            got = got.copy()
            got.sort_indices()
        if not (np.array_equal(got.indptr, want.indptr) and np.array_equal(got.indices, want.indices)):
            raise ValueError(f"structure differs from SciPy's: nnz {got.nnz:,}, wanted {want.nnz:,}")
        worst = float(np.abs(got.data - want.data).max(initial=0.0)) / scale
        if not worst <= TOLERANCE[dtype]:
            raise ValueError(f"values differ from SciPy's by {worst:.1e}, tolerance {TOLERANCE[dtype]:.0e}")

    return check, want.nnz


def _columns_ascend(matrix):
    steps = np.diff(matrix.indices.astype(np.int64)) > 0
    first = matrix.indptr[1:-1]
    steps[first[(first > 0) & (first < matrix.nnz)] - 1] = True
    return bool(steps.all())


def _build(make, dtype, is_sorted, threads, loaded):
    a, b = (m.astype(DTYPES[dtype]) for m in make())
    products = int(np.diff(b.indptr).astype(np.int64)[a.indices].sum())
    check, nnz_c = _checker(a, b, dtype, is_sorted)
    contenders = [Contender("ours", _ours(a, b, is_sorted), threads, ours=True)]
    for name in loaded:
        contenders.append(Contender(name, CONTENDERS[name](a, b, is_sorted), 1 if name == "SciPy" else threads))
    index = max(a.indices.itemsize, b.indices.itemsize)
    entry = a.dtype.itemsize + index
    result_bytes = nnz_c * entry + index * (a.shape[0] + 1)
    least_bytes = (a.nnz + b.nnz) * entry + index * (a.shape[0] + b.shape[0] + 2) + result_bytes
    facts = {"m": a.shape[0], "k": a.shape[1], "n": b.shape[1], "nnz_a": a.nnz, "nnz_b": b.nnz, "nnz_c": nnz_c}
    facts |= {"products": products, "compression": products / max(nnz_c, 1)}
    return Case(
        work=2.0 * products,
        work_unit="flop",
        contenders=tuple(contenders),
        check=check,
        flops=2.0 * products,
        bytes=float(least_bytes),
        dtype=np.dtype(DTYPES[dtype]).name,
        facts=facts,
        result_bytes=result_bytes,
    )


def _specs(quick, threads, loaded):
    """List the cases; unsorted output is timed on the quick inputs only, to keep the whole within half an hour."""
    specs = []
    for order, is_sorted in (("sorted", True), ("unsorted", False)):
        for dtype in ("f64",) if quick else ("f64", "f32"):
            for title, make in (SUITE if is_sorted and not quick else QUICK).items():
                build = partial(_build, make, dtype, is_sorted, threads, tuple(loaded))
                specs.append(CaseSpec(f"{title}/{dtype}/{order}", f"{dtype} {order}", build))
    return specs


BENCH = Bench(
    key="spgemm",
    title="Sparse matrix times sparse matrix, CSR",
    peers=PEERS,
    specs=_specs,
    set_threads=_set_threads,
    own_process=True,
    goals=(
        Goal("f64 sorted", "best", 2.0),
        Goal("f64 sorted", "lowest", 1.0),
        Goal("f32 sorted", "best", 2.0),
        Goal("f32 sorted", "lowest", 1.0),
        Goal("f64 unsorted", "MKL", 1.3),
        Goal("f32 unsorted", "MKL", 1.3),
    ),
)
