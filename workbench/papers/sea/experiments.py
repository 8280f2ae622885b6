"""SEA's experiments: distil layers of real models, and time the sparse path."""

import statistics
import time
from dataclasses import dataclass

import torch

from workbench.data import text as texts
from workbench.judging import growth_exponent
from workbench.models.attention.dense_attention import attention_weights, dense_attention
from workbench.models.attention.performer import prefix_attention, relu_kernel, softmax_kernel
from workbench.models.attention.sea import (
    GROUPS,
    distill_layer,
    effective_attention,
    expand_cells,
    grouped_topk,
    oracle_estimate,
)
from workbench.models.attention.sea_training import (
    BATCH,
    LAYER,
    batched,
    cached_qkv,
    context_error,
    coverage,
    measure,
    new_estimator,
    windows,
)
from workbench.models.language import minilm, tiny_lm
from workbench.paper import row


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How much one size of the experiments does.

    Parameters
    ----------
    tokens, width, keys : T, cells per estimated row, keys per query and head.
    batches : different training batches of four windows.
    checkpoints : training steps after which the estimator is tried; the last one ends training.
    seeds : estimators trained, each from its own start.
    windows : held-out windows.
    ablation_steps : training of every variant.
    causal_tokens, causal_steps, causal_bytes : the language model's window, steps per layer, held-out text.
    lengths, rounds : sequence lengths of the timing, and how often each is timed.
    """

    tokens: int
    width: int
    keys: int
    batches: int
    checkpoints: tuple[int, ...]
    seeds: int
    windows: int
    ablation_steps: int
    causal_tokens: int
    causal_steps: int
    causal_bytes: int
    lengths: tuple[int, ...]
    rounds: int


SIZES = {
    "tiny": Setting(
        tokens=32,
        width=8,
        keys=4,
        batches=2,
        checkpoints=(0, 2),
        seeds=1,
        windows=2,
        ablation_steps=1,
        causal_tokens=32,
        causal_steps=1,
        causal_bytes=100,
        lengths=(32, 64),
        rounds=2,
    ),
    "small": Setting(
        tokens=96,
        width=32,
        keys=12,
        batches=16,
        checkpoints=(0, 30, 60),
        seeds=1,
        windows=6,
        ablation_steps=20,
        causal_tokens=128,
        causal_steps=15,
        causal_bytes=3_000,
        lengths=(256, 512, 1024),
        rounds=5,
    ),
    "full": Setting(
        tokens=128,
        width=32,
        keys=12,
        batches=64,
        checkpoints=(0, 60, 120, 180),
        seeds=3,
        windows=12,
        ablation_steps=120,
        causal_tokens=192,
        causal_steps=60,
        causal_bytes=12_000,
        lengths=(512, 1024, 2048, 4096, 8192, 16384),
        rounds=7,
    ),
}


# What is measured ----------------------------------------------------------------------------------------------------


def performer(q, k, v, projection):
    """Return linear attention by the estimator's own features, without anything after it."""
    fq, fk = softmax_kernel(q, projection, is_query=True), softmax_kernel(k, projection, is_query=False)
    return fq @ (fk.mT @ v) / (fq @ fk.sum(2).unsqueeze(-1))


def local_mask(t, keys, causal=False):
    """Return a window of nearby keys with the first (and the last) one, ``keys`` per query: bool (t, t)."""
    distance = torch.arange(t)[:, None] - torch.arange(t)
    mask = torch.zeros(t, t, dtype=torch.bool)
    mask[:, 0] = True
    if causal:
        return (mask | ((distance >= 0) & (distance < keys - 1))) & (distance >= 0)
    mask[:, -1] = True
    rank = (2 * distance.abs() - (distance > 0).long()).masked_fill(mask, 4 * t)
    nearest = rank.argsort(dim=1, stable=True)[:, : keys - 2]
    return mask.scatter(1, nearest, True)


def top_keys(weights, keys):
    """Return the mask of each query's heaviest keys, of equal ones the first: what an all-knowing estimate chooses."""
    best = weights.argsort(dim=-1, descending=True, stable=True)[..., :keys]
    return torch.zeros_like(weights, dtype=torch.bool).scatter(-1, best, True)


def embedding_cosine(attention, ids):
    """Return the mean cosine of sentence embeddings with one layer's attention replaced to those without."""
    model = minilm.load()
    with torch.no_grad():
        vectors = [model(ids).mean(1), model(ids, attention={LAYER: attention}).mean(1)]
    return float(torch.nn.functional.cosine_similarity(*vectors).mean())


