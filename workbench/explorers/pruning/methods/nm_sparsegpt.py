"""n:m by SparseGPT: of every m inputs n stay, chosen from the weights as adjusted so far."""

from kernels.masks.sparsegpt import sparsegpt_prune
from workbench.explorers.pruning.forms import n_of_m, nm_count, read_nm
from workbench.explorers.pruning.levels import RATIOS
from workbench.explorers.pruning.method import PruningMethod


def compress(weight, known, level):
    """Prune and adjust."""
    n, m = read_nm(level, "nm_sparsegpt")
    new, kept = sparsegpt_prune(weight, known.gram, n=n, m=m, samples=known.tokens)
    return n_of_m(new, kept, n, m)


METHOD = PruningMethod(
    key="nm_sparsegpt", title="n:m, SparseGPT", levels=RATIOS, compress=compress,
    source="Frantar and Alistarh 2023, arXiv 2301.00774", needs="gram",
    count=nm_count("nm_sparsegpt"), ladder="n:m",
)  # fmt: skip
