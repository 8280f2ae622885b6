"""Blocks of 4 outputs by 1 input, what the int8 kernel multiplies at once, by |w| times the norm of the input."""

import numpy as np

from kernels.masks.blocks import block_prune_mask
from kernels.masks.wanda import wanda_scores
from workbench.explorers.pruning.forms import as_sparsity, block_count, blocks
from workbench.explorers.pruning.levels import SHARES
from workbench.explorers.pruning.method import PruningMethod

BLOCK = (4, 1)


def compress(weight, known, level):
    """Keep the blocks of the largest mean score."""
    scores = wanda_scores(weight, np.diag(known.gram).copy())
    kept = block_prune_mask(np.ascontiguousarray(scores), as_sparsity(level, "blocks_4x1"), block=BLOCK)
    return blocks(weight * kept, kept, BLOCK)


METHOD = PruningMethod(
    key="blocks_4x1", title="4x1 blocks", levels=SHARES, compress=compress,
    source="Shen et al. 2023, arXiv 2306.16601", needs="gram",
    count=block_count("blocks_4x1", BLOCK),
)  # fmt: skip
