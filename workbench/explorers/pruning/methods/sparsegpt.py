"""SparseGPT: weights go column by column, and those that stay make up for it."""

from kernels.masks.sparsegpt import sparsegpt_prune
from workbench.explorers.pruning.forms import as_sparsity, share_count, unstructured
from workbench.explorers.pruning.levels import SHARES
from workbench.explorers.pruning.method import PruningMethod

BLOCK = 128  # columns that are pruned together, to the share


def compress(weight, known, level):
    """Prune and adjust."""
    new, kept = sparsegpt_prune(weight, known.gram, as_sparsity(level, "sparsegpt"), block=BLOCK, samples=known.tokens)
    return unstructured(new, kept)


def _column_blocks(shape):
    rows, columns = shape
    return [(columns // BLOCK, rows * BLOCK), (1, rows * (columns % BLOCK))]


METHOD = PruningMethod(
    key="sparsegpt", title="SparseGPT", levels=SHARES, compress=compress,
    source="Frantar and Alistarh 2023, arXiv 2301.00774", needs="gram",
    count=share_count("sparsegpt", _column_blocks),
)  # fmt: skip
