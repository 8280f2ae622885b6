"""C = A B with A sparse (CSR), B dense: SpMM. Row i of C is the scaled sum of the rows of B that row i of A names."""

from typing import Any

import numpy as np

from kernels._native import core
from kernels.check import as_csr, as_int, check_array, check_threads
from kernels.work import Work

__all__ = ["spmm", "spmm_reference", "spmm_work"]


def spmm(a, b, *, num_threads=None) -> np.ndarray:
    """Multiply a CSR matrix with a dense one.

    Parameters
    ----------
    a : csr_array or csr_matrix (m, k), float32 or float64; unsorted and duplicate entries allowed, but rows in rising
        order are faster.
    b : (k, n) of the same dtype, C-contiguous.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    (m, n) of that dtype. Every element is summed in the order of its row's entries.

    Raises
    ------
    TypeError : a is not CSR, or a dtype is neither, or they differ.
    ValueError : a is malformed, or shapes do not fit.

    Cost
    ----
    2 nnz n flops, and a vector of B from the nearest cache for each of their fused multiply-adds: that, and not the
    arithmetic, is what limits it. Besides the result it takes up to 22 bytes an entry, its indices as int64 included.

    Source
    ------
    Row-wise (Gustavson 1978) order.
    """
    a = as_csr(a, function="spmm", name="a")
    b = dense_operand(b, function="spmm", name="b", rows=a.shape[1], dtype=a.dtype)
    out = np.empty((a.shape[0], b.shape[1]), a.dtype)
    threads = check_threads(num_threads, function="spmm")
    core.spmm(a.indptr.astype(np.int64, copy=False), a.indices.astype(np.int64, copy=False), a.data, b, out, threads)
    return out


def spmm_reference(a, b) -> np.ndarray:
    """Multiply row by row in float64, the way the formula reads."""
    out = np.zeros((a.shape[0], b.shape[1]))
    for i in range(a.shape[0]):
        for p in range(a.indptr[i], a.indptr[i + 1]):
            out[i] += float(a.data[p]) * b[a.indices[p]].astype(np.float64)
    return out


def spmm_work(a, n: int) -> Work:
    """Count the work of A B for B with ``n`` columns: operands and C streamed once, one gather per entry."""
    a = as_csr(a, function="spmm_work", name="a")
    nnz, n = int(a.indptr[-1]), as_int(n, function="spmm_work", name="n", low=0)
    moved = nnz * (a.dtype.itemsize + 8) + (a.shape[0] + 1) * 8 + a.dtype.itemsize * n * (a.shape[0] + a.shape[1])
    return Work(flops=2 * nnz * n, bytes_streamed=moved, gathers=nnz)


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
