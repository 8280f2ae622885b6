"""What one query reads: the regions of a sequence, or the pixels of a picture, as plain arrays."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from workbench.models.attention import combiner
from workbench.models.attention.favit_reading import Reading, readings
from workbench.models.attention.favit_windows import window_source_index

__all__ = ["PixelMaps", "pixel_maps", "regions_of"]


@dataclass(frozen=True)
class PixelMaps:
    """What one pixel reads under several patterns of about the same cost.

    Parameters
    ----------
    readings : true attention, its window, the keys fused near and far, and the global group.
    fused : name of the reading whose keys are shown.
    sources : (n,) pixels behind each of those keys.
    """

    readings: tuple[Reading, ...]
    fused: str
    sources: tuple[np.ndarray, ...]


def pixel_maps(given, row, *, window, dilation, square) -> PixelMaps:
    """Return what pixel ``row`` of a picture reads; beside fused neighbours (dilation 1) stand fused far pixels."""
    height, width = given.grid
    tokens = given.q[0, 0].numpy()
    coarse = dilation if dilation > 1 else 8
    found = readings(tokens, height, width, row, window=window, dilation=coarse, sr=square)
    sources = window_source_index(height, width, window, dilation).numpy().T  # (M*M, n_w)
    return PixelMaps(found, f"FaSA, dilation {dilation}", tuple(np.unique(pixels) for pixels in sources))


def regions_of(row, length, *, pattern, seg_len, causal) -> list[np.ndarray]:
    """Return the positions of every region that Combiner summarises for query ``row``, the nearest last."""
    return _regions(pattern, length, seg_len, causal)[row]


@lru_cache(maxsize=2)
def _regions(pattern, length, seg_len, causal):
    return combiner.support(pattern, length, seg_len, causal=causal)["regions"]
