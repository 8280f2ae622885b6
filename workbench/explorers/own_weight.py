"""A weight that a reader brings to an explorer: taken from a file or an array, within the limits of a page."""

import itertools

import numpy as np

from widgets.views.matrix_input import as_pattern
from workbench.data.limits import VISITOR
from workbench.data.matrix_files import read_matrix

__all__ = ["MOST_PLACES", "OwnWeight"]

MOST_PLACES = 2**21
LARGEST = 65_504  # of half precision
_SERIAL = itertools.count()  # of all explorers, since weights are kept for all of them


class OwnWeight:
    """The weight that one reader has given, with a number for it, since it is kept among those of all readers."""

    def __init__(self):
        self.name, self.weight, self.serial = "", None, -1

    def take(self, name: str, matrix) -> None:
        """Take a matrix of any kind that views read; ValueError or TypeError says what is wrong with it."""
        found, _ = as_pattern(matrix, name)
        m, k = found.shape
        if m * k > MOST_PLACES:
            raise ValueError(
                f"{name} has {m:,} x {k:,} places, the limit of this view is {MOST_PLACES:,}; pass a part of it."
            )
        if found.dtype.kind == "c" or not np.all(np.abs(found.data) <= LARGEST):
            raise ValueError(f"{name} must hold real numbers up to {LARGEST:,} in magnitude; scale it.")
        self.name, self.weight, self.serial = name, found.toarray().astype(np.float32), next(_SERIAL)

    def receive(self, name: str, content: bytes) -> None:
        """Take a file from a page."""
        self.take(name, read_matrix(content, VISITOR, name))
