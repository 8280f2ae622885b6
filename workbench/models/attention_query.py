"""What one query reads: the regions of a sequence, or the pixels of a picture, as plain arrays."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from workbench.models import combiner, favit
from workbench.models.dense_attention import attention_weights

__all__ = ["PixelMaps", "pixel_maps", "regions_of"]


@dataclass(frozen=True)
class PixelMaps:
    """What one pixel reads under several patterns of about the same cost.

    Parameters
    ----------
    maps : title -> (rows, columns) weights that sum to 1.
    keys : (M, M) weights of the fused keys.
    sources : (n,) pixels behind one of them.
    costs : title -> keys that the query meets.
    """

    maps: dict[str, np.ndarray]
    keys: np.ndarray
    sources: np.ndarray
    costs: dict[str, int]


def pixel_maps(given, row, *, window, dilation, place) -> PixelMaps:
    """Return true attention of pixel ``row``, its Swin window, the fused keys near and far, and the global group.

    The global group's convolution is drawn as an average over squares of ``dilation`` pixels (8 where it is 1).
    """
    height, width = given.grid
    q = given.q[:, :, row : row + 1]
    dense = attention_weights(q, given.k, causal=False)[0, 0, 0].numpy()
    y, x = np.divmod(np.arange(height * width), width)
    mine = (y // window == row // width // window) & (x // window == row % width // window)
    near = attention_weights(q, given.k, causal=False, allowed=torch.from_numpy(mine))[0, 0, 0].numpy()
    coarse = dilation if dilation > 1 else 8
    maps, costs = {"true attention": dense, "window (Swin)": near}, {"true attention": len(y)}
    costs["window (Swin)"] = int(mine.sum())
    for step in (1, coarse):
        fusion = torch.from_numpy(favit.fusion_matrix(height, width, window, step).toarray()).float()
        weights = attention_weights(q, fusion @ given.k, causal=False)[0, 0, 0]
        title = f"fused keys, dilation {step}"
        maps[title], costs[title] = (weights @ fusion).numpy(), window * window
        if step == dilation:
            keys = weights.reshape(window, window).numpy()
    square = (y // coarse) * (-(-width // coarse)) + x // coarse
    average = torch.nn.functional.one_hot(torch.from_numpy(square)).float()
    average = (average / average.sum(0)).T
    weights = attention_weights(q, average @ given.k, causal=False)[0, 0, 0]
    title = f"global group, squares of {coarse}"
    maps[title], costs[title] = (weights @ average).numpy(), len(average)
    sources = favit.window_source_index(height, width, window, dilation)[:, min(place, window * window - 1)]
    shaped = {name: np.asarray(m, np.float32).reshape(height, width) for name, m in maps.items()}
    return PixelMaps(shaped, keys, np.unique(sources.numpy()), costs)


def regions_of(row, length, *, pattern, seg_len, causal) -> list[np.ndarray]:
    """Return the positions of every region that Combiner summarises for query ``row``, the nearest last."""
    return _regions(pattern, length, seg_len, causal)[row]


@lru_cache(maxsize=2)
def _regions(pattern, length, seg_len, causal):
    return combiner.support(pattern, length, seg_len, causal=causal)["regions"]
