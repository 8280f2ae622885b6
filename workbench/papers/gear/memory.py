"""Bytes of caches of large models' shapes: counted by the formula, and on caches that were really made."""

import numpy as np

from workbench.models.compression.gear import GearCache, GearConfig
from workbench.models.compression.gear_memory import memory_bits_per_scalar
from workbench.paper import row
from workbench.papers.gear.errors import generated
from workbench.papers.gear.variants import GEAR, LOW_RANK, PLAIN, config

MODELS = {"LLaMA-2 7B": (32, 32, 128), "Mistral 7B": (32, 8, 128)}  # layers, heads of keys, channels of a head
TOKENS = (1024, 4096, 16384, 32768)
METHODS = (
    ("kivi", 2, PLAIN), ("kivi", 2, LOW_RANK), ("kivi", 2, GEAR), ("kivi", 3, PLAIN), ("kivi", 3, GEAR),
    ("kivi", 4, PLAIN), ("kivi", 4, GEAR), ("kcvt", 4, GEAR),
)  # fmt: skip
REAL = {"tiny": 192, "small": 1088, "full": 4160}  # tokens of the cache that is made


def memory(size, seed, report):
    """Count the bits of each cached number and the bytes of whole models, and make one cache to check."""
    rows = []
    for model, (layers, heads, d) in MODELS.items():
        for tokens in TOKENS:
            for backbone, bits, method in METHODS:
                cfg = config(backbone, bits, method)
                shares = [memory_bits_per_scalar(cfg, tokens, d, heads, kind=kind) for kind in ("key", "value")]
                labels = {"model": model, "tokens": tokens, "backbone": backbone, "bits": bits, "method": method}
                each = float(np.mean([share["total"] for share in shares]))
                held = 2 * layers * heads * d * (tokens + cfg.buffer) * each / 8
                rows.append(row("bits of a cached number", each, "bits per element", "counted", **labels))
                rows.append(row("cache over half precision", each / 16, "x", "counted", **labels))
                rows.append(row("bytes, whole cache", round(held), "bytes", "counted", **labels))
    tokens = REAL[size]
    report(0.5, f"a cache of {tokens:,} tokens")
    _, k, v = generated(tokens, heads=2, seed=seed)
    cache = GearCache(GearConfig())
    cache.prefill(k[:, :, :-32], v[:, :, :-32])
    cache.append(k[:, :, -32:], v[:, :, -32:])
    for part, found in cache.nbytes(breakdown=True).items():
        rows.append(row(f"bytes, {part}", found, "bytes", "counted", model="generated", tokens=tokens))
    return rows
