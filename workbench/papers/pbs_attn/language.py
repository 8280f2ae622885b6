"""PBS-Attn inside a language model, and the time that prefill takes: what sparsity costs and what it saves."""

import numpy as np
import torch

import kernels
from kernels.attention.block_sparse import block_sparse_attention
from kernels.masks.block_select import block_density, select_blocks
from workbench.data import text
from workbench.data.attention_patterns import heavy_hitters
from workbench.machines.stopwatch import measure
from workbench.models.attention import xattention
from workbench.models.attention.dense_attention import dense_attention
from workbench.models.attention.pbs_attn import (
    computed_density,
    coverage_curve,
    pbs_attention,
    scored_mask,
    select_again,
)
from workbench.models.language import text_cost, tiny_lm
from workbench.paper import row
from workbench.papers.pbs_attn.blocks import GENERATOR, LM, NAMES, lm_heads, mean_pooling

THRESHOLDS = (0.5, 0.7, 0.9, 0.97)


# Prediction ----------------------------------------------------------------------------------------------------------
def language(size, seed, report):
    """Replace every layer's attention of the tiny language model and count bits per byte of held-out text."""
    context, windows, (block, segment) = {
        "tiny": (128, 1, (16, 64)), "small": (1024, 2, (32, 128)), "full": (2048, 8, (64, 256))}[size]  # fmt: skip
    taus = THRESHOLDS[2:3] if size == "tiny" else THRESHOLDS
    model = tiny_lm.load()
    sample = text.sample(int(3.6 * context * (windows + 1) / 2))[0]
    labels = {"input": text.provenance(), "context": context, "block": block, "segment": segment}
    dense = text_cost.bits_per_byte(model, sample, context=context)
    rows = [
        row("bits per byte", dense, "bits per byte", "measured", **labels, method="dense", threshold=1.0, density=1.0)
    ]
    methods = _methods(block, segment, seed)
    for place, (name, attend) in enumerate(methods.items()):
        part = report.part(place, len(methods), name)
        for number, tau in enumerate(taus):
            part(number / len(taus), f"threshold {tau}")
            densities: list[float] = []
            replaced = _recording(attend, tau, densities, segment)
            cost = text_cost.bits_per_byte(model, sample, context=context, attention=replaced)
            named = labels | {"method": name, "threshold": tau, "density": float(np.mean(densities))}
            rows.append(row("bits per byte", cost, "bits per byte", "measured", **named))
    return rows


def _methods(block, segment, seed):
    """Return name -> attend(q, k, v, threshold) -> (out, density)."""

    def pbs(order):
        def attend(q, k, v, tau):
            how = {"block_size": block, "segment_size": segment, "permute": order, "seed": seed}
            out, mask = pbs_attention(q, k, v, threshold=tau, **how)
            return out, computed_density(mask)

        return attend

    def by_blocks(choose):
        def attend(q, k, v, tau):
            keep = choose(q, k, tau)
            out = block_sparse_attention(
                *(x.contiguous().numpy() for x in (q, k, v)), keep, block_size=block, causal=True
            )
            return torch.from_numpy(out), block_density(keep)

        return attend

    def pooled(q, k, tau):
        return mean_pooling(xattention.block_scores(q, k, block_size=block, mode="mean_pool"), tau)

    def antidiagonal(q, k, tau):
        return select_blocks(xattention.block_scores(q, k, block_size=block, stride=8), tau)

    return {
        NAMES["keys"]: pbs("keys"),
        NAMES["random"]: pbs("random"),
        NAMES["none"]: pbs("none"),
        "block means (MeanPooling)": by_blocks(pooled),
        "XAttention": by_blocks(antidiagonal),
    }


def _recording(attend, tau, densities, segment):
    def attention(q, k, v, layer):
        if q.shape[2] <= segment:
            return dense_attention(q, k, v)
        out, density = attend(q, k, v, tau)
        densities.append(density)
        return out

    return attention


# Time ----------------------------------------------------------------------------------------------------------------
GOAL = 0.95
GRID = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0)


def speed(size, seed, report):
    """Time prefill attention, every step included, at the lowest threshold that holds 95 per cent of the attention."""
    lengths, rounds, heads = {"tiny": ((1024,), 2, 1), "small": ((2048, 4096), 5, 1), "full": (
        (4096, 8192, 16384), 7, 2)}[size]  # fmt: skip
    inputs = []
    for tokens in lengths:
        drawn = [heavy_hitters(tokens, seed=seed + head) for head in range(heads)]
        q, k = (np.concatenate(parts, axis=1) for parts in zip(*drawn, strict=True))
        inputs.append((f"{GENERATOR}, {heads} heads", q, k, k, 64))
    if size != "tiny":
        inputs.append((f"{LM}, layer 3, 8 heads", *next(lm_heads(2048, (3,))), 64))
    rows = []
    for place, (title, q, k, v, block) in enumerate(inputs):
        for segment in (4 * block, 16 * block) if q.shape[2] > 16 * block else (4 * block,):
            report(place / len(inputs), f"{title}, {q.shape[2]} tokens, segments of {segment}")
            rows += _timed(title, q, k, v, block, segment, rounds)
    return rows


def _timed(title, q, k, v, block, segment, rounds):
    q, k, v = (np.ascontiguousarray(x) for x in (q, k, v))
    tensors = [torch.from_numpy(x) for x in (q, k, v)]
    labels = {"input": title, "tokens": q.shape[2], "block": block, "segment": segment, "rounds": rounds,
              "threads": kernels.get_num_threads()}  # fmt: skip
    contenders = {"dense (torch)": lambda: dense_attention(*tensors)}
    rows, chosen = [], {}
    for order in ("none", "keys"):
        how = {"block_size": block, "segment_size": segment, "permute": order}
        chosen[NAMES[order]], density, coverage = _cheapest(q, k, how)
        named = labels | {"method": NAMES[order], "threshold": chosen[NAMES[order]]}
        kind = "counted" if title.startswith(GENERATOR) else "measured"
        rows.append(row("density", density, "fraction", kind, **named))
        rows.append(row("coverage", coverage, "fraction", kind, **named))
        threshold = chosen[NAMES[order]]
        contenders[NAMES[order]] = lambda h=how, t=threshold: pbs_attention(q, k, v, threshold=t, **h)
        contenders[f"{NAMES[order]}, deciding alone"] = lambda h=how, t=threshold: select_again(
            scored_mask(q, k, **h), t
        )
    for name, timing in measure(contenders, rounds=rounds).items():
        threshold = chosen.get(name.split(",")[0], 1.0)
        named = labels | {"method": name, "threshold": threshold, "spread_ms": 1e3 * timing.spread_s}
        rows.append(row("time", 1e3 * timing.median_s, "ms", "measured", **named))
    return rows


def _cheapest(q, k, how):
    """Return the lowest threshold of the grid that covers 95 per cent, with its density and coverage."""
    density, coverage = coverage_curve(q, k, GRID, **how)
    at = int(np.argmax(coverage >= GOAL))  # at threshold 1 everything is kept
    return GRID[at], float(density[at]), float(coverage[at])
