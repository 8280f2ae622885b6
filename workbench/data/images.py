"""Real pictures that come with Python packages: three photographs and handwritten digits.

The photographs are scikit-image's, the digits scikit-learn's (Alpaydin and Kaynak 1998, UCI).
"""

import gzip
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

PICTURES = {"astronaut": "Astronaut", "coffee": "Coffee cup", "chelsea": "Chelsea the cat"}
FEATURES = ("red", "green", "blue", "spread of red", "spread of green", "spread of blue", "edges across", "edges down")
TRAINING_DIGITS = 1437


@cache
def picture(name: str) -> np.ndarray:
    """Return a photograph, uint8 (height, width, 3).

    Raises
    ------
    ValueError : no such picture. ModuleNotFoundError : scikit-image is not installed.
    """
    if name not in PICTURES:
        raise ValueError(f"picture: name must be one of {', '.join(PICTURES)}; got {name!r}")
    try:
        from skimage import data
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "picture: scikit-image is not installed; pip install 'sparse-workbench[models]'"
        ) from None
    return np.asarray(getattr(data, name)())


def patches(rgb: np.ndarray, side: int) -> np.ndarray:
    """Cut the middle square of a picture into side x side patches, (side, side, pixels per patch, 3) float32 in [0, 1].

    Raises
    ------
    ValueError : the picture is smaller than ``side``.
    """
    height, width = rgb.shape[:2]
    each = min(height, width) // side
    if side < 1 or each < 1:
        raise ValueError(f"patches: side must be from 1 to {min(height, width)}, got {side}")
    top, left = (height - each * side) // 2, (width - each * side) // 2
    square = rgb[top : top + each * side, left : left + each * side].astype(np.float32) / 255
    cut = square.reshape(side, each, side, each, 3).swapaxes(1, 2)
    return cut.reshape(side, side, each * each, 3)


def patch_features(rgb: np.ndarray, side: int) -> np.ndarray:
    """Describe every patch by eight numbers (`FEATURES`), each of mean 0 and deviation 1: float32 (side * side, 8)."""
    cut = patches(rgb, side)
    mean = cut.mean(2)
    grey = mean.mean(2)
    edges = np.stack([np.abs(np.gradient(grey, axis=axis)) for axis in (1, 0)], -1)
    found = np.concatenate([mean, cut.std(2), edges], -1).reshape(side * side, -1)
    return ((found - found.mean(0)) / np.maximum(found.std(0), 1e-6)).astype(np.float32)


@cache
def digits() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return 1,437 handwritten digits to train on and 360 to test on: images float32 (n, 8, 8) in [0, 1], labels int64.

    The split is a fixed permutation.

    Raises
    ------
    ModuleNotFoundError : scikit-learn is not installed.
    """
    package = find_spec("sklearn")  # its import alone takes a second and loads all of scipy.stats
    if package is None:
        raise ModuleNotFoundError("digits: scikit-learn is not installed; pip install 'sparse-workbench[models]'")
    (folder,) = package.submodule_search_locations
    with gzip.open(Path(folder) / "datasets" / "data" / "digits.csv.gz", "rt") as table:
        stored = np.loadtxt(table, delimiter=",", dtype=np.float32)  # 64 grey values from 0 to 16, and the label
    order = np.random.default_rng(0).permutation(len(stored))
    images, labels = stored[order, :64].reshape(-1, 8, 8) / 16, stored[order, 64].astype(np.int64)
    first, rest = slice(None, TRAINING_DIGITS), slice(TRAINING_DIGITS, None)
    return (images[first], labels[first]), (images[rest], labels[rest])


def landscape(side=224) -> np.ndarray:
    """Draw a landscape (side, side, 3) uint8: sky, sun, hills, and one red house on either hand."""
    y, x = np.mgrid[0:side, 0:side] / side
    rgb = np.stack([0.45 + 0.3 * y, 0.65 + 0.2 * y, 0.95 - 0.1 * y], axis=-1)
    rgb[(x - 0.72) ** 2 + (y - 0.2) ** 2 < 0.011] = (1.0, 0.85, 0.3)
    rgb[y > 0.58 + 0.1 * np.sin(6 * x + 1)] = (0.35, 0.55, 0.35)
    rgb[y > 0.72 + 0.06 * np.sin(9 * x)] = (0.25, 0.42, 0.2)
    for left in (0.12, 0.7):
        rgb[(abs(x - left - 0.08) < 0.08) & (y > 0.66) & (y < 0.84)] = (0.75, 0.2, 0.15)
        rgb[(abs(x - left - 0.08) < (y - 0.54) * 0.9) & (y > 0.54) & (y <= 0.66)] = (0.3, 0.2, 0.2)
        rgb[(abs(x - left - 0.08) < 0.025) & (y > 0.75) & (y < 0.84)] = (0.95, 0.9, 0.6)
    return np.rint(255 * rgb.clip(0, 1)).astype(np.uint8)
