"""N:M sparsity: of every M neighbouring inputs of a row, at most N weights are not zero."""

from dataclasses import dataclass

import numpy as np

from kernels.check import as_int, as_ints, check_array, unchangeable_copy

__all__ = ["NMPacked"]


@dataclass(frozen=True, eq=False)
class NMPacked:
    """A float32 matrix of which every group of ``m`` neighbours in a row keeps ``n``.

    Each group holds exactly n values; where fewer are not zero, others are kept as zeros. Arrays are copied, and nobody
    can write to the copies: kernels trust them.

    Parameters
    ----------
    values : float32 (rows, columns / m * n), group by group.
    positions : uint8, as many: each value's place in its group, rising strictly within a group.
    n, m : at least 1, n at most m, m at most 256.
    shape : (rows, columns); m divides the columns.
    """

    values: np.ndarray
    positions: np.ndarray
    n: int
    m: int
    shape: tuple[int, int]

    def __post_init__(self):
        rows, columns = as_ints(self.shape, 2, function="NMPacked", name="shape", low=0)
        n, m = _pattern(self.n, self.m, columns, "NMPacked")
        wanted = (rows, columns // m * n)
        for name, dtype in (("values", np.float32), ("positions", np.uint8)):
            found = getattr(self, name)
            check_array(found, function="NMPacked", name=name, dtypes=(dtype,))
            if found.shape != wanted:
                raise ValueError(
                    f"NMPacked: {name} has shape {found.shape}; {n}:{m} of {rows} x {columns} needs {wanted}"
                )
            object.__setattr__(self, name, unchangeable_copy(found).reshape(wanted))
        for name, value in (("n", n), ("m", m), ("shape", (rows, columns))):
            object.__setattr__(self, name, value)
        places = self.positions.reshape(-1, n)
        if (places >= m).any() or (places[:, 1:] <= places[:, :-1]).any():
            raise ValueError(f"NMPacked: positions must lie in [0, {m}) and rise strictly within each group of {n}")

    def __reduce__(self):
        """Copy and unpickle through the checks, since NumPy would make the arrays writeable."""
        return type(self), (self.values, self.positions, self.n, self.m, self.shape)

    @classmethod
    def from_dense(cls, w, n, m) -> "NMPacked":
        """Pack a dense matrix that has the pattern already; pruning it is another matter.

        Parameters
        ----------
        w : (rows, columns) float32 with at most n values other than zero in every m neighbours of a row; -0.0 is zero.
        n, m : see the class.

        Raises
        ------
        TypeError : another dtype.
        ValueError : not two-dimensional, m does not divide the columns, or a group with more than n values.
        """
        check_array(w, function="NMPacked.from_dense", name="w", dtypes=(np.float32,))
        if w.ndim != 2:
            raise ValueError(f"NMPacked.from_dense: w must have two dimensions, got {w.ndim}")
        n, m = _pattern(n, m, w.shape[1], "NMPacked.from_dense")
        groups = w.reshape(-1, m)
        full = np.count_nonzero(groups, axis=1) > n
        if full.any():
            row, group = divmod(int(full.argmax()), w.shape[1] // m)
            raise ValueError(
                f"NMPacked.from_dense: w[{row}, {group * m}:{(group + 1) * m}] has more than {n} values other than "
                "zero; prune it first"
            )
        kept = np.argsort(groups == 0, axis=1, kind="stable")[:, :n]
        kept.sort(axis=1)
        packed = (w.shape[0], w.shape[1] // m * n)
        values = np.take_along_axis(groups, kept, axis=1).reshape(packed)
        return cls(values, kept.astype(np.uint8).reshape(packed), n, m, w.shape)

    def to_dense(self) -> np.ndarray:
        """Return the matrix, float32 (rows, columns)."""
        out = np.zeros((self.values.size // self.n, self.m), np.float32)
        np.put_along_axis(
            out, self.positions.reshape(-1, self.n).astype(np.intp), self.values.reshape(-1, self.n), axis=1
        )
        return out.reshape(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of values and positions: 5 for each value kept."""
        return self.values.nbytes + self.positions.nbytes


def _pattern(n, m, columns, function):
    m = as_int(m, function=function, name="m", low=1, high=256)
    n = as_int(n, function=function, name="n", low=1, high=m)
    if columns % m:
        raise ValueError(f"{function}: m must divide the {columns} columns, got {m}; pad the matrix with zeros")
    return n, m
