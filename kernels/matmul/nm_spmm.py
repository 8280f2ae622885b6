"""C = A B with A of N:M sparsity, B dense: every M neighbours in a row of A keep N."""

import numpy as np

from kernels._native import core
from kernels.check import as_int, check_threads
from kernels.formats.nm_packed import NMPacked
from kernels.matmul.spmm import dense_operand
from kernels.work import Work

__all__ = ["nm_spmm", "nm_spmm_reference", "nm_spmm_work"]


def nm_spmm(a, b, *, num_threads=None) -> np.ndarray:
    """Multiply an N:M matrix with a dense one.

    Parameters
    ----------
    a : NMPacked (rows, k), any pattern; 2:4, 1:4 and 4:8 have loops of their own.
    b : (k, columns) float32, C-contiguous.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    (rows, columns) float32, summed in float32 in an order that depends on the number of columns and on the instruction
    set. Values kept as zeros are multiplied too: infinity or NaN that they meet in b gives NaN.

    Raises
    ------
    TypeError : a is no NMPacked, or b no float32 array.
    ValueError : shapes do not fit.

    Cost
    ----
    2 rows k n / m columns flops; each of their multiply-adds takes a vector of b from the nearest cache. With
    few columns, up to half a vector, it takes a vector of values and inputs picked from registers: reading a limits it.

    Source
    ------
    Mishra et al. 2021, "Accelerating sparse deep neural networks", section 3, for the pattern and its packing.
    *Differs from the paper:* float32 on a CPU, any n:m, a byte for each position instead of two bits.
    """
    if not isinstance(a, NMPacked):
        raise TypeError(f"nm_spmm: a must be an NMPacked, got {type(a).__name__}; use NMPacked.from_dense")
    b = dense_operand(b, function="nm_spmm", name="b", rows=a.shape[1])
    threads = check_threads(num_threads, function="nm_spmm")
    out = np.empty((a.shape[0], b.shape[1]), np.float32)
    core.nm_spmm(a.values, a.positions, a.n, a.m, b, out, threads)
    return out


def nm_spmm_reference(a, b) -> np.ndarray:
    """Multiply value by value in float64, the way the format reads."""
    out = np.zeros((a.shape[0], b.shape[1]))
    for p in range(a.values.shape[1]):
        lines = b[p // a.n * a.m + a.positions[:, p].astype(np.intp)]  # (rows, columns)
        out += a.values[:, p, None].astype(np.float64) * lines
    return out


def nm_spmm_work(a, columns: int) -> Work:
    """Count the work of A B for B with ``columns`` columns: operands and C streamed once, one gather per value."""
    if not isinstance(a, NMPacked):
        raise TypeError(f"nm_spmm_work: a must be an NMPacked, got {type(a).__name__}; use NMPacked.from_dense")
    columns = as_int(columns, function="nm_spmm_work", name="columns", low=0)
    moved = a.nbytes + 4 * columns * sum(a.shape)
    return Work(flops=2 * a.values.size * columns, bytes_streamed=moved, gathers=a.values.size)
