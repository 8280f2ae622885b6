"""A sparse weight of small constant blocks, whose kept blocks are stored some at a time: VNNI-ready block CSR."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kernels.check import as_int, as_ints, check_array

__all__ = ["BlockGroupedWeight"]

_DTYPES = (np.int8, np.float32)
_NAME = "BlockGroupedWeight"


@dataclass(frozen=True, eq=False, kw_only=True)
class BlockGroupedWeight:
    """A sparse weight of small constant blocks, whose kept blocks are stored in groups.

    The matrix is cut into blocks of br x bc. The kept blocks of each block row, in rising order, are cut into groups; a
    short last group is filled up with blocks of zeros that repeat the last kept block's index. Block rows without kept
    blocks have no group. With ``block=(4, 1)`` and ``group=4`` one group is 4 weights for each of 4 rows, which is
    what one dot-product instruction takes.

    Parameters
    ----------
    indptr : int64 (m / br + 1,), the first group of each block row, and at the end the number of groups.
    indices : (groups * group,), the block columns, uint16 where all of k / bc fits into it, else int32.
    data : int8 or float32 (groups, br, group * bc), C-contiguous: for each row of a group, its weights block by block.
    shape : (m, k) of the matrix, multiples of the block's sides.
    block : (br, bc), at least 1.
    group : blocks in a group, at least 1.
    nnz_blocks : kept blocks, those that fill up a group not among them.

    Source
    ------
    Shen et al. 2023, the weight layout of the VNNI kernel. *Differs from the paper:* block columns are stored in 2 or 4
    bytes instead of 8.
    """

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    shape: tuple[int, int]
    block: tuple[int, int]
    group: int
    nnz_blocks: int

    def __post_init__(self):
        br, bc = as_ints(self.block, 2, function=_NAME, name="block", low=1)
        m, k = as_ints(self.shape, 2, function=_NAME, name="shape", low=0)
        group = as_int(self.group, function=_NAME, name="group", low=1)
        kept = as_int(self.nnz_blocks, function=_NAME, name="nnz_blocks", low=0)
        _check_sides((m, k), (br, bc), _NAME)
        check_array(self.data, function=_NAME, name="data", dtypes=_DTYPES)
        check_array(self.indptr, function=_NAME, name="indptr", dtypes=(np.int64,))
        check_array(self.indices, function=_NAME, name="indices", dtypes=(_index_dtype(k // bc),))
        for name in ("indptr", "indices", "data"):
            part = getattr(self, name)
            if not (part.flags.c_contiguous and part.flags.aligned):
                raise ValueError(f"{_NAME}: {name} must be contiguous and aligned; pass {name}.copy()")
        if self.indptr.shape != (m // br + 1,) or self.indptr[0] != 0 or np.any(np.diff(self.indptr) < 0):
            raise ValueError(f"{_NAME}: indptr must rise from 0 over {m // br + 1} entries; use {_NAME}.from_dense")
        groups = int(self.indptr[-1])
        if self.data.shape != (groups, br, group * bc) or self.indices.shape != (groups * group,):
            raise ValueError(
                f"{_NAME}: {groups} groups need data of shape {(groups, br, group * bc)} and {groups * group} indices, "
                f"got {self.data.shape} and {self.indices.shape}; use {_NAME}.from_dense"
            )
        found = self._count_kept(k // bc)
        if found != kept:
            raise ValueError(f"{_NAME}: nnz_blocks is {kept}, the indices hold {found}; use {_NAME}.from_dense")
        for name, value in (("block", (br, bc)), ("shape", (m, k)), ("group", group), ("nnz_blocks", kept)):
            object.__setattr__(self, name, value)

    def _count_kept(self, columns):
        """Return the number of kept blocks, after checking that indices rise and padding repeats the last of a row."""
        if len(self.indices) and not (self.indices.min() >= 0 and self.indices.max() < columns):
            raise ValueError(f"{_NAME}: indices must be in [0, {columns}); use {_NAME}.from_dense")
        step = self._steps()
        padding = step == 0
        by_group = padding.reshape(-1, self.group)
        last = np.zeros(len(by_group), bool)
        last[self.indptr[1:][np.diff(self.indptr) > 0] - 1] = True
        risen = np.all(step >= 0) and not np.any(by_group[:, :-1] & ~by_group[:, 1:])
        if not risen or np.any(by_group[~last]) or np.any(by_group[:, 0]):
            raise ValueError(
                f"{_NAME}: indices must rise in every block row and repeat the last one only to fill up its last "
                f"group; use {_NAME}.from_dense"
            )
        br, bc = self.block
        if np.any(self.data.reshape(-1, br, self.group, bc).transpose(0, 2, 1, 3)[by_group]):
            raise ValueError(f"{_NAME}: blocks that fill up a group must be 0; use {_NAME}.from_dense")
        return len(step) - int(padding.sum())

    def _steps(self):
        """Return by how much each index exceeds the one before it in its block row, 1 for the first: 0 is padding."""
        step = np.diff(self.indices.astype(np.int64), prepend=-1)
        step[self.indptr[:-1][np.diff(self.indptr) > 0] * self.group] = 1
        return step

    @classmethod
    def from_dense(cls, w, *, block=(4, 1), group=4) -> "BlockGroupedWeight":
        """Keep every block of a dense matrix that has a value other than 0.

        Parameters
        ----------
        w : (m, k) int8 or float32, multiples of the block's sides.
        block : (br, bc), at least 1.
        group : blocks in a group, at least 1.

        Raises
        ------
        TypeError : another dtype, or no integers where they are wanted.
        ValueError : not two-dimensional, or the block does not divide the matrix.
        """
        function = f"{_NAME}.from_dense"
        check_array(w, function=function, name="w", dtypes=_DTYPES)
        if w.ndim != 2:
            raise ValueError(f"{function}: w must be two-dimensional, got {w.ndim} dimensions; use w.reshape(m, k)")
        br, bc = as_ints(block, 2, function=function, name="block", low=1)
        group = as_int(group, function=function, name="group", low=1)
        _check_sides(w.shape, (br, bc), function)
        blocks = w.reshape(w.shape[0] // br, br, w.shape[1] // bc, bc).transpose(0, 2, 1, 3)  # (rows, columns, br, bc)
        rows, columns = np.nonzero(np.any(blocks != 0, axis=(2, 3)))
        counts = np.bincount(rows, minlength=blocks.shape[0])
        groups = -(-counts // group)
        indptr = np.concatenate([[0], np.cumsum(groups)])
        row = np.repeat(np.arange(len(counts)), groups * group)
        within = np.arange(len(row)) - indptr[row] * group
        source = (np.cumsum(counts) - counts)[row] + np.minimum(within, counts[row] - 1)
        found = blocks[row, columns[source]]  # (groups * group, br, bc)
        found[within >= counts[row]] = 0
        data = found.reshape(-1, group, br, bc).transpose(0, 2, 1, 3)
        return cls(
            indptr=indptr,
            indices=columns[source].astype(_index_dtype(blocks.shape[1])),
            data=np.ascontiguousarray(data.reshape(-1, br, group * bc)),
            shape=w.shape,
            block=(br, bc),
            group=group,
            nnz_blocks=len(rows),
        )

    def to_dense(self) -> np.ndarray:
        """Return the matrix (m, k) with all its zeros, in the dtype of ``data``."""
        (br, bc), (m, k) = self.block, self.shape
        blocks = np.zeros((m // br, k // bc, br, bc), self.data.dtype)
        row = np.repeat(np.arange(m // br), np.diff(self.indptr) * self.group)
        stored = self.data.reshape(-1, br, self.group, bc).transpose(0, 2, 1, 3).reshape(-1, br, bc)
        kept = self._steps() > 0
        blocks[row[kept], self.indices[kept]] = stored[kept]
        return blocks.transpose(0, 2, 1, 3).reshape(m, k)

    @property
    def padding(self) -> int:
        """Blocks of zeros that fill up groups."""
        return len(self.indices) - self.nnz_blocks

    @property
    def nbytes(self) -> int:
        """Bytes of the three arrays."""
        return self.indptr.nbytes + self.indices.nbytes + self.data.nbytes

    @cached_property
    def positions(self) -> np.ndarray:
        """Columns of the matrix that the weights of a group's row belong to, group * bc for each group."""
        bc = self.block[1]
        if bc == 1:
            return self.indices
        columns = self.indices.astype(np.int64)[:, None] * bc + np.arange(bc)
        return columns.reshape(-1).astype(_index_dtype(self.shape[1]))

    @cached_property
    def row_sums(self) -> np.ndarray:
        """Sum of each row of the matrix, (m,), int64 for int8 and float64 for float32."""
        total = np.zeros(
            (self.shape[0] // self.block[0], self.block[0]), np.int64 if self.data.dtype == np.int8 else float
        )
        rows = np.repeat(np.arange(len(total)), np.diff(self.indptr))
        np.add.at(total, rows, self.data.sum(axis=2, dtype=total.dtype))
        return total.reshape(-1)


def _index_dtype(count: int) -> np.dtype:
    """Return the smallest dtype in use that holds every index below ``count``."""
    return np.dtype(np.uint16 if count <= 1 << 16 else np.int32)


def _check_sides(shape, block, function):
    for axis, (side, step) in enumerate(zip(shape, block, strict=True)):
        if side % step:
            raise ValueError(
                f"{function}: {side} {('rows', 'columns')[axis]} must be a multiple of the block's {step}; "
                "fill the matrix up with zeros or choose another block"
            )
