"""What compression costs a language model as it decodes: how its predictions drift with the position."""

from itertools import pairwise

import numpy as np
import torch

from workbench.data import text
from workbench.models.compression.gear import WHOLE, GearConfig
from workbench.models.compression.gear_decoding import decoded_logits
from workbench.models.language import tiny_lm
from workbench.paper import row
from workbench.papers.gear.variants import GEAR, LOW_RANK, OUTLIERS, PLAIN, config

PROMPT = 64
SETTINGS = {  # windows of held-out text, and tokens of each
    "tiny": {"windows": 1, "tokens": 136},
    "small": {"windows": 2, "tokens": 512},
    "full": {"windows": 4, "tokens": 2048},
}
METHODS = (
    ("kcvt", 2, PLAIN), ("kcvt", 2, GEAR), ("kivi", 2, PLAIN), ("kivi", 2, LOW_RANK), ("kivi", 2, OUTLIERS),
    ("kivi", 2, GEAR), ("kivi", 3, PLAIN), ("kivi", 3, GEAR), ("kivi", 4, PLAIN), ("kivi", 4, GEAR),
)  # fmt: skip
EDGES = (64, 128, 256, 512, 1024, 2048)
ALL = "all"


def drift(size, seed, report):
    """Decode held-out text token by token over every cache, and compare with the cache in half precision."""
    s = SETTINGS[size]
    methods = METHODS[2:6:3] if size == "tiny" else METHODS
    model = tiny_lm.load()
    told, _ = text.sample(8 * s["tokens"] * s["windows"], ("documentation", "library"))
    ids = model.encode(told)[0, : s["tokens"] * s["windows"]].reshape(s["windows"], s["tokens"])
    report(0.0, "the cache in half precision")
    exact, held = _predictions(model, ids, GearConfig(bits=WHOLE, seed=seed))
    rows = _bytes(held, {"backbone": "none", "bits": WHOLE, "method": "half precision"})
    for place, (backbone, bits, method) in enumerate(methods):
        report((place + 1) / (len(methods) + 1), f"{bits} bits, {backbone}, {method}")
        found, held = _predictions(model, ids, config(backbone, bits, method))
        labels = {"backbone": backbone, "bits": bits, "method": method}
        rows += _bytes(held, labels) + _drift(exact, found, ids, labels)
    return rows


def _predictions(model, ids, cfg):
    """Return log probabilities of the tokens after the prompt, and the caches at the end."""
    logits, held = decoded_logits(model, ids[:, :-1], PROMPT, cfg)
    return torch.log_softmax(logits.float(), -1), held


def _drift(exact, found, ids, labels):
    """KL divergence from the exact predictions and gap of the cost, for every window, by position and over all."""
    kl = (exact.exp() * (exact - found)).sum(-1).numpy()
    target = ids[:, PROMPT:, None]
    gap = (exact - found).gather(-1, target)[..., 0].numpy()
    last = PROMPT + kl.shape[1]
    spans = [(low, min(high, last)) for low, high in pairwise(EDGES) if low < last]
    named = [(f"{low:,} to {high - 1:,}", low, high) for low, high in spans] + [(ALL, PROMPT, last)]
    rows = []
    for window in range(len(ids)):
        for positions, low, high in named:
            part = slice(low - PROMPT, high - PROMPT)
            own = labels | {"window": window, "positions": positions}
            rows.append(row("KL to the exact cache", float(np.mean(kl[window, part])), "nats", "measured", **own))
            rows.append(row("gap of the cost per token", float(np.mean(gap[window, part])), "nats", "measured", **own))
    return rows


def _bytes(held, labels):
    parts = held.nbytes(breakdown=True)
    rows = [row(f"bytes, {part}", size, "bytes", "counted", **labels) for part, size in parts.items()]
    return [*rows, row("bytes, cache", sum(parts.values()), "bytes", "counted", **labels)]
