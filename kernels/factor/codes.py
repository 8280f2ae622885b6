"""Sparse codes of many vectors: which atoms of a dictionary each takes, and how much of them."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from kernels.check import FLOATS, as_int, check_array

__all__ = ["SparseCodes"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseCodes:
    """At most ``s`` atoms of ``k`` for each of n vectors, in rows of one length.

    Parameters
    ----------
    indices : int32 (n, s), the atoms of a row, all different, in the order in which they were chosen.
    values : float32 or float64 (n, s), how much of each; 0 behind the atoms that a vector takes.
    counts : int32 (n,), how many atoms each vector takes, from 0 to s.
    atoms : k, how many there are.

    Raises
    ------
    TypeError : arrays of another kind.
    ValueError : shapes do not fit, an index or a count is out of range, an atom stands twice in a row, or a value
        behind the count is not 0.
    """

    indices: np.ndarray
    values: np.ndarray
    counts: np.ndarray
    atoms: int

    def __post_init__(self):
        name = "SparseCodes"
        check_array(self.indices, function=name, name="indices", dtypes=(np.int32,))
        check_array(self.values, function=name, name="values", dtypes=FLOATS)
        check_array(self.counts, function=name, name="counts", dtypes=(np.int32,))
        k = as_int(self.atoms, function=name, name="atoms", low=0)
        if self.indices.ndim != 2 or self.values.shape != self.indices.shape:
            raise ValueError(
                f"{name}: indices and values must both be (n, s), got {self.indices.shape} and {self.values.shape}"
            )
        n, s = self.indices.shape
        if self.counts.shape != (n,):
            raise ValueError(f"{name}: counts must be ({n},), one for each row of indices, got {self.counts.shape}")
        check_codes(self.indices, self.counts, k, function=name)
        if self.values[np.arange(s) >= self.counts[:, None]].any():
            raise ValueError(f"{name}: values behind the count of their row must be 0")
        ordered = np.sort(self.indices, axis=1)
        if (ordered[:, 1:] == ordered[:, :-1]).any():
            raise ValueError(f"{name}: indices must name an atom at most once in a row")

    @property
    def nnz(self) -> int:
        """How many atoms all vectors take together."""
        return int(self.counts.sum())

    def as_csr(self) -> sparse.csr_array:
        """Return the codes as a matrix (n, k), one row for each vector, its columns in rising order."""
        n, s = self.indices.shape
        order = np.argsort(np.where(np.arange(s) < self.counts[:, None], self.indices, self.atoms), axis=1)
        taken = np.arange(s) < self.counts[:, None]
        indices = np.take_along_axis(self.indices, order, 1)[taken]
        indptr = np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)]).astype(np.int32)
        return sparse.csr_array((np.take_along_axis(self.values, order, 1)[taken], indices, indptr),
                                shape=(n, self.atoms))  # fmt: skip


def check_codes(indices: np.ndarray, counts: np.ndarray, atoms: int, *, function: str) -> None:
    """Raise ValueError unless all indices are below ``atoms`` and all counts within a row: what loops rely on."""
    s = indices.shape[1]
    if indices.size and not 0 <= indices.min() <= indices.max() < atoms:
        raise ValueError(f"{function}: indices must be in [0, {atoms}), got {indices.min()} to {indices.max()}")
    if counts.size and not 0 <= counts.min() <= counts.max() <= s:
        raise ValueError(f"{function}: counts must be from 0 to {s}, got {counts.min()} to {counts.max()}")
