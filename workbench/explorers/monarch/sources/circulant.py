"""A circular convolution with a filter drawn at random."""

import numpy as np
from scipy import linalg

from workbench.explorers.monarch.source import MatrixKind


def load(settings) -> np.ndarray:
    """Return the matrix of the convolution."""
    n = int(settings["n"])
    return linalg.circulant(np.random.default_rng(1).standard_normal(n))


SOURCE = MatrixKind(
    key="circulant",
    title="Convolution (circulant)",
    load=load,
    told=lambda settings: "a circular convolution",
    remark=(
        "A convolution is a product of two transforms, and each of them is a Monarch matrix; one alone comes no "
        "nearer than to a random matrix."
    ),
)
