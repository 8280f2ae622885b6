"""Blocks of 16 by 16 by their Frobenius norm: the easiest to make fast, the hardest to prune."""

from kernels.masks.blocks import block_prune_mask
from workbench.explorers.pruning.forms import as_sparsity, block_count, blocks
from workbench.explorers.pruning.levels import SHARES
from workbench.explorers.pruning.method import PruningMethod

BLOCK = (16, 16)


def compress(weight, known, level):
    """Keep the blocks of the largest norm."""
    kept = block_prune_mask(weight, as_sparsity(level, "blocks_16"), block=BLOCK, score="norm")
    return blocks(weight * kept, kept, BLOCK)


METHOD = PruningMethod(
    key="blocks_16", title="16x16 blocks", levels=SHARES, compress=compress,
    source="Narang et al. 2017, arXiv 1711.02782",
    count=block_count("blocks_16", BLOCK),
)  # fmt: skip
