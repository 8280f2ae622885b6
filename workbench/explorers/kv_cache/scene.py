"""One layer's keys and values compressed with every method: arrays and numbers for the view."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from kernels.masks.outliers import extract_outliers
from widgets.figures.kv_cache.scene import METHODS, CacheScene, Drift
from workbench.models.compression.gear import GearCache, GearConfig, gear_compress

__all__ = ["VARIANTS", "cache_scene", "config"]

VARIANTS = {
    "quantiser": {"rank": 0, "rank_gen": 0, "sparsity": 0.0},
    "low rank": {"sparsity": 0.0},
    "outliers": {"rank": 0, "rank_gen": 0},
    "both": {},
}
POINTS, TOGETHER = 16, 8  # of the curve of errors while decoding, and steps that a point is the mean of


def config(state: Mapping[str, Any]) -> GearConfig:
    """Return the settings of a state's cache with both corrections."""
    return GearConfig(
        backbone=state["backbone"], bits=state["bits"], group=int(state["group"]), rank=state["rank"],
        rank_gen=min(2, state["rank"]), sparsity=state["sparsity"] / 100, buffer=int(state["group"]) * state["buffer"],
    )  # fmt: skip


def cache_scene(state: Mapping[str, Any], qkv, title, kind, progress) -> CacheScene:
    """Compress q, k and v (1, heads, n, d) as a state says."""
    q, *kv = qkv
    kv = [x.astype(np.float16).astype(np.float32) for x in kv]
    cfg, place = config(state), ("key", "value").index(state["what"])
    x, what = kv[place], state["what"]
    head, channel = min(state["head"], x.shape[1] - 1), min(state["channel"], x.shape[3] - 1)
    blocks = {}
    for i, method in enumerate(METHODS):
        progress(0.1 + 0.1 * i, f"compressing: {method}")
        blocks[method] = gear_compress(x, what, replace(cfg, **VARIANTS[method])).blocks
    exact, both, one = x[0, head], blocks["both"], blocks["outliers"]
    gone = both.outlier_mask()[0, head]
    levels = np.where(gone, np.float32(0), both.levels()[0, head])
    low, sparse = both.low_rank()[0, head] if both.rank else np.zeros_like(exact), both.sparse()[0, head]
    error = exact - one.dense()[0, head]
    before, after, steps = _channel(x, what, head, channel, cfg, blocks)
    progress(0.5, "decoding")
    held, drift = _decoded(q, kv, cfg, state["prompt"], progress)
    return CacheScene(
        title=title[0].upper() + title[1:], what="keys" if what == "key" else "values", kind=kind, head=head,
        channel=channel, bits=cfg.bits, rank=cfg.rank, buffer=cfg.buffer, prompt=min(state["prompt"], x.shape[2]),
        exact=exact, levels=levels, low_rank=low, sparse=sparse, rest=exact - levels - low - sparse,
        spectrum=np.linalg.svd(error.astype(np.float64), compute_uv=False), before=before, after=after, steps=steps,
        errors={method: _relative(found.dense()[0, head], exact) for method, found in blocks.items()}, bytes=held,
        plain_bytes=2 * sum(part.size for part in kv), drift=drift,
    )  # fmt: skip


def _channel(x, what, head, channel, cfg, blocks):
    """Return one channel before and after the filter, and the levels of its first group without it and with it."""
    axis = 2 if what == "key" else -1
    rows = x if what == "key" else np.swapaxes(x, 1, 2).reshape(*x.shape[:1], x.shape[2], -1)
    filled = extract_outliers(np.ascontiguousarray(rows), cfg.sparsity, axis=axis)[0]
    if what == "value":
        filled = np.swapaxes(filled.reshape(x.shape[0], x.shape[2], x.shape[1], x.shape[3]), 1, 2)
    steps = []
    for method in ("quantiser", "outliers"):
        found = blocks[method]
        if found.by_channel:
            scale, zero = (float(part[0, 0, head, channel, 0]) for part in (found.scale, found.zero))
        else:
            apart = found.scale.shape[2] != 1
            at = (channel if apart else head * x.shape[3] + channel) // found.group
            scale, zero = (float(part[0, 0, head if apart else 0, 0, at]) for part in (found.scale, found.zero))
        steps.append(zero + scale * np.arange(2**cfg.bits))
    return x[0, head, :, channel], filled[0, head, :, channel], (steps[0], steps[1])


def _decoded(q, kv, cfg, prompt, progress):
    """Decode the tokens after the prompt over every method's cache; return bytes at the end, and errors on the way."""
    n = kv[0].shape[2]
    prompt = min(prompt, n)
    points = np.unique(np.linspace(prompt, n, POINTS + 1).astype(np.int64)[1:]) if n > prompt else np.zeros(0, np.int64)
    points = points[points > prompt]
    steps = [np.arange(max(low, high - TOGETHER) + 1, high + 1) for low, high in pairwise([prompt, *points.tolist()])]
    asked = np.concatenate([[], *steps]).astype(int).tolist()
    exact = {t: _attention(q[:, :, t - 1], *(x[:, :, :t] for x in kv)) for t in asked}
    held, errors = {}, {}
    for i, (method, left) in enumerate(VARIANTS.items()):
        cache, start, found = GearCache(replace(cfg, **left)), prompt, []
        cache.prefill(*(x[:, :, :prompt] for x in kv))
        for part in steps:
            progress(0.55 + 0.1 * i, f"decoding: {method}")
            outs = []
            for t in part.tolist():
                cache.append(*(x[:, :, start:t] for x in kv))
                outs.append(cache.attend(q[:, :, t - 1 : t])[:, :, 0])
                start = t
            found.append(_relative(np.stack(outs), np.stack([exact[t] for t in part.tolist()])))
        held[method], errors[method] = cache.nbytes(breakdown=True), np.array(found, np.float64)
    return held, Drift(tokens=points, error=errors)


def _attention(q, k, v):
    share = q.shape[1] // k.shape[1]
    k, v = (np.repeat(x, share, axis=1).astype(np.float64) for x in (k, v))
    scores = np.einsum("bhd,bhtd->bht", q, k) / q.shape[-1] ** 0.5
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bht,bhtd->bhd", weights / weights.sum(-1, keepdims=True), v)


def _relative(found, wanted):
    return float(np.linalg.norm(found - wanted) / max(np.linalg.norm(wanted), 1e-30))
