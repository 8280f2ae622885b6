"""All blocks kept, under every order: the result is dense attention's, and later keys do not matter."""

import numpy as np
import torch

from workbench.data.attention_patterns import heavy_hitters
from workbench.models.attention.dense_attention import dense_attention
from workbench.models.attention.pbs_attn import PERMUTATIONS, pbs_attention
from workbench.paper import row
from workbench.papers.pbs_attn.inputs import ENCODER, GENERATOR, NAMES, minilm_heads


def exactness(size, seed, report):
    """Keep every block under every order: the result must be dense attention's."""
    tokens = 256 if size == "tiny" else 512
    heads = [(ENCODER, *found[1:]) for found in minilm_heads(1, layers=(2,), size=tokens, windows=1)]
    length = {"tiny": 300, "small": 1000, "full": 4000}[size]
    q, k = heavy_hitters(length, seed=seed)
    v = np.random.default_rng(seed).standard_normal(q.shape, np.float32)
    heads.append((f"{GENERATOR}, {length} tokens", q, k, v))
    rows = []
    for place, (title, q, k, v) in enumerate(heads):
        wanted = dense_attention(*map(torch.as_tensor, (q, k, v)))
        for order in PERMUTATIONS:
            report(place / len(heads), f"{NAMES[order]}, {title}")
            how = {"block_size": 16, "segment_size": 64, "permute": order, "seed": seed}
            out, _ = pbs_attention(q, k, v, threshold=1.0, **how)
            error = float((out - wanted).abs().max() / wanted.abs().max())
            rows.append(row("largest error", error, "relative", "measured", input=title, order=NAMES[order]))
    rows.append(row("largest error", _future_leak(seed), "relative", "measured",
                    input="keys and values after p changed, rows up to p", order=NAMES["keys"]))  # fmt: skip
    return rows


def _future_leak(seed, length=512, p=300):
    """Return how much rows up to p change when keys and values after p do, mask and order held."""
    q, k = heavy_hitters(length, seed=seed)
    v = np.random.default_rng(seed).standard_normal(q.shape, np.float32)
    out, mask = pbs_attention(q, k, v, block_size=16, segment_size=64, threshold=0.5)
    k[:, :, p + 1 :] += 3
    v[:, :, p + 1 :] -= 3
    again, _ = pbs_attention(q, k, v, block_size=16, segment_size=64, mask=mask)
    return float((out - again)[:, :, : p + 1].abs().max())
