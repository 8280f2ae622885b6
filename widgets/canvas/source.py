"""What the canvas draws from: a sparse matrix or a bit mask that answers for any window, in pixels or exactly."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy import sparse

from kernels.raster import raster, raster_bits, window_entries

Window = tuple[int, int, int, int]


class Source(Protocol):
    """A matrix as the canvas needs it."""

    shape: tuple[int, int]

    def counts(self, window: Window, shape: tuple[int, int]) -> np.ndarray:
        """Return entries per pixel, as `kernels.raster.raster` does."""

    def value(self, row: int, column: int) -> float | complex | None:
        """Return the value at one position (duplicates summed), or None where no entry is stored."""


@dataclass(frozen=True)
class CsrSource:
    """A CSR matrix.

    Parameters
    ----------
    matrix : csr_array (m, n); columns in any order.
    row_names, column_names : int64 arrays, what to call each row and column (their numbers before reordering), or None.
    """

    matrix: sparse.csr_array
    row_names: np.ndarray | None = None
    column_names: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.matrix.shape

    @property
    def nnz(self) -> int:
        """Stored entries."""
        return int(self.matrix.indptr[-1])

    def counts(self, window: Window, shape: tuple[int, int]) -> np.ndarray:
        """Return entries per pixel."""
        return raster(self.matrix, window, shape)

    def value(self, row: int, column: int):
        """Return the value at one position, or None."""
        found = window_entries(self.matrix, (row, row + 1, column, column + 1))[2]
        return found.sum().item() if found.size else None


@dataclass(frozen=True)
class BitsSource:
    """A bit-packed mask, such as the kept blocks of an attention mask.

    Parameters
    ----------
    bits : uint8 (m, ceil(columns / 8)), little bit order, as for `kernels.raster.raster_bits`.
    columns : columns of the mask.
    """

    bits: np.ndarray
    columns: int
    row_names: None = field(default=None, init=False)
    column_names: None = field(default=None, init=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bits.shape[0], self.columns

    @cached_property
    def nnz(self) -> int:
        """Ones of the mask."""
        return int(self.counts((0, self.bits.shape[0], 0, self.columns), (512, 1)).sum(dtype=np.int64))

    def counts(self, window: Window, shape: tuple[int, int]) -> np.ndarray:
        """Return ones per pixel."""
        return raster_bits(self.bits, self.columns, window, shape)

    def value(self, row: int, column: int):
        """Return 1 for a one, None for a zero."""
        return 1 if self.bits[row, column // 8] >> (column % 8) & 1 else None
