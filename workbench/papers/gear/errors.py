"""How far compressed keys, values and what attention makes of them are from the exact ones, layer by layer."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import torch

from kernels.factor.power_iteration import power_iteration_lowrank
from kernels.masks.outliers import extract_outliers
from workbench.data import text
from workbench.models.attention.dense_attention import dense_attention
from workbench.models.compression.gear import gear_compress
from workbench.models.language import minilm, tiny_lm
from workbench.paper import row
from workbench.papers.gear.variants import LOW_RANK, VARIANTS, config

ENCODER, LM, GENERATED = "MiniLM, 512 tokens", "tiny language model, 1,024 tokens", "generated keys and values"
SHARED = "with one low-rank part for all heads, of as many bytes"
PARTS = ("key error", "value error", "attention output error")
SETTINGS = {  # windows of text, tokens of one, layers, bits
    "tiny": {"windows": 1, "tokens": 128, "layers": 1, "bits": (2,), "generated": 128},
    "small": {"windows": 1, "tokens": 512, "layers": 6, "bits": (2, 4), "generated": 512},
    "full": {"windows": 4, "tokens": 1024, "layers": 6, "bits": (2, 3, 4), "generated": 4096},
}


def errors(size, seed, report):
    """Compress every layer's keys and values with every method and compare with the exact ones."""
    s, rows = SETTINGS[size], []
    inputs = _inputs(s, seed)
    for place, (name, layer, causal, (q, k, v), kind) in enumerate(inputs):
        report(place / len(inputs), f"{name}, layer {layer}")
        labels = {"input": name, "layer": layer, "tokens": k.shape[2], "heads": k.shape[1], "width": k.shape[3]}
        exact = _attend(q, k, v, causal)
        for backbone in ("kivi", "kcvt"):
            for bits in s["bits"]:
                own = labels | {"backbone": backbone, "bits": bits}
                for method, cfg in _methods(backbone, bits, k.shape, seed).items():
                    rows += _errors(q, k, v, causal, exact, cfg, kind, own | {"method": method})
        if kind == "measured":
            rows += _structure(k, v, seed, labels)
    return rows


def generated(tokens, heads=8, width=128, seed=0):
    """Draw q, k and v (1, heads, tokens, width) like those of large models.

    Keys have channels with an offset, four of them ten times as large as the rest, and a part of rank 4 that all tokens
    share; one value in a thousand is ten times as large.
    """
    rng = np.random.default_rng(seed)
    shape = (1, heads, tokens, width)
    q, k, v = (rng.standard_normal(shape, np.float32) for _ in range(3))
    low = rng.standard_normal((1, heads, tokens, 4), np.float32) @ rng.standard_normal((1, heads, 4, width), np.float32)
    k += low + 2 * rng.standard_normal((1, heads, 1, width), np.float32)
    k[..., rng.choice(width, 4, replace=False)] *= 10
    v[rng.random(shape, np.float32) < 1e-3] *= 10
    return q, k, v


def _inputs(s, seed):
    """Return (name, layer, causal, (q, k, v), label of the numbers) of every layer."""
    found = []
    models = [(LM, tiny_lm.load(), s["tokens"], True)]
    if find_spec(minilm.PACKAGE):
        models.append((ENCODER, minilm.load(), min(s["tokens"], 512), False))
    for name, model, tokens, causal in models:
        told, _ = text.sample(8 * tokens * s["windows"])
        ids = model.encode(told)[0, : tokens * s["windows"]].reshape(s["windows"], tokens)
        for layer in range(s["layers"]):
            qkv = tuple(x.contiguous().numpy() for x in model.qkv(ids, layer))
            found.append((name, layer, causal, qkv, "measured"))
    found.append((GENERATED, 0, True, generated(s["generated"], seed=seed), "counted"))
    return found


def _methods(backbone, bits, shape, seed):
    found = {name: replace(config(backbone, bits, name), seed=seed) for name in VARIANTS}
    _, heads, n, d = shape
    rank = max(1, round(found[LOW_RANK].rank * heads * (n + d) / (n + heads * d)))
    shared = replace(found[LOW_RANK], lowrank_per_head=False, rank=min(rank, n, d))
    return found | {SHARED: shared}


def _errors(q, k, v, causal, exact, cfg, kind, labels):
    k_hat, v_hat = (gear_compress(x, name, cfg).dense() for x, name in ((k, "key"), (v, "value")))
    pairs = ((k_hat, k), (v_hat, v), (_attend(q, k_hat, v_hat, causal), exact))
    return [row(part, _relative(*pair), "relative", kind, **labels) for part, pair in zip(PARTS, pairs, strict=True)]


def _structure(k, v, seed, labels):
    """Say what the corrections find: how far the filter narrows ranges, and how much a rank of 4 takes of the error."""
    rows = []
    for name, x, axis in (("keys", k, 2), ("values", np.swapaxes(v, 1, 2).reshape(v.shape[0], v.shape[2], -1), -1)):
        filled, _ = extract_outliers(np.ascontiguousarray(x), 0.02, axis=axis)
        before = np.ptp(x, axis=axis)
        share = np.median(np.ptp(filled, axis=axis)[before > 0] / before[before > 0])
        rows.append(row(f"range of {name} after the filter", float(share), "x", "measured", share=0.02, **labels))
    plain = config("kivi", 2, "quantiser alone")
    error = k[:1].astype(np.float16).astype(np.float32) - gear_compress(k[:1], "key", plain).dense()
    a, b = power_iteration_lowrank(error, 4, seed=seed)
    left = _relative(a @ np.swapaxes(b, -1, -2), error)
    best = np.linalg.svd(error, compute_uv=False)
    rest = float(np.sqrt((best[..., 4:] ** 2).sum() / (best**2).sum()))
    for how, value in (("three passes of power iteration", left), ("truncated SVD", rest)):
        rows.append(row("left of the keys' error after rank 4", value, "x", "measured", how=how, **labels))
    return rows


def _attend(q, k, v, causal):
    q, k, v = (torch.from_numpy(np.ascontiguousarray(x)) for x in (q, k, v))
    return dense_attention(q, k, v, causal=causal).numpy()


def _relative(found, wanted):
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
