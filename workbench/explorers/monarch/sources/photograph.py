"""A photograph in grey values as a matrix."""

from importlib.util import find_spec

import numpy as np

from workbench.data import images
from workbench.explorers.monarch.source import MatrixKind

SIDE = 256


def load(settings) -> np.ndarray:
    """Return the middle of a photograph of an astronaut in grey values from 0 to 1: (256, 256)."""
    rgb = images.picture("astronaut").astype(float) / 255
    grey = rgb @ (0.299, 0.587, 0.114)
    top, left = ((side - SIDE) // 2 for side in grey.shape)
    return grey[top : top + SIDE, left : left + SIDE]


SOURCE = MatrixKind(
    key="photograph",
    title="A photograph",
    load=load,
    told=lambda settings: "a photograph in grey values",
    remark=(
        "Neighbouring lines of a picture are alike: low rank takes the whole picture, a Monarch part every few lines "
        "of a strip. Compare the errors; both are small next to those of weights."
    ),
    knobs=(),
    missing=lambda: "" if find_spec("skimage") else "scikit-image is not installed; choose another matrix.",
)
