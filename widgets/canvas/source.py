"""What the canvas draws from: a sparse matrix or a bit mask that answers for any window, in pixels or exactly."""

from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, log10
from typing import Protocol

import numpy as np
from scipy import sparse

from kernels.raster import bin_edges, raster, raster_bits, window_entries

Window = tuple[int, int, int, int]


class Source(Protocol):
    """A matrix as the canvas needs it."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...

    @property
    def nnz(self) -> int:
        """Positions that hold something."""
        ...

    @property
    def row_names(self) -> np.ndarray | None:
        """What to call each row, or None for its number; ``column_names`` says the same of columns."""
        ...

    @property
    def column_names(self) -> np.ndarray | None: ...

    def counts(self, window: Window, shape: tuple[int, int]) -> np.ndarray:
        """Return entries per pixel, as `kernels.raster.raster` does."""
        ...

    def value(self, row: int, column: int) -> float | complex | None:
        """Return the value at one position (duplicates summed), or None where no entry is stored."""
        ...


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
    labels : what row and column numbers stand for, such as words, one per row; empty for none.
    """

    bits: np.ndarray
    columns: int
    labels: tuple[str, ...] = ()
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


@dataclass(frozen=True)
class WeightSource:
    """A dense matrix of weights, such as attention: a pixel shows the weight it holds, counted in small parts.

    A part is as small as 32 bits allow for the count of all, so that rounding shows in no picture and no strip.

    Parameters
    ----------
    weights : float32 (m, n), not negative; not copied.
    labels : what row and column numbers stand for, such as words, one per row; empty for none.
    column_labels : what column numbers stand for where that is something else than rows; empty where it is not.
    """

    weights: np.ndarray
    labels: tuple[str, ...] = ()
    column_labels: tuple[str, ...] = ()
    row_names: None = field(default=None, init=False)
    column_names: None = field(default=None, init=False)
    unit: str = field(default="weight", init=False)

    @cached_property
    def each(self) -> float:
        """How much weight one count is: a power of ten."""
        total = float(self.weights.sum(dtype=np.float64))
        return 10.0 ** ceil(log10((total if total > 0 else 1.0) / 4e9))

    @property
    def nnz(self) -> int:
        """Weights that are not zero."""
        return self._nnz

    @cached_property
    def _nnz(self) -> int:
        return int(np.count_nonzero(self.weights))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.weights.shape

    def counts(self, window: Window, shape: tuple[int, int]) -> np.ndarray:
        """Return weight per pixel in parts of `each`; a weight that is not zero counts at least one."""
        r0, r1, c0, c1 = window
        part = self.weights[r0:r1, c0:c1]
        rows, columns = (bin_edges(size, min(size, bins)) for size, bins in zip(part.shape, shape, strict=True))
        if 0 in part.shape:
            return np.zeros((len(rows) - 1, len(columns) - 1), np.uint32)
        sums = np.add.reduceat(np.add.reduceat(part, columns[:-1], axis=1, dtype=np.float64), rows[:-1], axis=0)
        return np.where(sums > 0, np.maximum(1, np.rint(sums / self.each)), 0).astype(np.uint32)

    def value(self, row: int, column: int):
        """Return the weight at one position, None where it is zero."""
        weight = float(self.weights[row, column])
        return weight or None


@dataclass(frozen=True)
class ValueSource(WeightSource):
    """A dense matrix of values of any sign: a pixel shows their mean magnitude, the read-out the value itself.

    Parameters
    ----------
    weights : float32 (m, n), the magnitudes, as `of` makes them.
    values : real or complex (m, n).
    """

    values: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    unit: str = field(default="magnitude", init=False)

    @classmethod
    def of(cls, values: np.ndarray, **labels) -> "ValueSource":
        """Return the source of real or complex values (m, n), finite; ``labels`` as for `WeightSource`."""
        values = np.asarray(values)
        if values.ndim != 2 or not np.isfinite(values).all():
            raise ValueError(f"ValueSource.of: values must be a finite matrix, got shape {values.shape}")
        return cls(weights=np.abs(values).astype(np.float32), values=values, **labels)

    def value(self, row: int, column: int):
        """Return the value at one position, None where it is zero."""
        return self.values[row, column].item() or None