# Distillation of an encoder's layer ----------------------------------------------------------------------------------


def distillation(size, seed, report):
    """Train estimators for one layer of the encoder and compare their masks with others of the same size."""
    s = SIZES[size]
    train, held = cached_qkv("train", s.tokens, BATCH * s.batches), cached_qkv("held_out", s.tokens, s.windows)
    ids = windows("held_out", s.tokens, s.windows)
    weights = attention_weights(*held[:2], causal=False)
    rows = _baselines(s, held, ids, weights, seed)
    steps = s.checkpoints[-1]
    for number in range(s.seeds):
        sea = new_estimator(384, 12, seed + number, width=s.width, k=s.keys)
        labels = {"seed": seed + number, "keys": s.keys}
        rows += _checkpoint(sea, held, weights, step=0, method="SEA", **labels)
        wanted = context_error(performer(*held, sea.projection), weights @ held[2])
        rows.append(row("context error", wanted, "relative", "measured", method="Performer", **labels))

        def seen(step, losses, sea=sea, labels=labels, number=number, log=rows):
            report((number + (step + 1) / steps) / s.seeds, f"step {step + 1} of seed {labels['seed']}")
            if step + 1 in s.checkpoints:
                log.extend(_checkpoint(sea, held, weights, step=step + 1, method="SEA", **labels))

        distill_layer(batched(train), sea, steps=steps, seed=seed + number, report=seen)
        rows += _after_training(sea, s, held, ids, weights, labels)
    return rows


def _checkpoint(sea, held, weights, *, step, **labels):
    """Coverage, error, every part of the loss and the keys spent on held-out windows."""
    units = {"coverage": "fraction", "context error": "relative", "keys per query and head": "keys"}
    rows = []
    for name, value in measure(sea, held, weights).items():
        unit = units.get(name, "nats" if "KL" in name else "number")
        rows.append(row(name, value, unit, "measured", step=step, **labels))
    return rows


