"""C = A S B X with S of N:M sparsity between two block-diagonal matrices A and B, X dense: ARMOR's product."""

import numpy as np

from kernels._native import core
from kernels.check import as_int, check_array, check_threads, is_plain
from kernels.formats.nm_packed import NMPacked
from kernels.matmul.spmm import dense_operand
from kernels.work import Work

__all__ = ["wrapped_nm_spmm", "wrapped_nm_spmm_reference", "wrapped_nm_spmm_work"]

_NONE = np.zeros((0, 1, 1), np.float32)


def wrapped_nm_spmm(s, x, *, left=None, right=None, num_threads=None) -> np.ndarray:
    """Multiply N:M weights, wrapped in block-diagonal matrices, with a dense matrix; nothing is written in between.

    Parameters
    ----------
    s : NMPacked (rows, k), any pattern; 2:4 has a loop of its own.
    x : (k, columns) float32, C-contiguous.
    left : (blocks, side, side) float32, C-contiguous, blocks * side = rows: the blocks of A; None for the unit matrix.
    right : (blocks, side, side) float32, C-contiguous, blocks * side = k: the blocks of B; None for the unit matrix.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    (rows, columns) float32, summed in float32 in an order that depends on the number of columns and on the instruction
    set.

    Raises
    ------
    TypeError : s is no NMPacked, or another operand no float32 array.
    ValueError : shapes do not fit.

    Cost
    ----
    2 columns (rows side_A + rows k n / m + k side_B) flops.

    Source
    ------
    Liu et al. 2025, "ARMOR". *Differs from the paper:* one pass over panels of columns in place of three products;
    with few columns, up to half a vector, B X is computed once and then S and A take some rows at a time.
    """
    name = "wrapped_nm_spmm"
    if not isinstance(s, NMPacked):
        raise TypeError(f"{name}: s must be an NMPacked, got {type(s).__name__}; use NMPacked.from_dense")
    x = dense_operand(x, function=name, name="x", rows=s.shape[1])
    left = _blocks(left, s.shape[0], name, "left", "rows")
    right = _blocks(right, s.shape[1], name, "right", "columns")
    threads = check_threads(num_threads, function=name)
    out = np.empty((s.shape[0], x.shape[1]), np.float32)
    if out.size:
        core.wrapped_nm_spmm(s.values, s.positions, s.n, s.m, left, right, x, out, threads)
    return out


def wrapped_nm_spmm_reference(s, x, left=None, right=None) -> np.ndarray:
    """Multiply three times in float64, block by block."""
    y = s.to_dense().astype(np.float64) @ _reference(right, x.astype(np.float64))
    return _reference(left, y)


def wrapped_nm_spmm_work(s, columns: int, *, left_side: int = 0, right_side: int = 0) -> Work:
    """Count the work for ``columns`` columns: operands and C streamed once, one gather per value of S.

    Parameters
    ----------
    s : NMPacked.
    columns : of X.
    left_side, right_side : sides of the blocks of A and B; 0 for the unit matrix.
    """
    name = "wrapped_nm_spmm_work"
    if not isinstance(s, NMPacked):
        raise TypeError(f"{name}: s must be an NMPacked, got {type(s).__name__}; use NMPacked.from_dense")
    given = {"columns": columns, "left_side": left_side, "right_side": right_side}
    columns, left_side, right_side = (as_int(v, function=name, name=key, low=0) for key, v in given.items())
    blocks = s.shape[0] * left_side + s.shape[1] * right_side  # values
    return Work(
        flops=2 * columns * (s.values.size + blocks),
        bytes_streamed=s.nbytes + 4 * blocks + 4 * columns * sum(s.shape),
        gathers=s.values.size,
    )


def _reference(blocks, x):
    if blocks is None:
        return x
    count, side, _ = blocks.shape
    return (blocks.astype(np.float64) @ x.reshape(count, side, -1)).reshape(x.shape)


def _blocks(blocks, size, function, name, of):
    if blocks is None:
        return _NONE
    if not (is_plain(blocks) and blocks.dtype == np.float32):  # or the check takes as long as a small product
        check_array(blocks, function=function, name=name, dtypes=(np.float32,))
    if blocks.ndim != 3 or blocks.shape[1] != blocks.shape[2] or blocks.shape[0] * blocks.shape[1] != size:
        raise ValueError(
            f"{function}: {name} must be (blocks, side, side) with blocks * side = {size}, the {of} of s, got "
            f"{blocks.shape}"
        )
    if not blocks.flags.c_contiguous:
        raise ValueError(f"{function}: {name} must be C-contiguous; pass np.ascontiguousarray({name})")
    return blocks if size else _NONE
