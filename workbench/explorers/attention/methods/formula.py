"""A mask by formula, computed block by block: full, partial and empty blocks."""

import numpy as np
import torch

from kernels.attention.block_sparse import block_sparse_attention_work
from kernels.attention.trace import AttentionTrace
from kernels.masks.block_select import block_density
from kernels.masks.formula import mask_from_formula
from widgets.controls.knob import Knob
from widgets.views.frame.story import Story
from workbench.explorers.attention import cost
from workbench.explorers.attention.knobs import BLOCK
from workbench.explorers.attention.method import Method
from workbench.models.attention.dense_attention import attention_weights, dense_flops

FORMULA = Knob(
    "formula",
    "Formula",
    "q >= k and (q - k < 128 or k < 16)",
    help="May use q (query), k (key), h (head), t (tokens); and, or, not; + - * // %; abs, min, max.",
)


def _trace(given, s):
    t, d, block = given.q.shape[2], given.q.shape[3], s["block"]
    allowed = mask_from_formula(s["formula"], t)
    blocks = -(-t // block)
    padded = np.zeros((blocks * block, blocks * block), bool)
    padded[:t, :t] = allowed
    keep = padded.reshape(blocks, block, blocks, block).any(axis=(1, 3))
    attention = attention_weights(given.q, given.k, causal=given.causal)[0, 0]
    effective = attention_weights(given.q, given.k, causal=False, allowed=torch.as_tensor(allowed))[0, 0]
    return AttentionTrace(
        method="Formula",
        t=t,
        causal=False,
        block_size=block,
        density=block_density(keep[None, None], causal=False),
        coverage=float((attention * torch.as_tensor(allowed)).sum() / attention.sum()),
        attention_flops=block_sparse_attention_work(keep[None, None], t=t, d=d, block_size=block).flops,
        dense_flops=dense_flops(t, d, causal=given.causal),
        attention=attention.numpy(),
        effective=effective.numpy(),
        allowed=allowed,
        keep=keep,
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
    moved=cost.bytes_by_block,
    stories=STORIES,
)
