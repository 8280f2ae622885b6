"""What SEA does with one head of an explorer's input, estimated by the oracle or by an estimator that ships."""

import copy
import dataclasses

import numpy as np
import torch

from workbench.models.attention import sea
from workbench.models.attention.attention_trace import AttentionTrace
from workbench.models.attention.dense_attention import attention_weights, dense_flops
from workbench.models.attention.sea_stages import stages
from workbench.models.attention.sea_training import LAYER, STEPS, TOKENS, WIDTH, shipped

__all__ = ["KNOWS", "TRAINED", "read_sea", "sea_needs", "sea_refuses"]

TRAINED = {f"trained_{steps}" if steps else "untrained": steps for steps in STEPS}
KNOWN = {"input": "minilm", "layer": LAYER, "cells": WIDTH}
KNOWS = f"SEA's estimators know layer {LAYER} of the MiniLM encoder (both directions), in {WIDTH} cells"


def read_sea(given, s) -> AttentionTrace:
    """Return the head under the settings estimator, cells, keys_per_query and group."""
    return _by_oracle(given, s) if s["estimator"] == "oracle" else _by_estimator(given, s)


def _by_oracle(given, s):
    width, keys, group = s["cells"], s["keys_per_query"], s["group"]
    seen = sea.trace(given.q, given.k, width=width, k_keys=keys, causal=given.causal)
    lengths = torch.tensor([seen.t])
    if group == "query" or given.all_q is None:
        est, head = torch.from_numpy(seen.estimate)[None, None], 0
    else:
        est, head = sea.oracle_estimate(given.all_q, given.all_k, width, lengths, causal=given.causal), given.head
    cells = sea.grouped_topk(est, keys, lengths, group, causal=given.causal)[0]
    allowed = sea.expand_cells(cells[None, head : head + 1], lengths, causal=given.causal)[0, 0]
    attention = torch.from_numpy(seen.attention)
    pairs = seen.t * (seen.t + 1) / 2 if given.causal else seen.t**2
    spent = cells.sum(-1, dtype=torch.float32).mean(-1)
    heads = 1 if given.all_q is None else given.all_q.shape[1]
    facts = {"cells per row": width, "mean keys per query": float(allowed.sum() / seen.t)}
    if len(spent) > 1:
        facts["cells a query spends: this head / all heads, fewest to most"] = (
            f"{spent[head]:.3g} / {spent.mean():.3g}, {spent.min():.3g} to {spent.max():.3g}"
        )
    return dataclasses.replace(
        seen,
        allowed=allowed.numpy(),
        effective=attention_weights(given.q, given.k, causal=False, allowed=allowed)[0, 0].numpy(),
        density=float(allowed.sum() / pairs),
        coverage=float((attention * allowed).sum() / attention.sum()),
        score_flops=sea.estimate_flops(seen.t, given.q.shape[3], heads, width, causal=given.causal),
        attention_flops=4 * given.q.shape[3] * int(allowed.sum()),
        maps={"cells": cells[head].numpy()},
        facts=facts,
    )


def _by_estimator(given, s):
    steps = TRAINED[s["estimator"]]
    estimator = copy.copy(shipped(steps))  # a view's own budget, the weights of all
    estimator.k, estimator.group = s["keys_per_query"], s["group"]
    seen = stages(estimator, given.all_q, given.all_k, given.all_v, head=given.head)
    t, d = given.q.shape[2:]
    spent, places = seen.keys_by_head, seen.mixed[:, :d]
    differ = np.linalg.norm(places - places.mean(0), axis=1).mean() / np.linalg.norm(places.mean(0))
    return AttentionTrace(
        method=f"SEA (estimator after {steps} steps)" if steps else "SEA (untrained estimator)",
        t=t,
        causal=False,
        density=float(seen.allowed.mean()),
        coverage=float(seen.coverage_by_head[given.head]),
        score_flops=sea.estimate_flops(t, d, len(spent), WIDTH),
        attention_flops=4 * d * int(seen.allowed.sum()),
        dense_flops=dense_flops(t, d, causal=False),
        attention=seen.attention,
        effective=seen.effective,
        allowed=seen.allowed,
        estimate=seen.estimate,
        maps={"cells": seen.cells, "positions": seen.position, "linear": np.abs(seen.mixed)},
        facts={
            "training steps": f"{steps}, on windows of {TOKENS} tokens",
            "cells per row": WIDTH,
            "share of attention covered, mean of all heads (counted)": float(seen.coverage_by_head.mean()),
            "keys per query: this head / all heads (counted)": f"{spent[given.head]:.3g} / {spent.mean():.3g}",
            "keys per query, head by head (counted)": " ".join(f"{keys:.3g}" for keys in spent),
            "places in the linear pass, a query against the mean (relative difference, counted)": float(differ),
            "scale of the exact part, s_prob (mean of the head)": float(seen.s_prob.mean()),
            "share of the exact part in the output, s_mix (mean of the head)": float(seen.s_mix.mean()),
        },
    )


def sea_needs(s) -> dict:
    """Return the settings that the estimator asked for was trained on; none for the oracle."""
    return {} if s["estimator"] == "oracle" else KNOWN


def sea_refuses(s) -> str | None:
    """Return the sentence that refuses settings, or None."""
    if any(s[key] != value for key, value in sea_needs(s).items()):
        return f"{KNOWS}: choose these, or estimate by the oracle."
    if s["group"] != "query" and s["tokens"] > 1024:
        return f"Budgets over heads take up to 1,024 tokens here; {s['tokens']:,} asked for."
    return None
