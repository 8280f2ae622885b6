"""SEA in the explorer: a compressed estimate chooses the cells (Lee et al. 2023, arXiv 2310.01777).

The estimate is true attention averaged into cells (the oracle), or that of an estimator that ships with the workbench.
"""

import copy
import dataclasses

import numpy as np
import torch

from kernels.attention.cost import attention_cost, dense_pairs
from kernels.attention.trace import AttentionTrace
from widgets.controls.knob import Knob
from widgets.figures.attention import CoverageCurve, Panel
from widgets.views.frame.story import Story
from workbench.explorers.attention import cost
from workbench.explorers.attention.method import Method, Requires, Variant
from workbench.models.attention import sea
from workbench.models.attention.dense_attention import attention_weights
from workbench.models.attention.sea_cells import GROUPS
from workbench.models.attention.sea_stages import stages
from workbench.models.attention.sea_training import LAYER, STEPS, TOKENS, WIDTH, shipped

KEYS = (2, 4, 8, 16, 32, 64)
TRAINED = {f"trained_{steps}" if steps else "untrained": steps for steps in STEPS}
TRAINED_FOR = {"input": "minilm", "layer": LAYER, "cells": WIDTH}
BECAUSE = f"SEA's estimators are trained for layer {LAYER} of the MiniLM encoder (both directions), with {WIDTH} cells"
KNOBS = (
    Knob(
        "estimator",
        "Estimate of the attention",
        "oracle",
        choices=(
            ("oracle", "true attention, averaged (oracle)"),
            *((key, f"trained, {steps} steps" if steps else "untrained") for key, steps in TRAINED.items()),
        ),
        help="True attention averaged into cells, or the output of SEA's estimator at a step of its training.",
    ),
    Knob("cells", "Cells per estimated row", 32, 8, 256, scale="log2", help="Width of the compressed attention."),
    Knob("keys_per_query", "Keys per query", 12, 1, 256, 1, help="Keys that a query attends to, on average."),
    Knob(
        "group",
        "Rank cells over",
        "query",
        choices=tuple((key, key.replace("_", " ")) for key in GROUPS),
        help="Cells that are ranked together share one budget of keys.",
    ),
)
PANELS = (
    Panel("positions", "positions as values (V_I)", columns="channel"),
    Panel("linear", "output of the linear attention (absolute values)", columns="channel"),
    Panel("cells", "chosen cells of the estimate"),
)


def _trace(given, s) -> AttentionTrace:
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
    t, d = given.q.shape[2:]
    spent = cells.sum(-1, dtype=torch.float32).mean(-1)
    heads = 1 if given.all_q is None else given.all_q.shape[1]
    facts = {"cells per row": width, "keys per query, mean": float(allowed.sum() / seen.t)}
    if len(spent) > 1:
        facts["cells chosen per query: this head / mean of all heads, fewest to most"] = (
            f"{spent[head]:.3g} / {spent.mean():.3g}, {spent.min():.3g} to {spent.max():.3g}"
        )
    before = sea.estimate_multiply_adds(t, d, heads, width, causal=given.causal)
    return dataclasses.replace(
        seen,
        allowed=allowed.numpy(),
        effective=attention_weights(given.q, given.k, causal=False, allowed=allowed)[0, 0].numpy(),
        cost=attention_cost(t=t, d=d, causal=given.causal, allowed=allowed.numpy(), before=before),
        coverage=float((attention * allowed).sum() / attention.sum()),
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
        cost=attention_cost(
            t=t, d=d, causal=False, allowed=seen.allowed, before=sea.estimate_multiply_adds(t, d, len(spent), WIDTH)
        ),
        coverage=float(seen.coverage_by_head[given.head]),
        attention=seen.attention,
        effective=seen.effective,
        allowed=seen.allowed,
        estimate=seen.estimate,
        maps={"cells": seen.cells, "positions": seen.position, "linear": np.abs(seen.mixed)},
        facts={
            "training steps": f"{steps}, on windows of {TOKENS} tokens",
            "cells per row": WIDTH,
            "attention covered, mean of all heads (measured)": float(seen.coverage_by_head.mean()),
            "keys per query: this head / all heads (measured)": f"{spent[given.head]:.3g} / {spent.mean():.3g}",
            "keys per query, head by head (measured)": " ".join(f"{keys:.3g}" for keys in spent),
            "position half of the linear attention: relative difference of a row from the mean row (measured)": float(
                differ
            ),
            "scale of the exact part, s_prob (mean of the head, measured)": float(seen.s_prob.mean()),
            "share of the exact part in the output, s_mix (mean of the head, measured)": float(seen.s_mix.mean()),
        },
    )


