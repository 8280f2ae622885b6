"""Density and coverage at equal thresholds, with and without sorting; two other selections beside them."""

import numpy as np

from kernels.attention.cost import block_share, pair_share
from kernels.masks.block_select import select_blocks
from workbench.data.attention_patterns import heavy_hitters
from workbench.models.attention import xattention
from workbench.models.attention.pbs_attn import (
    computed_block_share,
    computed_density,
    permuted_block_mass,
    scored_mask,
    select_again,
)
from workbench.paper import row
from workbench.papers.pbs_attn.inputs import ENCODER, GENERATOR, LM, NAMES, SORTS, lm_heads, minilm_heads

THRESHOLDS = (0.5, 0.7, 0.9)
QUANTITIES = {"density": "fraction", "blocks over dense": "x", "coverage": "fraction"}


def thresholds(size, seed, report):
    """Use one threshold with and without sorting, diagonal segments counted in full; two selections beside it."""
    rows = []
    inputs = _threshold_inputs(size, seed)
    for place, (title, tokens, (block, segment), heads) in enumerate(inputs):
        found: dict[tuple, list] = {}
        part = report.part(place, len(inputs), title)
        for number, (q, k) in enumerate(heads):
            part(number / len(heads))
            for name, points in _curves(q, k, block, segment, seed).items():
                for tau, *point in points:
                    found.setdefault((name, tau), []).append(point)
        for (name, tau), points in found.items():
            labels = {"input": title, "tokens": tokens, "block": block, "segment": segment, "method": name,
                      "threshold": tau}  # fmt: skip
            kind = "counted" if title == GENERATOR else "measured"
            for (quantity, unit), value in zip(QUANTITIES.items(), np.mean(points, axis=0), strict=True):
                rows.append(row(quantity, float(value), unit, kind, **labels))
    return rows


def _threshold_inputs(size, seed):
    """Return (title, tokens, (block, segment), [(q, k), ...]) per input."""
    layers, windows, encoder_tokens, lm_tokens, tokens = {
        "tiny": ((1,), 1, 256, 256, 512), "small": ((1, 4), 3, 512, 1024, 4096), "full": (None, 3, 512, 2048, 8192)
    }[size]  # fmt: skip
    encoder = [(q, k) for _, q, k, _ in minilm_heads(1, layers, encoder_tokens, windows)]
    lm = [(q, k) for q, k, _ in lm_heads(lm_tokens, layers)]
    generated = [heavy_hitters(tokens, seed=seed)]
    return [
        (ENCODER, encoder_tokens, (16, 64), encoder),
        (LM, lm_tokens, (16, 64) if size == "tiny" else (32, 128), lm),
        (LM, lm_tokens, (32, 128) if size == "tiny" else (64, 256), lm),
        (GENERATOR, tokens, (16, 64) if size == "tiny" else (128, 512), generated),
    ]


def _curves(q, k, block, segment, seed):
    """Return method -> [(threshold, density, blocks over dense, coverage)], every method scored once."""
    found = {}
    for order in SORTS:
        scored = scored_mask(q, k, block_size=block, segment_size=segment, permute=order, seed=seed)
        mass = permuted_block_mass(q, k, scored)
        masks = [select_again(scored, tau) for tau in THRESHOLDS]
        found[NAMES[order]] = [
            (tau, computed_density(mask), computed_block_share(mask), _covered(mass, mask.keep))
            for tau, mask in zip(THRESHOLDS, masks, strict=True)
        ]
        if order == "none":
            plain = mass  # in the original order: what methods without sorting are held against
    stride = min(8, block)
    scores = xattention.block_scores(q, k, block_size=block, stride=stride)
    means = xattention.block_scores(q, k, block_size=block, mode="mean_pool")
    for name, choose in (
        ("XAttention", lambda tau: select_blocks(scores, tau)),
        ("block means (MeanPooling)", lambda tau: mean_pooling(means, tau)),
    ):
        keeps, how = [choose(tau) for tau in THRESHOLDS], {"block_size": block, "causal": True}
        found[name] = [
            (tau, pair_share(keep, q.shape[2], **how), block_share(keep, q.shape[2], **how), _covered(plain, keep))
            for tau, keep in zip(THRESHOLDS, keeps, strict=True)
        ]
    return found


def mean_pooling(scores, threshold):
    """Choose blocks as the authors' baseline does: block means, then block 0 and the diagonal block on top."""
    blocks = scores.shape[2]
    keep = select_blocks(scores, threshold, keep_sink=False, keep_diagonal=False)
    return keep | np.eye(blocks, dtype=bool) | (np.arange(blocks) == 0)


def _covered(mass, keep):
    return float(((mass * keep).sum(axis=(2, 3)) / mass.sum(axis=(2, 3))).mean())
