"""The reader's own operands: one file each for A and B, where B is A until it is given."""

import itertools
from dataclasses import dataclass, field

import scipy.sparse as sp

from workbench.data.limits import VISITOR, Limits
from workbench.data.matrix_files import read_matrix, with_float_values
from workbench.explorers.spgemm.source import Pair

__all__ = ["FILE", "Uploads"]

FILE = "file"
_SERIAL = itertools.count()  # of all explorers, since results are kept for all of them


@dataclass(kw_only=True)
class Uploads:
    """The files that one reader has given: (name, matrix) of A and of B, and a number for this pair."""

    a: tuple[str, sp.csr_array] | None = None
    b: tuple[str, sp.csr_array] | None = None
    serial: int = field(default=-1)

    def take_a(self, name: str, source, limits: Limits = VISITOR) -> None:
        """Take A from bytes or a path; a second A starts a new pair, so that B is A again.

        Raises
        ------
        ValueError : the file cannot be read, is too large, or holds values that floats do not.
        """
        before, self.a = self.a, _read(name, source, limits)
        self.b = None if before else self.b
        self.serial = next(_SERIAL)

    def take_b(self, name: str, source, limits: Limits = VISITOR) -> None:
        """Take B; raises as `take_a`."""
        self.b = _read(name, source, limits)
        self.serial = next(_SERIAL)

    @property
    def names(self) -> list[str]:
        """Names of the files that there are, A's first."""
        return [given[0] for given in (self.a, self.b) if given]

    def pair(self) -> Pair:
        """Return A and B.

        Raises
        ------
        ValueError : there is no A yet, or A's columns are not as many as B's rows.
        """
        if self.a is None:
            raise ValueError("There is no file yet: choose a matrix A above the pictures.")
        (name, a), (other, b) = self.a, self.b or self.a
        (m, k), rows = a.shape, b.shape[0]
        if k != rows and self.b is None:
            raise ValueError(
                f"{name} is {m:,} x {k:,}, so it has no square: choose a matrix B with {k:,} rows as well."
            )
        if k != rows:
            raise ValueError(
                f"A and B do not fit: {name} has {k:,} columns, {other} has {rows:,} rows, and they must be equal. "
                "Choose another B."
            )
        told = f"{name}, squared" if self.b is None else f"{name} times {other}"
        return Pair(title=f"{told}, {m:,} rows", made_from=(FILE, self.serial), a=a, b=b)


def _read(name, source, limits):
    return name, with_float_values(name, read_matrix(source, limits, name))