def _curves(given, s, seen):
    """Coverage over keys per query, from the one estimate, and beside an estimator's the oracle's."""
    lengths = torch.tensor([seen.t])
    estimates = {seen.method: torch.from_numpy(seen.estimate)[None, None]}
    if s["estimator"] != "oracle":
        best = sea.oracle_estimate(given.q, given.k, s["cells"], lengths, causal=given.causal)
        estimates["SEA (oracle estimate)"] = best
    attention = torch.from_numpy(seen.attention)
    pairs = dense_pairs(seen.t, causal=given.causal)
    settings = tuple(f"{keys} keys" for keys in KEYS)
    found = []
    for name, est in estimates.items():
        density, coverage = [], []
        for keys in KEYS:
            cells = sea.grouped_topk(est, keys, lengths, "query", causal=given.causal)
            allowed = sea.expand_cells(cells, lengths, causal=given.causal)[0, 0]
            density.append(float(allowed.sum() / pairs))
            coverage.append(float((attention * allowed).sum() / attention.sum()))
        found.append(
            CoverageCurve(
                label=f"{name}, cells per query",
                settings=settings,
                density=np.array(density),
                coverage=np.array(coverage),
            )
        )
    return found


def _required(s):
    return {} if s["estimator"] == "oracle" else TRAINED_FOR


def _refuse(s, source):
    if any(s[key] != value for key, value in _required(s).items()):
        return f"{BECAUSE}: choose that input, or take the oracle's estimate."
    if s["group"] != "query" and s["tokens"] > 1024:
        return f"Ranking cells over several heads takes up to 1,024 tokens here; {s['tokens']:,} were asked for."
    return None


_ESTIMATOR = {"input": "minilm", "tokens": 128, "head": 8, "estimator": "trained_180", "group": "causal_batch"}
STORIES = (
    Story(
        "A narrow matrix that stands for the mask",
        {"tokens": 128, "cells": 32, "keys_per_query": 12, "left": "cells", "right": "allowed"},
        "On the left are the chosen cells of the compressed estimate: 128 queries, 32 cells each. On the right the "
        "same cells are stretched to the keys that they stand for. A later query sees more keys, so each of its cells "
        "covers more of them, and a column of cells becomes a wedge.",
    ),
    Story(
        "Heads share one budget",
        {
            "input": "minilm",
            "tokens": 128,
            "cells": 32,
            "keys_per_query": 12,
            "group": "batch",
            "left": "cells",
            "right": "allowed",
        },
        "Cells are ranked over all heads together, so the heads compete for them. The table says how many cells this "
        "head gets, beside the others. Choose another head, or rank the cells of each query alone, and compare.",
    ),
    Story(
        "What 180 training steps change",
        _ESTIMATOR | {"compare_with": "sea_untrained", "right": "estimate"},
        "On the left is the estimate after 180 steps of training, on the right the one before training. Untrained, "
        "all cells are nearly equal, so chance decides which are chosen. Now choose earlier steps on the left. After "
        "20 steps only the first keys stand out; after 60 there is a broad band around the diagonal as well. The "
        "first row of the table says how much of the attention is covered.",
    ),
    Story(
        "What the linear attention contributes",
        _ESTIMATOR | {"left": "linear", "right": "estimate"},
        "On the left is the output of the linear attention for every query: positions in its left half, values in "
        "its right half. For this head all rows look alike, because each is an average over the whole text. The table "
        "says how little they differ. So the diagonal in the estimate on the right was learnt from the values, which "
        "the decoder sees as well. In heads 5 and 6 the rows do differ.",
    ),
    Story(
        "A text longer than those of the training",
        _ESTIMATOR | {"tokens": 512, "compare_with": "sea_oracle", "right": "estimate"},
        "The estimator was trained on windows of 128 tokens; this text has 512. On the right, the oracle's estimate "
        "has one strong diagonal over the whole text. On the left, the estimator's diagonal crosses all cells within "
        "some 150 tokens and then starts again. It has learnt absolute positions, not shares of the length. Compare "
        "the first rows of the table.",
    ),
)

METHOD = Method(
    key="sea",
    title="SEA",
    knobs=KNOBS,
    trace=_trace,
    panels=PANELS,
    curves=_curves,
    runs=cost.run_pairs,
    longest=2048,
    refuse=_refuse,
    requires=Requires(
        settings=_required,
        because=BECAUSE,
        otherwise={"estimator": "oracle"},
        remark="for other inputs the oracle's estimate is used",
    ),
    stories=STORIES,
    variants=(
        Variant(key="sea_oracle", title="SEA, the oracle's estimate", settings={"estimator": "oracle"}),
        Variant(key="sea_untrained", title="SEA, untrained estimator", settings={"estimator": "untrained"}),
    ),
)
