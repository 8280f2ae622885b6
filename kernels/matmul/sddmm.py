"""Sampled dense-dense product: s_ij = x_i . y_j only where a sparse pattern has an entry (SDDMM)."""

import numpy as np
from scipy import sparse

from kernels._native import core
from kernels.check import FLOATS, as_csr, as_int, check_array, check_threads, is_canonical
from kernels.matmul.spmm import dense_operand
from kernels.work import Work

__all__ = ["sddmm", "sddmm_reference", "sddmm_work"]


def sddmm(pattern, x, y, *, num_threads=None) -> sparse.csr_array:
    """Compute x y^T at the entries of a pattern.

    Parameters
    ----------
    pattern : csr_array or csr_matrix (m, n), float32 or float64; its values are not read.
    x : (m, d) float32 or float64, C-contiguous.
    y : (n, d) of the same dtype, C-contiguous.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    csr_array (m, n) of the dtype of x, with the structure of ``pattern``, which it shares.

    Raises
    ------
    TypeError : pattern is not CSR, or a dtype is neither, or those of x and y differ.
    ValueError : pattern is malformed, or shapes do not fit.

    Cost
    ----
    2 nnz d flops.

    Source
    ------
    The gradient of SpMM with respect to its sparse operand; the score of sparse attention.
    """
    pattern, rising = is_canonical(pattern, function="sddmm", name="pattern")
    check_array(x, function="sddmm", name="x", dtypes=FLOATS)
    x = dense_operand(x, function="sddmm", name="x", rows=pattern.shape[0], dtype=x.dtype)
    y = dense_operand(y, function="sddmm", name="y", rows=pattern.shape[1], dtype=x.dtype)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"sddmm: x has {x.shape[1]} columns, y has {y.shape[1]}; they must be equal")
    out = np.empty(len(pattern.indices), x.dtype)
    threads = check_threads(num_threads, function="sddmm")
    core.sddmm(pattern.indptr.astype(np.int64, copy=False), pattern.indices, x, y, out, rising, threads)
    return sparse.csr_array((out, pattern.indices, pattern.indptr), shape=pattern.shape)


def sddmm_reference(pattern, x, y) -> np.ndarray:
    """Compute the values entry by entry in float64."""
    rows = np.repeat(np.arange(pattern.shape[0]), np.diff(pattern.indptr))
    columns = pattern.indices[: pattern.indptr[-1]]
    return np.einsum("pd,pd->p", x[rows].astype(np.float64), y[columns].astype(np.float64))


def sddmm_work(pattern, d: int) -> Work:
    """Count the work for rows of width ``d``: pattern, operands and values streamed once, one gather of y per entry."""
    pattern = as_csr(pattern, function="sddmm_work", name="pattern")
    nnz, d = pattern.nnz, as_int(d, function="sddmm_work", name="d", low=0)
    moved = pattern.data.nbytes + pattern.indices.nbytes + pattern.indptr.nbytes
    moved += pattern.dtype.itemsize * d * sum(pattern.shape)
    return Work(flops=2 * nnz * d, bytes_streamed=moved, gathers=nnz)
