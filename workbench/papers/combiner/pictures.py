"""Digits learned pixel by pixel with each pattern: alone, as a Combiner, and with other choices inside regions."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from workbench.models.attention.combiner import PATTERNS, sparse_counterpart_mask, support
from workbench.models.attention.combiner_layer import CombinerSelfAttention
from workbench.models.vision.pixel_model import SIDE, bits_per_pixel, train
from workbench.paper import row

HEADS, DIM, LENGTH = 4, 64, SIDE * SIDE


class MaskedSelfAttention(nn.Module):
    """Dense attention over the allowed pairs, with the parameters of `CombinerSelfAttention`."""

    def __init__(self, allowed):
        super().__init__()
        self.qkv, self.out = nn.Linear(DIM, 3 * DIM, bias=False), nn.Linear(DIM, DIM)
        self.register_buffer("allowed", torch.as_tensor(allowed), persistent=False)

    def forward(self, x):
        """Map (b, L, dim) to (b, L, dim)."""
        q, k, v = (y.unflatten(-1, (HEADS, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.allowed)
        return self.out(out.transpose(1, 2).flatten(2))


def contenders() -> dict:
    """Return name -> () -> attention module: full, patterns alone, their Combiners, and what changes inside regions."""
    own_row = support("fixed", LENGTH, SIDE)["direct"]
    masks = {
        "full attention": np.tri(LENGTH, dtype=bool),
        "own row alone": own_row,
        **{f"{p} alone": sparse_counterpart_mask(p, LENGTH, SIDE) for p in ("fixed", "logsparse", "axial_mixture")},
    }
    made = {name: lambda m=mask: MaskedSelfAttention(m) for name, mask in masks.items()}

    def combiner(**how):
        return lambda: CombinerSelfAttention(DIM, HEADS, **{"seg_len": SIDE} | how)

    made |= {f"Combiner {p}": combiner(pattern=p) for p in PATTERNS}
    return made | {
        "Combiner fixed, mean": combiner(summary="mean"),
        "Combiner fixed, DeepSets": combiner(summary="deepsets"),
        "Combiner fixed, log size": combiner(span_bias="log_size"),
        "Combiner axial_rowmajor, proj": combiner(pattern="axial_rowmajor", key_row="proj"),
    }


MAIN = ("full attention", "own row alone", "fixed alone", "logsparse alone", "axial_mixture alone",
        "Combiner fixed", "Combiner logsparse", "Combiner axial_mixture")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How much a size does: steps of a training, digits per step, digits tested, and seeds."""

    steps: int
    batch: int
    tested: int
    seeds: int


SETTINGS = {
    "tiny": Setting(steps=1, batch=4, tested=8, seeds=1),
    "small": Setting(steps=300, batch=32, tested=360, seeds=1),
    "full": Setting(steps=1500, batch=32, tested=360, seeds=3),
}


def pictures(size, seed, report, keep):
    """Train a one-layer model of the digits with each pattern and count bits per pixel of the test digits."""
    s, made = SETTINGS[size], contenders()
    runs = [(seed + i, name) for i in range(s.seeds) for name in (MAIN if size == "small" else made)]
    rows = []
    for place, (own_seed, name) in enumerate(runs):
        part = report.part(place, len(runs), f"{name}, seed {own_seed}, {s.steps} steps")
        labels = {"input": "digits, 8 x 8", "steps": s.steps, "batch": s.batch, "method": name, "seed": own_seed}
        rows += keep(labels, partial(_trained, made[name], labels, s.tested, part))
    return rows


def _trained(make_attention, labels, tested, report):
    """The rows of one network: bits per pixel of the test digits, and its parameters."""
    how = {name: labels[name] for name in ("steps", "batch", "seed")}
    model = train(make_attention, report=report, **how)
    size = sum(p.numel() for p in model.parameters())
    return [
        row("bits per pixel", bits_per_pixel(model, tested), "bits per pixel", "measured", **labels),
        row("parameters", size, "parameters", "counted", **labels),
    ]
