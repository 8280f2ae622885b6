"""Time of prefill attention at thresholds that hold most of the attention: what sparsity saves."""

import numpy as np
import torch

import kernels
from workbench.data.attention_patterns import heavy_hitters
from workbench.machines.stopwatch import measure
from workbench.models.attention.dense_attention import dense_attention
from workbench.models.attention.pbs_attn import coverage_curve, pbs_attention, scored_mask, select_again
from workbench.paper import row
from workbench.papers.pbs_attn.inputs import GENERATOR, LM, NAMES, lm_heads

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
