"""A mask by formula, computed block by block: full, partial and empty blocks."""

import numpy as np
import torch

from kernels.attention.cost import attention_cost
from kernels.attention.trace import AttentionTrace
from kernels.masks.formula import mask_from_formula
from widgets.controls.knob import Knob
from widgets.views.frame.story import Story
from workbench.explorers.attention import cost
from workbench.explorers.attention.knobs import BLOCK
from workbench.explorers.attention.method import Method
from workbench.models.attention.dense_attention import attention_weights

FORMULA = Knob(
    "formula",
    "Formula",
    "q >= k and (q - k < 128 or k < 16)",
    help="May use q (query), k (key), h (head), t (tokens); and, or, not; + - * // %; abs, min, max.",
)


def _trace(given, s):
    t, d, block = given.q.shape[2], given.q.shape[3], s["block"]
    asked = mask_from_formula(s["formula"], t)
    allowed = asked & np.tri(t, dtype=bool) if given.causal else asked  # no method may look ahead in a causal model
    ahead = np.count_nonzero(asked) - np.count_nonzero(allowed)
    blocks = -(-t // block)
    padded = np.zeros((blocks * block, blocks * block), bool)
    padded[:t, :t] = allowed
    keep = padded.reshape(blocks, block, blocks, block).any(axis=(1, 3))
    attention = attention_weights(given.q, given.k, causal=given.causal)[0, 0]
    effective = attention_weights(given.q, given.k, causal=False, allowed=torch.as_tensor(allowed))[0, 0]
    return AttentionTrace(
        method="Formula",
        t=t,
        causal=given.causal,
        block_size=block,
        cost=attention_cost(t=t, d=d, causal=given.causal, allowed=allowed, block_size=block),
        coverage=float((attention * torch.as_tensor(allowed)).sum() / attention.sum()),
        attention=attention.numpy(),
        effective=effective.numpy(),
        allowed=allowed,
        keep=keep,
        facts={"pairs of the formula that look ahead, left out (counted)": ahead} if ahead else {},
    )


STORIES = (
    Story(
        "A window and the first keys",
        {"formula": "q >= k and (q - k < 64 or k < 4)", "left": "blocks", "right": "allowed"},
        "A block is full, partial or empty. Only a partial one needs a mask inside it. Change the formula or the block "
        "size, and compare the counts in the table.",
    ),
    Story(
        "Every third token",
        {"formula": "q >= k and (q - k) % 3 == 0", "left": "blocks", "right": "allowed"},
        "A third of the pairs is computed, yet no block below the diagonal is empty. A kernel that skips whole blocks "
        "saves nothing here.",
    ),
)

METHOD = Method(
    key="formula",
    title="Formula",
    knobs=(FORMULA, BLOCK),
    trace=_trace,
    runs=cost.run_pairs,
    stories=STORIES,
)
