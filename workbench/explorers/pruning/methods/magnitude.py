"""Magnitude pruning: in every matrix the weights of the largest absolute value stay."""

from kernels.masks.magnitude import magnitude_mask
from workbench.explorers.pruning.forms import as_sparsity, share_count, unstructured
from workbench.explorers.pruning.levels import SHARES
from workbench.explorers.pruning.method import PruningMethod


def compress(weight, known, level):
    """Keep the largest |w| of the matrix."""
    kept = magnitude_mask(weight, as_sparsity(level, "magnitude"))
    return unstructured(weight * kept, kept)


METHOD = PruningMethod(
    key="magnitude", title="Magnitude", levels=SHARES, compress=compress, source="Han et al. 2015, arXiv 1506.02626",
    count=share_count("magnitude"),
)  # fmt: skip
