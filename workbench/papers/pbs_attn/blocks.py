"""What off-segment blocks hold: as many blocks for every order, and as many blocks as most of the mass needs."""

import numpy as np
import torch

from kernels.masks.block_select import select_blocks
from workbench.data.attention_patterns import heavy_hitters
from workbench.models.attention.dense_attention import attention_weights
from workbench.models.attention.pbs_attn import PBSMask, permuted_block_mass, scored_mask
from workbench.paper import row
from workbench.papers.pbs_attn.inputs import ENCODER, GENERATOR, LM, NAMES, SORTS, lm_heads, minilm_heads

SHARES = (0.10, 0.25, 0.50)
SETTINGS = ((16, 64), (8, 64))  # block, segment at 512 tokens


def blocks(size, seed, report):
    """Keep the same number of off-segment blocks per row: which order catches more of the true attention?"""
    held: dict[tuple, list] = {}
    inputs = list(_equal_block_inputs(size))
    for place, (title, tokens, group, settings, q, k) in enumerate(inputs):
        report(place / len(inputs), f"{title}, group {group + 1}")
        for (block, segment), order in ((s, o) for s in settings for o in SORTS):
            how = {"block_size": block, "segment_size": segment, "permute": order, "seed": seed + place}
            for (share, choice), value in _held_at_shares(q, k, how).items():
                held.setdefault((title, tokens, group, block, segment, order, choice, share), []).append(value)
    return [
        row("off-segment attention held", float(np.mean(values)), "fraction", "measured", input=title, tokens=tokens,
            group=group, block=block, segment=segment, order=NAMES[order], choice=choice, share=share)
        for (title, tokens, group, block, segment, order, choice, share), values in held.items()
    ]  # fmt: skip


def _equal_block_inputs(size):
    """Yield (title, tokens, group of windows, settings, q, k)."""
    groups, layers, tokens, windows = {"tiny": (1, (1,), 256, 1), "small": (1, None, 512, 3), "full": (
        5, None, 512, 3)}[size]  # fmt: skip
    for group, q, k, _ in minilm_heads(groups, layers, tokens, windows):
        yield ENCODER, tokens, group, SETTINGS, q, k
    tokens = {"tiny": 256, "small": 1024, "full": 2048}[size]
    for q, k, _ in lm_heads(tokens, layers):
        yield LM, tokens, 0, (SETTINGS[0] if size == "tiny" else (32, 128),), q, k


def _held_at_shares(q, k, how):
    """Return (share, choice) -> mean over heads of the off-segment mass that so many blocks a row hold."""
    mask = scored_mask(q, k, **how)
    eligible = off_segment(mask)
    mass = permuted_block_mass(q, k, mask) * eligible
    total = mass.sum(axis=(2, 3))
    found = {}
    for share in SHARES:
        for choice, scores in (("block means", mask.block_scores), ("best possible", mass)):
            keep = select_blocks(scores, causal=False, eligible=eligible, method="ratio", k=share)
            found[share, choice] = float(((mass * keep).sum(axis=(2, 3)) / total).mean())
    return found


def off_segment(mask: PBSMask) -> np.ndarray:
    """Return the blocks of earlier segments, (n, n) bool."""
    return np.tri(len(mask.segment_mask), k=-1, dtype=bool) & ~mask.segment_mask


def generator(size, seed, report):
    """Count the off-segment blocks that hold 95 per cent of each row's off-segment mass, by share of heavy keys."""
    tokens, seeds = {"tiny": (1024, 1), "small": (4096, 1), "full": (4096, 3)}[size]
    cases = [(share, 64, 256) for share in (0.02, 0.01)] + [(0.02, 64, segment) for segment in (128, 512, 1024)]
    if size == "tiny":
        cases = [(0.02, 16, 64)]
    rows = []
    for place, (heavy, block, segment) in enumerate(cases):
        labels = {"input": GENERATOR, "tokens": tokens, "heavy": heavy, "block": block,
                  "segment": segment}  # fmt: skip
        part = report.part(place, len(cases), f"{heavy:.0%} heavy keys, segments of {segment}")
        for number in range(seeds):
            part(number / seeds)
            q, k = heavy_hitters(tokens, share=heavy, seed=seed + number)
            for order in SORTS:
                named = labels | {"draw": number, "order": NAMES[order]}
                how = {"block_size": block, "segment_size": segment, "permute": order, "seed": seed + number}
                for choice, value in needed(q, k, 0.95, how).items():
                    rows.append(row("blocks needed", value, "fraction", "counted", **named, choice=choice))
        rows.append(row("mass of heavy keys", _heavy_mass(q, k), "fraction", "counted", **labels, draw=number))
    return rows


def needed(q, k, goal, how):
    """Return choice -> share of off-segment blocks after which every row holds ``goal`` of its off-segment mass."""
    mask = scored_mask(q, k, **how)
    eligible = off_segment(mask)
    mass = permuted_block_mass(q, k, mask)[0, 0] * eligible
    found = {}
    for choice, scores in (("block means", mask.block_scores[0, 0]), ("best possible", mass)):
        order = np.argsort(np.where(eligible, -scores, np.inf), axis=1, kind="stable")
        held = np.cumsum(np.take_along_axis(mass, order, axis=1), axis=1)
        rows = eligible.any(axis=1)
        count = (held < goal * mass.sum(axis=1, keepdims=True)).sum(axis=1) + 1
        found[choice] = float(count[rows].sum() / eligible.sum())
    return found


def _heavy_mass(q, k):
    """Return what the heavy keys hold of the attention of the last 256 queries."""
    weights = attention_weights(torch.as_tensor(q[:, :, -256:]), torch.as_tensor(k))[0, 0].numpy()
    heavy = k[0, 0, :, 0] > 8
    return float(weights[:, heavy].sum() / weights.sum())
