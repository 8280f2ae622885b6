"""The discrete cosine transform of type II, orthogonal."""

import numpy as np
from scipy import fft

from workbench.explorers.monarch.source import MatrixKind


def load(settings) -> np.ndarray:
    """Return the orthogonal matrix of the transform."""
    n = int(settings["n"])
    return fft.dct(np.eye(n), norm="ortho", axis=0)


SOURCE = MatrixKind(
    key="dct",
    title="Cosine transform (DCT-II)",
    load=load,
    told=lambda settings: "the cosine transform",
    remark=(
        "A product of Monarch matrices, not a single one: permuting the inputs helps, but spectra keep more than "
        "one bar. Low rank fails on every orthogonal matrix."
    ),
)
