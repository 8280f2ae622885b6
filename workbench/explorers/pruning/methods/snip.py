"""SNIP: |w g|, how much the loss would change if the weight went, to first order; the largest of the matrix stay."""

from kernels.masks.movement import snip_scores
from kernels.masks.prune import prune_mask
from workbench.explorers.pruning.forms import as_sparsity, share_count, unstructured
from workbench.explorers.pruning.levels import SHARES
from workbench.explorers.pruning.method import PruningMethod


def compress(weight, known, level):
    """Keep the largest |w g| of the matrix."""
    kept = prune_mask(snip_scores(weight, known.gradient), as_sparsity(level, "snip"))
    return unstructured(weight * kept, kept)


METHOD = PruningMethod(
    key="snip", title="SNIP", levels=SHARES, compress=compress, source="Lee et al. 2019, arXiv 1810.02340",
    needs="gradient",
    count=share_count("snip"),
)  # fmt: skip
