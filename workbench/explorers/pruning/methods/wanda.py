"""Wanda: |w| times the norm of its input; the largest of every row stay."""

import numpy as np

from kernels.masks.wanda import wanda_mask
from workbench.explorers.pruning.forms import as_sparsity, share_count, unstructured
from workbench.explorers.pruning.levels import SHARES
from workbench.explorers.pruning.method import PruningMethod


def compress(weight, known, level):
    """Keep the largest |w| ||x|| of every row."""
    kept = wanda_mask(weight, np.diag(known.gram).copy(), as_sparsity(level, "wanda"))
    return unstructured(weight * kept, kept)


METHOD = PruningMethod(
    key="wanda", title="Wanda", levels=SHARES, compress=compress, source="Sun et al. 2023, arXiv 2306.11695",
    needs="gram",
    count=share_count("wanda", groups=lambda shape: [shape]),
)  # fmt: skip
