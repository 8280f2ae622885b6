"""The Hadamard transform by Kronecker products, where the size is a power of two."""

import numpy as np
from scipy import linalg

from workbench.explorers.monarch.source import MatrixKind


def load(settings) -> np.ndarray:
    """Return the orthogonal matrix; ValueError where the size is no power of two."""
    n = int(settings["n"])
    if n & (n - 1):
        raise ValueError(f"The Hadamard matrix is made for powers of two, and {n} is none: choose another size.")
    return linalg.hadamard(n) / n**0.5


SOURCE = MatrixKind(
    key="hadamard",
    title="Hadamard transform",
    load=load,
    told=lambda settings: "the Hadamard transform",
    remark=(
        "A Kronecker product of smaller ones, so a Monarch matrix is the transform itself without any "
        "permutation; all singular values of the whole are equal, and low rank fails."
    ),
)
