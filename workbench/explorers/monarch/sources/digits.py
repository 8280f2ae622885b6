"""The covariance of pictures of handwritten digits."""

from importlib.util import find_spec

import numpy as np

from workbench.data import images
from workbench.explorers.monarch.source import MatrixKind


def load(settings) -> np.ndarray:
    """Return the covariance of the 64 grey values, about their mean: (64, 64)."""
    pictures = np.concatenate([part for part, _ in images.digits()]).reshape(-1, 64)
    return np.cov(pictures.astype(float).T)


SOURCE = MatrixKind(
    key="digits",
    title="Covariance of digits",
    load=load,
    told=lambda settings: "the covariance of 8 x 8 pictures of digits",
    remark=(
        "Pictures of digits vary in few ways, so that the covariance is near a matrix of low rank: low rank wins. The "
        "parts are pairs of picture rows and columns, and not of rank one."
    ),
    knobs=(),
    missing=lambda: "" if find_spec("sklearn") else "scikit-learn is not installed; choose another matrix.",
)
