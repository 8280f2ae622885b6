"""Full support: the effective attention matrix of every pattern."""

import torch

from workbench.models.attention.combiner import PATTERNS, combiner_attention, effective_attention
from workbench.paper import row


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
