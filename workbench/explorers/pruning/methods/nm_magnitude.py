"""n:m by magnitude: the n largest of every m inputs stay."""

import numpy as np

from kernels.masks.nm import nm_mask
from workbench.explorers.pruning.forms import n_of_m, nm_count, read_nm
from workbench.explorers.pruning.levels import RATIOS
from workbench.explorers.pruning.method import PruningMethod


def compress(weight, known, level):
    """Keep the n largest |w| of every m."""
    n, m = read_nm(level, "nm_magnitude")
    kept = nm_mask(np.abs(weight), n, m)
    return n_of_m(weight * kept, kept, n, m)


METHOD = PruningMethod(
    key="nm_magnitude", title="n:m, magnitude", levels=RATIOS, compress=compress,
    source="Mishra et al. 2021, arXiv 2104.08378",
    count=nm_count("nm_magnitude"), ladder="n:m",
)  # fmt: skip
