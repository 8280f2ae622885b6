"""C = A B with A sparse (CSR), B dense: SpMM. Row i of C is the scaled sum of the rows of B that row i of A names."""

from typing import Any

import numpy as np

from kernels._native import core
from kernels.check import as_csr, as_int, check_array, check_threads, is_canonical
from kernels.formats.packed_csr import PackedCSR, pack
from kernels.work import Work

__all__ = ["spmm", "spmm_reference", "spmm_work"]

LEAST_COLUMNS = 96  # from here on packing costs less than it saves
LEAST_WORK = 2500  # multiply-adds of a segment, likewise
ONCE = (
    255  # columns of a block that is used once: fewer segments are packed in less time, and multiplied a little slower
)


def spmm(a, b, *, num_threads=None) -> np.ndarray:
    """Multiply a sparse matrix with a dense one.

    Parameters
    ----------
    a : (m, k) float32 or float64. A PackedCSR, which is the fast form of weights that are used more than once
        (``PackedCSR.from_csr(a)``); or a csr_array or csr_matrix, unsorted and duplicate entries allowed, but rows in
        strictly rising order are faster.
    b : (k, n) of the same dtype, C-contiguous.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    (m, n) of that dtype. Every element is summed in the order of its row's entries, in both forms of a.

    Raises
    ------
    TypeError : a is neither, or a dtype is neither, or they differ.
    ValueError : a is malformed, or shapes do not fit.

    Cost
    ----
    2 nnz n flops, and a vector of B from the nearest cache for each of their fused multiply-adds: that, and not the
    arithmetic, is what limits it. A CSR matrix is packed at each call if B has many columns, which takes up to 7 bytes
    an entry beside the result; its indices are read where they lie.

    Source
    ------
    Row-wise (Gustavson 1978) order.
    """
    rising = False
    if not isinstance(a, PackedCSR):
        a, rising = is_canonical(a, function="spmm", name="a")
    b = dense_operand(b, function="spmm", name="b", rows=a.shape[1], dtype=a.dtype)
    out = np.empty((a.shape[0], b.shape[1]), a.dtype)
    threads = check_threads(num_threads, function="spmm")
    if isinstance(a, PackedCSR):
        _multiply(vars(a), b, out, threads)
    elif rising and _packing_pays(a, b.shape[1]):
        _multiply(pack(a, ONCE, num_threads), b, out, threads)
    else:
        core.spmm_rows(a.indptr.astype(np.int64, copy=False), a.indices, a.data, b, out, threads)
    return out


def _multiply(parts, b, out, threads):
    names = ("rows", "lengths", "columns", "values", "block")
    core.spmm_packed(parts["cells"].reshape(-1), *(parts[name] for name in names), b, out, threads)


def _packing_pays(a, n):
    """Tell whether packing is won back: enough columns, rows to share a block of B, and entries in a segment."""
    m, k = a.shape
    return n >= LEAST_COLUMNS and m >= 128 and a.nnz * n >= LEAST_WORK * m * -(-k // ONCE)


def spmm_reference(a, b) -> np.ndarray:
    """Multiply row by row in float64, the way the formula reads."""
    out = np.zeros((a.shape[0], b.shape[1]))
    for i in range(a.shape[0]):
        for p in range(a.indptr[i], a.indptr[i + 1]):
            out[i] += float(a.data[p]) * b[a.indices[p]].astype(np.float64)
    return out


def spmm_work(a, n: int) -> Work:
    """Count the work of A B for B with ``n`` columns: A as it lies, B and C streamed once, one gather per entry."""
    n = as_int(n, function="spmm_work", name="n", low=0)
    if isinstance(a, PackedCSR):
        nnz, stored = len(a.values), a.nbytes
    else:
        a = as_csr(a, function="spmm_work", name="a")
        nnz, stored = a.nnz, a.data.nbytes + a.indices.nbytes + a.indptr.nbytes
    return Work(flops=2 * nnz * n, bytes_streamed=stored + a.dtype.itemsize * n * sum(a.shape), gathers=nnz)


def dense_operand(x, *, function: str, name: str, rows: int, dtype: Any = np.float32) -> np.ndarray:
    """Return ``x`` after checking that it is a C-contiguous matrix of ``rows`` rows and of ``dtype``.

    Raises
    ------
    TypeError : not an array of that dtype.
    ValueError : not two-dimensional and contiguous, or another number of rows.
    """
    check_array(x, function=function, name=name, dtypes=(dtype,))
    if x.ndim != 2 or not x.flags.c_contiguous:
        raise ValueError(
            f"{function}: {name} must be two-dimensional and C-contiguous; pass np.ascontiguousarray({name})"
        )
    if x.shape[0] != rows:
        raise ValueError(f"{function}: {name} has {x.shape[0]} rows, the pattern asks for {rows}")
    return x
