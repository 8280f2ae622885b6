"""What SEA does with one head of an explorer's input, and how it spends its budget over the heads of the layer."""

import dataclasses

import torch

from workbench.models import sea
from workbench.models.attention_trace import AttentionTrace
from workbench.models.dense_attention import attention_weights

__all__ = ["read_sea", "sea_refuses"]


def read_sea(given, s) -> AttentionTrace:
    """Return the oracle's estimate of ``given`` under the settings cells, keys_per_query and group."""
    width, keys, group = s["cells"], s["keys_per_query"], s["group"]
    seen = sea.trace(given.q, given.k, width=width, k_keys=keys, causal=given.causal)
    lengths = torch.tensor([seen.t])
    est = torch.from_numpy(seen.estimate)[None, None]
    if group == "query" or given.all_q is None:
        cells = sea.grouped_topk(est, keys, lengths, group, causal=given.causal)
    else:
        est = sea.oracle_estimate(given.all_q, given.all_k, width, lengths, causal=given.causal)
        cells = sea.grouped_topk(est, keys, lengths, group, causal=given.causal)
    allowed = sea.expand_cells(cells[:, :1], lengths, causal=given.causal)[0, 0]
    attention = torch.from_numpy(seen.attention)
    pairs = seen.t * (seen.t + 1) / 2 if given.causal else seen.t**2
    spent = cells[0].sum(-1, dtype=torch.float32).mean(-1)
    facts = {"cells per row": width, "mean keys per query": float(allowed.sum() / seen.t)}
    if len(spent) > 1:
        facts["cells a query spends: this head / all heads, fewest to most"] = (
            f"{spent[0]:.3g} / {spent.mean():.3g}, {spent.min():.3g} to {spent.max():.3g}"
        )
    return dataclasses.replace(
        seen,
        allowed=allowed.numpy(),
        effective=attention_weights(given.q, given.k, causal=False, allowed=allowed)[0, 0].numpy(),
        density=float(allowed.sum() / pairs),
        coverage=float((attention * allowed).sum() / attention.sum()),
        attention_flops=4 * given.q.shape[3] * int(allowed.sum()),
        maps={"cells": cells[0, 0].numpy()},
        facts=facts,
    )


def sea_refuses(s) -> str | None:
    """Return the sentence that refuses settings, or None."""
    if s["group"] != "query" and s["tokens"] > 1024:
        return f"Budgets over heads take up to 1,024 tokens here; {s['tokens']:,} asked for."
    return None
