"""n:m by Wanda's score: of every m inputs the n of the largest |w| times input norm stay."""

import numpy as np

from kernels.masks.wanda import wanda_mask
from workbench.explorers.pruning.forms import n_of_m, nm_count, read_nm
from workbench.explorers.pruning.levels import RATIOS
from workbench.explorers.pruning.method import PruningMethod


def compress(weight, known, level):
    """Keep the n largest |w| ||x|| of every m."""
    n, m = read_nm(level, "nm_wanda")
    kept = wanda_mask(weight, np.diag(known.gram).copy(), n=n, m=m)
    return n_of_m(weight * kept, kept, n, m)


METHOD = PruningMethod(
    key="nm_wanda", title="n:m, Wanda", levels=RATIOS, compress=compress,
    source="Sun et al. 2023, arXiv 2306.11695", needs="gram",
    count=nm_count("nm_wanda"), ladder="n:m",
)  # fmt: skip
