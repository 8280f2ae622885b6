"""A sparse matrix as one bit for every place and its values row by row: the smallest form where half of them stay."""

from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from kernels.check import as_ints, check_array, is_canonical, unchangeable_copy

__all__ = ["BitmapRows"]

PLACES = 16  # a row's bits are padded to as many, which one register holds at most
SPARE = 16  # numbers behind the last value, which a register may read and does not use


@dataclass(frozen=True, eq=False, kw_only=True)
class BitmapRows:
    """The bits of each row, and its values in the order of their columns.

    Arrays are copied, and nobody can write to the copies: kernels trust them. ``from_csr`` makes one.

    Parameters
    ----------
    values : float32 (nnz,), row by row, by rising columns.
    bits : uint8 (m, bytes), column j of a row at bit j mod 8 of byte j div 8; whole multiples of 16 columns, and no bit
        behind the last column.
    shape : (m, k).

    Attributes
    ----------
    starts : int64 (m + 1,), where the values of each row begin; counted from the bits.
    values_and_spare : the values, and zeros behind them which a kernel may read.

    Raises
    ------
    TypeError : arrays of another kind.
    ValueError : shapes do not fit, a bit behind the last column, or not as many values as bits.

    Source
    ------
    A bitmap, as old as sparse matrices; its bits are those of `kernels.formats.storage.bitmap_bits`.
    """

    values: np.ndarray
    bits: np.ndarray
    shape: tuple[int, int]
    starts: np.ndarray = field(init=False)
    values_and_spare: np.ndarray = field(init=False)

    def __post_init__(self):
        name = "BitmapRows"
        m, k = as_ints(self.shape, 2, function=name, name="shape", low=0)
        check_array(self.values, function=name, name="values", dtypes=(np.float32,))
        check_array(self.bits, function=name, name="bits", dtypes=(np.uint8,))
        width = -(-k // PLACES) * PLACES // 8
        if self.values.ndim != 1 or self.bits.shape != (m, width):
            raise ValueError(
                f"{name}: values must be one-dimensional and bits ({m}, {width}) for shape {m} x {k}, got "
                f"{self.values.shape} and {self.bits.shape}"
            )
        marks = np.unpackbits(self.bits, axis=1, bitorder="little")
        if marks[:, k:].any():
            raise ValueError(f"{name}: bits must be 0 behind the last column, {k}")
        starts = np.concatenate([[0], np.cumsum(marks.sum(axis=1, dtype=np.int64))])
        if starts[-1] != len(self.values):
            raise ValueError(f"{name}: values must be as many as the {starts[-1]} bits that are set, got "
                             f"{len(self.values)}")  # fmt: skip
        padded = unchangeable_copy(np.concatenate([self.values, np.zeros(SPARE, np.float32)]))
        object.__setattr__(self, "values", padded[: len(self.values)])
        object.__setattr__(self, "bits", unchangeable_copy(self.bits).reshape(m, width))
        object.__setattr__(self, "starts", unchangeable_copy(starts))
        object.__setattr__(self, "values_and_spare", padded)
        object.__setattr__(self, "shape", (m, k))

    @classmethod
    def from_csr(cls, a) -> "BitmapRows":
        """Pack a CSR matrix of float32 with strictly rising columns; explicit zeros stay entries.

        Raises
        ------
        TypeError : not CSR, or not float32.
        ValueError : malformed, or columns of a row that do not rise (``sum_duplicates`` and ``sort_indices`` help).
        """
        a, rising = is_canonical(a, function="BitmapRows.from_csr", name="a", dtypes=(np.float32,))
        if not rising:
            raise ValueError(
                "BitmapRows.from_csr: a must have strictly rising columns in each row; call a.sum_duplicates()"
            )
        m, k = a.shape
        marks = np.zeros((m, -(-k // PLACES) * PLACES), np.uint8)
        marks[np.repeat(np.arange(m), np.diff(a.indptr)), a.indices] = 1
        return cls(values=a.data, bits=np.packbits(marks, axis=1, bitorder="little"), shape=a.shape)

    @property
    def nnz(self) -> int:
        """How many entries are stored."""
        return len(self.values)

    @property
    def nbytes(self) -> int:
        """Bytes that the kernel reads: values, bits and where rows begin."""
        return self.values.nbytes + self.bits.nbytes + self.starts.nbytes

    def as_csr(self) -> sparse.csr_array:
        """Return the matrix as CSR."""
        marks = np.unpackbits(self.bits, axis=1, bitorder="little")
        return sparse.csr_array((self.values.copy(), np.nonzero(marks)[1].astype(np.int32), self.starts.copy()),
                                shape=self.shape)  # fmt: skip
