"""Keys and values drawn at random: channels with an offset, a few large ones, and a part that all tokens share."""

import numpy as np

from widgets.controls.knob import Knob
from workbench.explorers.kv_cache.source import CacheKind

HEADS, WIDTH = 4, 64
TOKENS = Knob("drawn_tokens", "Tokens", 256, 64, 2048, 64)
LARGE = Knob("large", "Large channels", 2, 0, 16, 1, help="Key channels of each head that are ten times as large.")
SHARED = Knob("shared", "Shared part", 1.0, 0.0, 3.0, 0.1, help="Size of a part of rank 4 that all tokens share.")
SEED = Knob("seed", "Seed", 1, 0, 999, 1, help="Draws another cache.")


def load(settings):
    """Draw q, k and v (1, 4, tokens, 64)."""
    rng, shape = np.random.default_rng(settings["seed"]), (1, HEADS, settings["drawn_tokens"], WIDTH)
    q, k, v = (rng.standard_normal(shape, np.float32) for _ in range(3))
    low = rng.standard_normal((*shape[:3], 4), np.float32) @ rng.standard_normal((1, HEADS, 4, WIDTH), np.float32)
    k += np.float32(settings["shared"] / 2) * low + rng.standard_normal((1, HEADS, 1, WIDTH), np.float32)
    k[..., rng.permutation(WIDTH)[: settings["large"]]] *= 10
    v[rng.random(shape, np.float32) < 2e-3] *= 8
    return q, k, v


SOURCE = CacheKind(
    key="generated",
    title="Drawn at random",
    load=load,
    told=lambda settings: "keys and values drawn at random",
    kind="counted",
    knobs=(TOKENS, LARGE, SHARED, SEED),
)
