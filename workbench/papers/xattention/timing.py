"""Time of scoring, selecting and attending, against dense attention."""

import numpy as np
import torch
import torch.nn.functional as F

import kernels
from kernels.attention.block_sparse import block_sparse_attention
from kernels.attention.cost import pair_share
from kernels.masks.block_select import select_blocks
from workbench.data.attention_patterns import vertical_slash
from workbench.machines import stopwatch
from workbench.models.attention.xattention import block_scores
from workbench.paper import row

LENGTHS = {"tiny": (512,), "small": (2048,), "full": (2048, 4096, 8192)}
ROUNDS = {"tiny": 2, "small": 7, "full": 7}
BLOCK, HEADS, WIDTH, STRIDE, DENSITY = 64, 4, 64, 16, 0.2


def timing(size, seed, report):
    """Time scoring, selecting and attending against dense attention, interleaved; medians over the rounds."""
    rows, before = [], torch.get_num_threads()
    torch.set_num_threads(kernels.get_num_threads())
    try:
        for place, t in enumerate(LENGTHS[size]):
            report(place / len(LENGTHS[size]), f"{t} tokens")
            rows += _timed(t, ROUNDS[size], seed)
    finally:
        torch.set_num_threads(before)
    return rows


def _timed(t, rounds, seed):
    q, k = vertical_slash(t, heads=HEADS, d=WIDTH, seed=seed)[:2]
    v = np.random.default_rng(seed).standard_normal(q.shape, np.float32)
    tensors = [torch.from_numpy(x) for x in (q, k, v)]

    def score():
        return block_scores(q, k, block_size=BLOCK, stride=STRIDE)

    scores = score()

    def choose():
        return select_blocks(scores, method="ratio", k=DENSITY)

    keep = choose()
    steps = {
        "score the blocks": score,
        "select the blocks": choose,
        "attend over the kept blocks": lambda: block_sparse_attention(q, k, v, keep, block_size=BLOCK, causal=True),
        "dense attention (torch)": lambda: F.scaled_dot_product_attention(*tensors, is_causal=True),
    }
    times = stopwatch.measure(steps, rounds=rounds)
    labels = {"tokens": t, "heads": HEADS, "width": WIDTH, "block": BLOCK, "stride": STRIDE}
    density = pair_share(keep, t, block_size=BLOCK, causal=True)
    labels |= {"threads": kernels.get_num_threads(), "rounds": rounds, "density": round(density, 4)}
    rows = []
    for name, timed in times.items():
        spread = {"step": name, "spread_ms": round(1e3 * timed.spread_s, 4)}
        rows.append(row("time, median", 1e3 * timed.median_s, "ms", kind="measured", **spread, **labels))
    *ours, dense = (r["value"] for r in rows)
    rows.append(row("dense over scoring, selecting and attending", dense / sum(ours), "x", kind="measured", **labels))
    rows.append(row("dense over attending", dense / ours[2], "x", kind="measured", **labels))
    return rows
