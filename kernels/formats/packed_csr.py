"""A CSR matrix in the order in which `spmm` reads it: weights are packed once and multiplied often."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from kernels._native import core
from kernels.check import FLOATS, as_int, as_ints, check_array, check_threads, is_canonical, unchangeable_copy

__all__ = ["PackedCSR", "pack"]

TILE_ROWS = 256  # as many as a byte tells apart
BLOCK = 112  # columns at most: their rows of B, 256 bytes wide, stay in the nearest cache beside what passes


@dataclass(frozen=True, eq=False, kw_only=True)
class PackedCSR:
    """A sparse matrix whose entries lie by tiles of 256 rows, and in a tile by blocks of columns: cell by cell.

    What a row has in a cell is a segment; segments of a cell lie by falling length, so that the loop over equally long
    ones is foreseen, and empty ones are left out. Arrays are copied, and nobody can write to the copies: kernels trust
    them. ``from_csr`` makes one.

    Parameters
    ----------
    values : float32 or float64 (nnz,), cell by cell, segment by segment.
    columns : uint8, as many: each entry's column in its block, rising strictly within a segment.
    rows : uint8 (segments,), each segment's row in its tile; those of a cell differ.
    lengths : uint8, as many: entries of each segment, at least 1, never rising within a cell.
    cells : int64 (tiles * blocks + 1, 2), the first segment and the first entry of each cell, all blocks of the first
        tile first, and at the end how many there are.
    block : columns of a block, from 1 to 255.
    shape : (m, k).

    Source
    ------
    Sorting rows by length: Saad 1989, "Krylov subspace methods on supercomputers" (jagged diagonals).
    """

    values: np.ndarray
    columns: np.ndarray
    rows: np.ndarray
    lengths: np.ndarray
    cells: np.ndarray
    block: int
    shape: tuple[int, int]

    def __post_init__(self):
        m, k = as_ints(self.shape, 2, function="PackedCSR", name="shape", low=0)
        block = as_int(self.block, function="PackedCSR", name="block", low=1, high=255)
        wanted = {"values": FLOATS, "columns": (np.uint8,), "rows": (np.uint8,), "lengths": (np.uint8,)}
        for name, dtypes in (wanted | {"cells": (np.int64,)}).items():
            found = getattr(self, name)
            check_array(found, function="PackedCSR", name=name, dtypes=dtypes)
            if found.ndim != (2 if name == "cells" else 1):
                raise ValueError(f"PackedCSR: {name} has {found.ndim} dimensions; use PackedCSR.from_csr")
            object.__setattr__(self, name, unchangeable_copy(found).reshape(found.shape))
        for name, value in (("block", block), ("shape", (m, k))):
            object.__setattr__(self, name, value)
        self._check_cells()
        self._check_segments()

    def _check_cells(self):
        m, k = self.shape
        count = -(-m // TILE_ROWS) * -(-k // self.block)
        if self.cells.shape != (count + 1, 2):
            raise ValueError(f"PackedCSR: cells has shape {self.cells.shape}; {count} cells need {(count + 1, 2)}")
        if len(self.rows) != len(self.lengths) or len(self.values) != len(self.columns):
            raise ValueError(
                f"PackedCSR: {len(self.rows)} rows and {len(self.lengths)} lengths, {len(self.values)} values and "
                f"{len(self.columns)} columns; each two must be as many"
            )
        ends = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        first = self.cells[:, 0]
        if first[0] != 0 or first[-1] != len(self.rows) or np.any(np.diff(first) < 0):
            raise ValueError(f"PackedCSR: cells[:, 0] must rise from 0 to the {len(self.rows)} segments")
        if ends[-1] != len(self.columns) or np.any(ends[first] != self.cells[:, 1]):
            raise ValueError("PackedCSR: cells[:, 1] must be the sums of lengths, up to the number of entries")

    def _check_segments(self):
        (m, k), cell = self.shape, self._cell_of_segments()
        blocks = -(-k // self.block)
        same = cell[1:] == cell[:-1]
        if np.any(self.lengths == 0) or np.any(same & (self.lengths[1:] > self.lengths[:-1])):
            raise ValueError("PackedCSR: lengths must be at least 1 and never rise within a cell")
        places = np.sort(cell * TILE_ROWS + self.rows)
        if np.any(places[1:] == places[:-1]) or np.any(self._row_of_segments(cell) >= m):
            raise ValueError(f"PackedCSR: rows must differ within a cell and lie within the {m} of the matrix")
        last = np.cumsum(self.lengths, dtype=np.int64) - 1
        rises = self.columns[1:] > self.columns[:-1]
        rises[last[:-1]] = True
        width = np.minimum(self.block, k - cell % max(blocks, 1) * self.block)
        if not np.all(rises) or np.any(self.columns[last] >= width):
            raise ValueError(
                f"PackedCSR: columns must rise strictly within a segment and lie in its block of {self.block} columns "
                f"or in the matrix, which has {k}"
            )

    def __reduce__(self):
        """Copy and unpickle through the checks, since NumPy would make the arrays writeable."""
        return _unpickled, tuple(getattr(self, name) for name in self.__dataclass_fields__)

    @classmethod
    def from_csr(cls, a) -> "PackedCSR":
        """Pack a CSR matrix.

        Parameters
        ----------
        a : csr_array or csr_matrix (m, k), float32 or float64, the column indices of each row strictly rising. Its
            zeros are kept.

        Raises
        ------
        TypeError : not CSR, or another dtype.
        ValueError : a is malformed, its rows are out of order or have duplicates, or it has far fewer entries than
            cells.
        """
        a, rising = is_canonical(a, function="PackedCSR.from_csr", name="a")
        if not rising:
            raise ValueError(
                "PackedCSR.from_csr: a has rows out of order or with duplicates; call a.sum_duplicates(), which sorts"
            )
        cells = -(-a.shape[0] // TILE_ROWS) * -(-a.shape[1] // BLOCK)
        if cells > (1 << 20) + a.nnz:
            raise ValueError(
                f"PackedCSR.from_csr: a has {a.nnz} entries in {cells} cells of {TILE_ROWS} x {BLOCK}, which would "
                "take more room than the entries; hand the CSR matrix to the kernel"
            )
        return cls(**pack(a, BLOCK), shape=a.shape)

    def to_csr(self) -> sparse.csr_array:
        """Return the matrix as it was packed, with the index dtype that SciPy gives its shape."""
        cell = self._cell_of_segments()
        blocks = -(-self.shape[1] // self.block)
        rows = np.repeat(self._row_of_segments(cell), self.lengths)
        columns = np.repeat(cell % max(blocks, 1) * self.block, self.lengths) + self.columns
        return sparse.coo_array((self.values, (rows, columns)), shape=self.shape).tocsr()

    def _cell_of_segments(self):
        return np.repeat(np.arange(len(self.cells) - 1), np.diff(self.cells[:, 0]))

    def _row_of_segments(self, cell):
        return cell // max(-(-self.shape[1] // self.block), 1) * TILE_ROWS + self.rows

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the values."""
        return self.values.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays: 5 for each float32 entry, 2 for each segment, 16 for each cell."""
        return sum(part.nbytes for part in (self.values, self.columns, self.rows, self.lengths, self.cells))


def pack(a: sparse.csr_array, most_columns: int, num_threads=None) -> dict:
    """Return all that a `PackedCSR` has but its shape, of a checked matrix whose rows rise strictly.

    Blocks have up to ``most_columns``, at most 255.
    """
    (m, k), nnz = a.shape, int(a.indptr[-1])
    blocks = -(-k // most_columns)
    block = -(-k // max(blocks, 1)) or 1  # all of about one width
    segments = min(nnz, m * blocks)
    rows, lengths, columns = (np.empty(size, np.uint8) for size in (segments, segments, nnz))
    values, cells = np.empty(nnz, a.dtype), np.empty((-(-m // TILE_ROWS) * blocks + 1, 2), np.int64)
    found = core.pack_csr(
        a.indptr.astype(np.int64, copy=False),
        a.indices,
        a.data,
        k,
        block,
        cells.reshape(-1),
        rows,
        lengths,
        columns,
        values,
        check_threads(num_threads, function="pack"),
    )
    parts = {"rows": rows[:found], "lengths": lengths[:found], "columns": columns, "values": values}
    return parts | {"cells": cells, "block": block}


def _unpickled(*fields):
    return PackedCSR(**dict(zip(PackedCSR.__dataclass_fields__, fields, strict=True)))