def _after_training(sea, s, held, ids, weights, labels):
    """Turn k, compare the two backends and the matrix with the context, and put the layer back into the model."""
    rows, trained = [], {"step": s.checkpoints[-1], "method": "SEA", "seed": labels["seed"]}
    for keys in sorted({max(1, s.keys // 4), s.keys // 2, s.keys, 2 * s.keys, 4 * s.keys}):
        sea.k = keys
        with torch.no_grad():
            out = sea(*held)
        named = {"method": "SEA, k turned after training", "keys": keys, "seed": labels["seed"]}
        error = context_error(out.context, weights @ held[2])
        rows.append(row("coverage", coverage(weights, out.mask), "fraction", "measured", **named))
        rows.append(row("context error", error, "relative", "measured", **named))
    sea.k = s.keys
    with torch.no_grad():
        dense = sea(*held)
        matrix = effective_attention(dense, torch.full((len(ids),), s.tokens), causal=False)
        sea.backend = "flat_csr"
        flat = sea(*held)
    gaps = {
        "flat_csr against dense": context_error(flat.context, dense.context),
        "A V against the context": context_error(matrix @ held[2], dense.context),
    }
    rows += [row(f"difference, {name}", gap, "relative", "measured", **trained) for name, gap in gaps.items()]
    for name, attend in (
        ("SEA", lambda q, k, v, layer: sea(q, k, v).context),
        ("Performer", lambda q, k, v, layer: performer(q, k, v, sea.projection)),
    ):
        named = {"method": name, "keys": s.keys, "seed": labels["seed"]}
        rows.append(row("embedding cosine", embedding_cosine(attend, ids), "cosine", "measured", **named))
    return rows


def _baselines(s, held, ids, weights, seed):
    """Masks of the same size that nobody trained, and what no estimate can beat."""
    q, k, v = held
    n, h, t = q.shape[:3]
    lengths = torch.full((n,), t)
    draw = torch.Generator().manual_seed(seed)
    cells = {
        "random cells": torch.rand(n, h, t, s.width, generator=draw),
        "oracle cells": oracle_estimate(q, k, s.width, lengths),
    }
    masks = {name: expand_cells(grouped_topk(est, s.keys, lengths), lengths) for name, est in cells.items()}
    masks["local window, first and last token"] = local_mask(t, s.keys).expand(n, h, t, t)
    masks["oracle keys"] = top_keys(weights, s.keys)
    rows = []
    for name, mask in masks.items():
        labels = {"method": name, "keys": s.keys}
        found = attention_weights(q, k, causal=False, allowed=mask) @ v
        rows.append(row("coverage", coverage(weights, mask), "fraction", "measured", **labels))
        rows.append(row("context error", context_error(found, weights @ v), "relative", "measured", **labels))
        rows.append(row("keys per query and head", float(mask.sum() / (n * h * t)), "keys", "measured", **labels))
    for name in ("random cells", "local window, first and last token", "oracle keys"):
        attend = _masked(masks[name]) if name != "oracle keys" else _top_attention(s.keys)
        labels = {"method": name, "keys": s.keys}
        rows.append(row("embedding cosine", embedding_cosine(attend, ids), "cosine", "measured", **labels))
    return rows


def _masked(mask):
    return lambda q, k, v, layer: attention_weights(q, k, causal=False, allowed=mask) @ v


def _top_attention(keys, causal=False):
    def attend(q, k, v, layer):
        weights = attention_weights(q, k, causal=causal)
        return attention_weights(q, k, causal=causal, allowed=top_keys(weights, keys)) @ v

    return attend


# Variants ------------------------------------------------------------------------------------------------------------


def ablations(size, seed, report):
    """Train variants for fewer steps, and rank one trained estimate's cells in every group."""
    s = SIZES[size]
    train, held = cached_qkv("train", s.tokens, BATCH * s.batches), cached_qkv("held_out", s.tokens, s.windows)
    weights = attention_weights(*held[:2], causal=False)
    variants = {
        "as published": {},
        f"{s.width // 2} cells": {"width": s.width // 2},
        f"{2 * s.width} cells": {"width": 2 * s.width},
        "an eighth of the random features": {"nb_factor": 8},
        "per-query budget in training": {"group": "query"},
    }
    rows, kept = [], None
    for number, (name, changes) in enumerate(variants.items()):
        report(number / len(variants), name)
        sea = new_estimator(384, 12, seed, **({"width": s.width, "k": s.keys} | changes))
        kept = kept or sea
        distill_layer(batched(train), sea, steps=s.ablation_steps, seed=seed)
        labels = {"variant": name, "seed": seed, "keys": s.keys}
        found = _checkpoint(sea, held, weights, step=s.ablation_steps, method="SEA", **labels)
        rows += [r for r in found if not r["quantity"].startswith("loss")]
    return rows + _groups(kept, s, held, weights, seed)


def _groups(sea, s, held, weights, seed):
    """One estimate, one budget, four ways to spend it; beside it the oracle's estimate."""
    lengths = torch.full((len(held[0]),), s.tokens)
    with torch.no_grad():
        estimates = {"trained": sea(*held).est, "oracle": oracle_estimate(*held[:2], s.width, lengths)}
    rows = []
    for name, est in estimates.items():
        for group in GROUPS:
            mask = expand_cells(grouped_topk(est, s.keys, lengths, group), lengths)
            spent = mask.sum(-1).float().mean((0, 2))  # keys per query, by head
            labels = {"estimate": name, "group": group, "keys": s.keys, "seed": seed}
            rows += [
                row("coverage by group", coverage(weights, mask), "fraction", "measured", **labels),
                row("keys per query and head", float(spent.mean()), "keys", "measured", **labels),
                row("keys of the most thrifty head", float(spent.min()), "keys", "measured", **labels),
                row("keys of the most lavish head", float(spent.max()), "keys", "measured", **labels),
            ]
    return rows


# A causal language model ---------------------------------------------------------------------------------------------


def causal(size, seed, report):
    """Distil every layer of the language model on its own, put them back, and count the bits of held-out text."""
    s = SIZES[size]
    model = tiny_lm.load()
    layers = range(len(model.layers))
    ids = _lm_windows(model, s)
    text = texts.sample(s.causal_bytes)[0]
    students = {}
    for layer in layers:
        report(0.9 * layer / len(layers), f"distil layer {layer}")
        sea = new_estimator(
            model.config.width, model.heads, seed + layer, width=s.width, k=s.keys, causal=True,
            max_positions=s.causal_tokens,
        )  # fmt: skip
        qkv = model.qkv(ids, layer)
        batches = [(*(x[i : i + 2] for x in qkv), None) for i in range(0, len(ids), 2)]
        distill_layer(batches, sea, steps=s.causal_steps, seed=seed + layer)
        students[layer] = sea
    replaced = {
        "teacher": lambda layer: None,
        "SEA": lambda layer: lambda q, k, v, i: _no_grad(students[layer], q, k, v),
        "Performer": lambda layer: lambda q, k, v, i: _causal_performer(q, k, v, students[layer].projection),
        "local window and first token": lambda layer: _local_attention(s.keys),
        "oracle keys": lambda layer: _top_attention(s.keys, causal=True),
    }
    rows = []
    for number, (name, attend) in enumerate(replaced.items()):
        report(0.9 + 0.1 * number / len(replaced), f"bits per byte, {name}")
        one = statistics.fmean(_bits(model, text, s, {layer: attend(layer)}) for layer in layers)
        every = _bits(model, text, s, {layer: attend(layer) for layer in layers})
        labels = {"method": name, "keys": s.keys, "steps per layer": s.causal_steps, "tokens": s.causal_tokens}
        rows.append(row("bits per byte, one layer replaced", one, "bits per byte", "measured", **labels))
        rows.append(row("bits per byte, all layers replaced", every, "bits per byte", "measured", **labels))
    return rows


def _lm_windows(model, s):
    count = 2 * max(1, s.causal_steps // 2)
    text = "\n\n".join(d.text for d in texts.documents("documentation", split="train"))[: 6 * s.causal_tokens * count]
    ids = model.encode(text)[0]
    return ids.unfold(0, s.causal_tokens, s.causal_tokens)[:count].contiguous()


def _no_grad(sea, q, k, v):
    with torch.no_grad():
        return sea(q, k, v).context


def _causal_performer(q, k, v, projection):
    return prefix_attention(relu_kernel(q, projection), relu_kernel(k, projection), v)


def _local_attention(keys):
    return lambda q, k, v, layer: (
        attention_weights(q, k, causal=True, allowed=local_mask(q.shape[2], keys, causal=True)) @ v
    )


def _bits(model, text, s, attention):
    return model.bits_per_byte(text, context=s.causal_tokens, attention=attention)


# Time ----------------------------------------------------------------------------------------------------------------

TIMED_HEADS, TIMED_D, TIMED_WIDTH, TIMED_KEYS = 4, 32, 128, 32
LONGEST_WRITTEN = 4096  # beyond, four written-out matrices and their copies take gigabytes


def timing(size, seed, report):
    """Time one call of the sparse path and of dense attention over growing sequences, interleaved."""
    s = SIZES[size]
    sea = new_estimator(TIMED_HEADS * TIMED_D, TIMED_HEADS, seed, width=TIMED_WIDTH, k=TIMED_KEYS, backend="flat_csr")
    draw = torch.Generator().manual_seed(seed)
    rows = []
    for number, t in enumerate(s.lengths):
        q, k, v = (torch.randn(1, TIMED_HEADS, t, TIMED_D, generator=draw) for _ in range(3))
        contenders = {
            "SEA, flat_csr": lambda q=q, k=k, v=v: sea(q, k, v),
            "dense, matrix written out": lambda q=q, k=k, v=v: attention_weights(q, k, causal=False) @ v,
            "dense, torch's fused kernel": lambda q=q, k=k, v=v: dense_attention(q, k, v, causal=False),
        }
        if t > LONGEST_WRITTEN:
            del contenders["dense, matrix written out"]
        report(number / len(s.lengths), f"{t} tokens")
        with torch.no_grad():
            entries = int(sea(q, k, v).mask.indptr[-1])
            times = _interleaved(contenders, s.rounds)
        labels = {"tokens": t, "heads": TIMED_HEADS, "cells": TIMED_WIDTH, "keys": TIMED_KEYS}
        for name, ms in times.items():
            spread = max(ms) - min(ms)
            rows.append(row("time", statistics.median(ms), "ms", "measured", method=name, rounds=len(ms), **labels))
            rows.append(row("spread of the times", spread, "ms", "measured", method=name, rounds=len(ms), **labels))
        counts = {"SEA, flat_csr": entries, "dense": TIMED_HEADS * t * t}
        rows += [row("scores computed", n, "scores", "counted", method=name, **labels) for name, n in counts.items()]
    for name in dict.fromkeys(r["method"] for r in rows if r["quantity"] == "time"):
        timed = [r for r in rows if r["quantity"] == "time" and r["method"] == name]
        slope = growth_exponent([r["tokens"] for r in timed], [r["value"] for r in timed])
        rows.append(row("growth exponent of the time", slope, "number", "measured", method=name))
    return rows


def _interleaved(contenders, rounds):
    times = {name: [] for name in contenders}
    for call in contenders.values():
        call()
    for _ in range(rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
    return times
