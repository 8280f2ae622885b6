"""The discrete Fourier transform, unitary."""

import numpy as np
from scipy import linalg

from workbench.explorers.monarch.source import MatrixKind


def load(settings) -> np.ndarray:
    """Return the matrix of the transform."""
    n = int(settings["n"])
    return linalg.dft(n, scale="sqrtn")


SOURCE = MatrixKind(
    key="dft",
    title="Fourier transform",
    load=load,
    told=lambda settings: "the Fourier transform",
    remark=(
        "With its inputs permuted a Monarch matrix is the transform itself: each spectrum has one bar. In their "
        "order every spectrum is flat, and low rank is no better, since all singular values of the whole are "
        "equal."
    ),
)
