"""Combiner's experiments: full support, pictures learned with each pattern, what patterns lose, cost over length."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from workbench.data import text
from workbench.machines.stopwatch import measure
from workbench.machines.tensor_memory import largest_tensor_bytes
from workbench.models.attention.combiner import (
    PATTERNS,
    CombinerSelfAttention,
    combiner_attention,
    effective_attention,
    flops,
    sparse_counterpart_mask,
    support,
)
from workbench.models.attention.dense_attention import attention_weights, dense_attention, dense_flops
from workbench.models.language import minilm
from workbench.models.vision.pixel_model import SIDE, bits_per_pixel, train
from workbench.paper import row

HEADS, DIM, LENGTH = 4, 64, SIDE * SIDE


# Support -------------------------------------------------------------------------------------------------------------
def full_support(size, seed, report):
    """Look at the effective attention matrix: positive up to the diagonal, zero beyond, rows of sum one, A v = out."""
    rng = torch.Generator().manual_seed(seed)
    lengths = ((64, 8),) if size == "tiny" else ((64, 8), (256, 16), (250, 16))
    rows = []
    for place, ((length, part), pattern) in enumerate((x, p) for x in lengths for p in PATTERNS):
        report(place / (len(lengths) * len(PATTERNS)), f"{pattern}, {length} tokens")
        q, k, v = (torch.randn(1, 2, length, 16, generator=rng, dtype=torch.float64) for _ in range(3))
        how = {"pattern": pattern, "seg_len": part}
        a = effective_attention(q, k, **how)
        lower = torch.ones(length, length, dtype=torch.bool).tril()
        labels = {"input": "normal random q and k", "tokens": length, "segment": part, "pattern": pattern}
        sums = float((a.sum(-1) - 1).abs().max())
        error = float((a @ v - combiner_attention(q, k, v, **how)).abs().max())
        rows += [
            row("pairs without weight", int((a[:, :, lower] <= 0).sum()), "pairs", "counted", **labels),
            row("weight on the future", float(a[:, :, ~lower].abs().max()), "fraction", "measured", **labels),
            row("rows' sums from one", sums, "fraction", "measured", **labels),
            row("matrix against method", error, "number", "measured", **labels),
        ]
    return rows


# Pictures ------------------------------------------------------------------------------------------------------------
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


def pictures(size, seed, report):
    """Train a one-layer model of the digits with each pattern and count bits per pixel of the test digits."""
    steps, batch, tested = {"tiny": (1, 4, 8), "small": (300, 32, 360), "full": (1500, 32, 360)}[size]
    made = contenders()
    names = list(made) if size != "small" else list(MAIN)
    rows = []
    for place, name in enumerate(names):
        part = report.part(place, len(names), f"{name}, {steps} steps")
        model = train(made[name], steps=steps, seed=seed, batch=batch, report=part)
        labels = {"input": "digits, 8 x 8", "steps": steps, "batch": batch, "method": name}
        rows.append(row("bits per pixel", bits_per_pixel(model, tested), "bits per pixel", "measured", **labels))
        parameters = sum(p.numel() for p in model.parameters())
        rows.append(row("parameters", parameters, "parameters", "counted", **labels))
    return rows


# What a pattern loses ------------------------------------------------------------------------------------------------
def lost(size, seed, report):
    """Count true attention outside the direct pairs, and how far Combiner's rows are from the true ones, untrained."""
    layers, windows, tokens = {"tiny": (1, 1, 64), "small": (6, 1, 256), "full": (6, 4, 256)}[size]
    model = minilm.load()
    documents = "\n\n".join(document.text for document in text.documents("documentation"))
    ids = model.windows(documents[: 24 * tokens * windows], tokens)[:windows]
    part, found = round(tokens**0.5), {}
    for place, (window, layer) in enumerate((w, n) for w in ids for n in range(layers)):
        report(place / (windows * layers), f"layer {layer}")
        q, k, _ = model.qkv(window[None], layer)
        true = attention_weights(q, k)
        for pattern in PATTERNS:
            direct = torch.as_tensor(support(pattern, tokens, part)["direct"])
            alone = torch.as_tensor(sparse_counterpart_mask(pattern, tokens, part))
            ours = effective_attention(q, k, pattern=pattern, seg_len=part)
            masked = attention_weights(q, k, allowed=alone)
            for quantity, value in (
                ("attention outside the direct pairs", (true * ~direct).sum(-1).mean()),
                ("attention outside the sparse pattern", (true * ~alone).sum(-1).mean()),
                ("L1 distance of Combiner's rows", (ours - true).abs().sum(-1).mean()),
                ("L1 distance of the sparse pattern's rows", (masked - true).abs().sum(-1).mean()),
            ):
                found.setdefault((pattern, quantity), []).append(float(value))
    return [
        row(quantity, float(np.mean(values)), "fraction" if "outside" in quantity else "number", "measured",
            input="MiniLM, read causally", tokens=tokens, segment=part, pattern=pattern)
        for (pattern, quantity), values in found.items()
    ]  # fmt: skip


# Cost ----------------------------------------------------------------------------------------------------------------
def cost(size, seed, report):
    """Time every pattern over the length, one head, and watch the largest tensor; dense attention beside it."""
    lengths, rounds = {
        "tiny": ((256, 512), 2),
        "small": ((1024, 4096), 3),
        "full": ((1024, 2048, 4096, 8192, 16384), 5),
    }[size]
    rng = torch.Generator().manual_seed(seed)
    rows = []
    for place, length in enumerate(lengths):
        report(place / len(lengths), f"{length} tokens")
        q, k, v = (torch.randn(1, 1, length, 32, generator=rng) for _ in range(3))
        runs = {p: lambda p=p, x=(q, k, v): combiner_attention(*x, pattern=p) for p in PATTERNS}
        runs["dense (torch)"] = lambda x=(q, k, v): dense_attention(*x)
        labels = {"input": "normal random q, k, v", "tokens": length}
        for name, timing in measure(runs, rounds=rounds).items():
            named = labels | {"method": name, "threads": torch.get_num_threads(), "rounds": rounds}
            rows.append(row("time", 1e3 * timing.median_s, "ms", "measured", **named, spread_ms=1e3 * timing.spread_s))
        for name, run in runs.items():
            operations = flops(name, length, 32) if name in PATTERNS else dense_flops(length, 32)
            rows.append(row("largest tensor", largest_tensor_bytes(run), "bytes", "counted", **labels, method=name))
            rows.append(row("operations", operations, "operations", "counted", **labels, method=name))
    return rows
