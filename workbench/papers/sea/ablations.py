"""Variants of the estimator, and one trained estimate's cells ranked in every group."""

import torch

from workbench.models.attention.dense_attention import attention_weights
from workbench.models.attention.sea import GROUPS, distill_layer, expand_cells, grouped_topk, oracle_estimate
from workbench.models.attention.sea_training import BATCH, batched, cached_qkv, coverage, new_estimator
from workbench.paper import row
from workbench.papers.sea.distillation import SIZES, checkpoint_rows


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
        found = checkpoint_rows(sea, held, weights, step=s.ablation_steps, method="SEA", **labels)
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
