"""Y = X A^T with A as a bitmap and few rows of X: sparse weights for a few tokens at a time, in torch's layout."""

import numpy as np

from kernels._native import core
from kernels.check import as_int, check_array, check_threads
from kernels.formats.bitmap_rows import PLACES, BitmapRows
from kernels.work import Work

__all__ = ["bitmap_spmm", "bitmap_spmm_reference", "bitmap_spmm_work"]


def bitmap_spmm(a, x, *, num_threads=None) -> np.ndarray:
    """Multiply rows with the transpose of a matrix that is stored as a bitmap.

    Parameters
    ----------
    a : BitmapRows (m, k). ``BitmapRows.from_csr(csr)``.
    x : (n, k) float32, C-contiguous. Any n; a is read once for every eight rows, so `spmm` is faster for many.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    (n, m) float32. Products of places that lie as far apart as a register is wide are summed one after the other, then
    these sums; the bits depend on the instruction set. Infinity or NaN in x reaches every output, since places
    without an entry are multiplied as zeros.

    Raises
    ------
    TypeError : a is no BitmapRows, or x no float32 array.
    ValueError : shapes do not fit, or x is not contiguous.

    Cost
    ----
    2 m k n flops, zeros included, k rounded up to 16, and 4 bytes for each entry and a bit for each place.

    Source
    ------
    Ours. The expansion in registers is what Flash-LLM does in shared memory: load as sparse, compute as dense.
    """
    if not isinstance(a, BitmapRows):
        raise TypeError(f"bitmap_spmm: a must be BitmapRows, got {type(a).__name__}; use BitmapRows.from_csr(a)")
    check_array(x, function="bitmap_spmm", name="x", dtypes=(np.float32,))
    if x.ndim != 2 or x.shape[1] != a.shape[1] or not x.flags.c_contiguous:
        raise ValueError(f"bitmap_spmm: x must be C-contiguous and (n, {a.shape[1]}), got shape {x.shape}")
    rows, spare = x, -x.shape[1] % PLACES
    if spare:
        rows = np.zeros((len(x), x.shape[1] + spare), np.float32)
        rows[:, : x.shape[1]] = x
    out = np.empty((len(x), a.shape[0]), np.float32)
    core.bitmap_spmm(
        a.values_and_spare, a.starts, a.bits, rows, out, check_threads(num_threads, function="bitmap_spmm")
    )
    return out


def bitmap_spmm_reference(a, x) -> np.ndarray:
    """Multiply row by row in float64, the way the format reads."""
    out, taken = np.zeros((len(x), a.shape[0])), 0
    for i, row in enumerate(np.unpackbits(a.bits, axis=1, bitorder="little")):
        for j in np.flatnonzero(row):
            out[:, i] += float(a.values[taken]) * x[:, j].astype(np.float64)
            taken += 1
    return out


def bitmap_spmm_work(a, n: int) -> Work:
    """Count the work for ``n`` rows of X: zeros multiplied too; a, X and Y streamed once, nothing gathered."""
    if not isinstance(a, BitmapRows):
        raise TypeError(f"bitmap_spmm_work: a must be BitmapRows, got {type(a).__name__}; use BitmapRows.from_csr(a)")
    n, (m, k) = as_int(n, function="bitmap_spmm_work", name="n", low=0), a.shape
    places = m * -(-k // PLACES) * PLACES
    return Work(flops=2 * places * n, bytes_streamed=a.nbytes + 4 * n * (m + k), gathers=0)
