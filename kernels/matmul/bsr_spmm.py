"""C = A B with A sparse in blocks (BSR), B dense: a block row of C sums its blocks times the rows of B they name."""

import numpy as np

from kernels._native import core
from kernels.check import as_bsr, as_int, check_threads
from kernels.half_precision import as_float32
from kernels.matmul.spmm import dense_operand
from kernels.work import Work

__all__ = ["bsr_spmm", "bsr_spmm_reference", "bsr_spmm_work"]

_VALUES = (np.float32, np.uint16)


def bsr_spmm(a, b, *, num_threads=None) -> np.ndarray:
    """Multiply a sparse matrix of blocks with a dense one.

    Parameters
    ----------
    a : bsr_array or bsr_matrix (m, k) with blocks of any shape, float32, or uint16 that holds the bits of bfloat16;
        unsorted and duplicate blocks allowed.
    b : (k, n) float32, C-contiguous.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    (m, n) float32. Every element is summed in float32 in the order of its row's blocks, and within a block from left to
    right, with fused multiply-adds where the instruction set has them.

    Raises
    ------
    TypeError : a is not BSR, or a dtype is another.
    ValueError : a is malformed, or shapes do not fit.

    Cost
    ----
    2 n flops for each stored value, the zeros within blocks included. Besides the result it takes 256 k bytes a thread
    and its indices as int64.

    Source
    ------
    Row-wise (Gustavson 1978) order over blocks.
    """
    a = as_bsr(a, function="bsr_spmm", name="a", dtypes=_VALUES)
    b = dense_operand(b, function="bsr_spmm", name="b", rows=a.shape[1], dtype=np.float32)
    threads = check_threads(num_threads, function="bsr_spmm")
    out = np.empty((a.shape[0], b.shape[1]), np.float32)
    core.bsr_spmm(
        a.indptr.astype(np.int64, copy=False), a.indices.astype(np.int64, copy=False), a.data, b, out, threads
    )
    return out


def bsr_spmm_reference(a, b) -> np.ndarray:
    """Multiply block by block in float64, the way the formula reads."""
    br, bc = a.blocksize
    values = as_float32(a.data).astype(np.float64)
    out = np.zeros((a.shape[0], b.shape[1]))
    for i in range(a.shape[0] // br):
        for p in range(a.indptr[i], a.indptr[i + 1]):
            out[i * br : (i + 1) * br] += values[p] @ b[a.indices[p] * bc : (a.indices[p] + 1) * bc].astype(np.float64)
    return out


def bsr_spmm_work(a, n: int) -> Work:
    """Count the work of A B for B with ``n`` columns: operands and C streamed once, one gather per block."""
    a = as_bsr(a, function="bsr_spmm_work", name="a", dtypes=_VALUES)
    n, blocks = as_int(n, function="bsr_spmm_work", name="n", low=0), int(a.indptr[-1])
    moved = a.data.nbytes + blocks * 8 + len(a.indptr) * 8 + 4 * n * (a.shape[0] + a.shape[1])
    return Work(flops=2 * a.data.size * n, bytes_streamed=moved, gathers=blocks)
