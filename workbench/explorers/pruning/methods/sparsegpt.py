"""SparseGPT: weights go column by column, and those that stay make up for it."""

from kernels.masks.sparsegpt import sparsegpt_prune
from workbench.explorers.pruning.forms import as_sparsity, unstructured
from workbench.explorers.pruning.levels import SHARES
from workbench.explorers.pruning.method import PruningMethod


def compress(weight, known, level):
    """Prune and adjust."""
    new, kept = sparsegpt_prune(weight, known.gram, as_sparsity(level, "sparsegpt"), samples=known.tokens)
    return unstructured(new, kept)


METHOD = PruningMethod(
    key="sparsegpt", title="SparseGPT", levels=SHARES, compress=compress,
    source="Frantar and Alistarh 2023, arXiv 2301.00774", needs="gram",
)  # fmt: skip
