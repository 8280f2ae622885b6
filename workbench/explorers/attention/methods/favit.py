"""FaViT's attention in the explorer: keys fused across windows (Qin et al. 2023, arXiv 2312.08614)."""

import numpy as np
import torch

from widgets.controls.knob import Knob
from widgets.figures.attention_query import QueryMaps
from widgets.views.frame.story import Story
from workbench.explorers.attention.knobs import WINDOW
from workbench.explorers.attention.method import Method
from workbench.models.attention import favit
from workbench.models.attention.dense_attention import attention_weights
from workbench.models.attention.favit_windows import fusion_matrix, window_source_index
from workbench.models.attention.pixel_readings import pixel_readings

KNOBS = (
    WINDOW,
    Knob("dilation", "Dilation", 1, 1, 8, 1, help="Distance between neighbouring pixels of a window."),
    Knob("square", "Global group (pixels)", 8, 1, 8, scale="log2", help="A key is the mean of a square of this side."),
    Knob("place", "Fused key", 24, 0, 195, 1, help="The fused key whose pixels are marked below."),
)
A_PIXEL = 2251  # of the left house of the landscape


def _trace(given, s):
    return favit.trace(given.q, given.k, *given.grid, window=s["window"], dilation=s["dilation"])


def _query(given, seen):
    """What one pixel attends to; beside fused neighbours (dilation 1) stand fused far pixels."""
    height, width = given.grid
    tokens = given.q[0, 0].numpy()

    def of(row, s):
        window, dilation = s["window"], s["dilation"]
        far = dilation if dilation > 1 else 8
        read = pixel_readings(tokens, height, width, row, window=window, dilation=far, sr=s["square"])
        found = {each.name: each for each in read}
        fused = f"FaSA, dilation {dilation}"
        sources = window_source_index(height, width, window, dilation).numpy().T  # (M*M, n_w)
        keys = found[fused].weights
        return QueryMaps(
            row=row,
            picture=given.picture,
            maps={name: each.heat for name, each in found.items()},
            keys_met={name: each.keys for name, each in found.items()},
            reach={name: float(each.reached.mean()) for name, each in found.items()},
            fused=fused,
            keys=keys,
            place=min(s["place"], keys.size - 1),
            sources=tuple(np.unique(pixels) for pixels in sources),
        )

    return of


def _runs(given, s, seen):
    """Fuse keys and values over windows; attend to the window's number of keys."""
    fusion = fusion_matrix(*given.grid, s["window"], s["dilation"])

    def fused():
        k, v = (torch.from_numpy((fusion @ x[0, 0].numpy()).astype(np.float32))[None, None] for x in (given.k, given.v))
        return attention_weights(given.q, k, causal=False) @ v

    return {"fuse and attend": fused}


STORIES = (
    Story(
        "49 keys that reach the whole picture",
        {"input": "landscape", "row": 2251, "compare_with": "windows", "right": "effective"},
        "The query is one pixel of the left house. A window gives it 49 neighbours. As many fused keys cost the same "
        "and reach every pixel of the picture, as the maps below show. True attention finds the other house; a fused "
        "key mixes it with all that lies at the same place of other windows. Click a pixel to choose another query, "
        "or a fused key to see the pixels that it is made of.",
    ),
    Story(
        "Dilated windows",
        {"input": "landscape", "row": 2251, "dilation": 8, "left": "attention", "right": "effective"},
        "Dilated windows take every eighth pixel, so fewer pixels are reached, and they lie farther away. The "
        "channels are divided between both kinds of windows and the global group.",
    ),
)

METHOD = Method(
    key="favit",
    title="FaSA (FaViT)",
    knobs=KNOBS,
    trace=_trace,
    shows="effective",
    query=_query,
    runs=_runs,
    limits=lambda s: {"place": s["window"] ** 2 - 1},
    causal=False,
    pictures=True,
    opens={"input": "landscape", "row": A_PIXEL},
    stories=STORIES,
)
