"""SpMM against dense torch, MKL, torch CSR and SciPy: unstructured sparse weights times dense activations.

The shapes are the linear layers of BERT-base and of a LLaMA of seven billion parameters (a quarter of it in rows), with
128 to 512 tokens; weights are kept at random places, 70 to 95 per cent of them are gone.

Weights are used many times, so what can be prepared is prepared outside the clock: ours are packed (`PackedCSR`), and
MKL makes, hints and optimises its handle once. Cases named "CSR as it comes" are the same products of a matrix that is
seen for the first time: ours packs it within the call, and MKL makes its handle there. torch and SciPy prepare nothing.
"""

import ctypes
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


def _ours(a, b, packed):
    from kernels.formats.packed_csr import PackedCSR
    from kernels.matmul.spmm import spmm

    return partial(spmm, PackedCSR.from_csr(a) if packed else a, b)


def _dense(a, b):
    torch = _load_torch()
    full, right = torch.from_numpy(a.toarray()), torch.from_numpy(b)
    return lambda: (full @ right).numpy()


def _torch(a, b):
    torch = _load_torch()
    left = torch.sparse_csr_tensor(*map(torch.from_numpy, (a.indptr, a.indices, a.data)), size=a.shape)
    right = torch.from_numpy(b)
    return lambda: (left @ right).numpy()


def mkl_prepared(a, b):
    """Return the product by MKL with a handle that was made, hinted and optimised for it beforehand."""
    spgemm.load_mkl()
    from sparse_dot_mkl import _mkl_interface as mkl

    m, n = a.shape[0], b.shape[1]
    handle, is_double, _ = mkl._create_mkl_sparse(a)
    library = mkl._cfunctions._libmkl
    row_major, as_it_is, general = mkl.LAYOUT_CODE_C, 10, mkl.matrix_descr()
    integer = mkl.MKL.MKL_INT
    library.mkl_sparse_set_mm_hint.argtypes = (
        ctypes.c_void_p, ctypes.c_int, mkl.matrix_descr, ctypes.c_int, integer, integer
    )  # fmt: skip
    library.mkl_sparse_optimize.argtypes = (ctypes.c_void_p,)
    for status in (
        library.mkl_sparse_set_mm_hint(handle, as_it_is, general, row_major, n, 10_000),
        library.mkl_sparse_optimize(handle),
    ):
        if status:
            raise RuntimeError(f"MKL refuses to prepare the product: status {status}")
    call = mkl.MKL._mkl_sparse_d_mm if is_double else mkl.MKL._mkl_sparse_s_mm
    number = ctypes.c_double if is_double else ctypes.c_float

    def product():
        out = np.empty((m, n), a.dtype)
        to = out.ctypes.data_as(ctypes.POINTER(number))
        status = call(as_it_is, 1.0, handle, general, row_major, b, n, n, 0.0, to, n)
        if status:
            raise RuntimeError(f"MKL: status {status}")
        return out

    return product


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


def _build(shape, sparsity, dtype, packed, threads, loaded):
    m, k, n = shape
    a = weights(m, k, sparsity, dtype)
    b = np.random.default_rng(1).standard_normal((k, n)).astype(DTYPES[dtype])
    contenders = [Contender("ours", _ours(a, b, packed), threads, ours=True)]
    peers = CONTENDERS | ({"MKL": mkl_prepared} if packed else {})
    contenders += [Contender(name, peers[name](a, b), 1 if name == "SciPy" else threads) for name in loaded]
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
            f"{'x'.join(map(str, shape))}/{sparsity}/{dtype}{'' if packed else '/csr'}",
            f"{dtype}, {sparsity} per cent gone{'' if packed else ', CSR as it comes'}",
            partial(_build, shape, sparsity, dtype, packed, threads, tuple(loaded)),
        )
        for dtype, packed in (("f32", True), ("f32", False), ("f64", True))
        for sparsity in SPARSITIES
        for shape in (QUICK if quick or dtype == "f64" else SUITE)
    ]


BENCH = Bench(
    key="spmm",
    title="Sparse weights times dense activations",
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
