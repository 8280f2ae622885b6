"""NoWag-P, n:m: of every m inputs of an output the n of the largest h w^2 stay, rows and columns normalised first."""

from workbench.explorers.pruning.forms import n_of_m, nm_count, read_nm
from workbench.explorers.pruning.levels import RATIOS
from workbench.explorers.pruning.method import PruningMethod
from workbench.models.compression.armor import nowag_p
from workbench.models.compression.armor_linear import hessian_diag
from workbench.models.sparse_inference.statistics import InputStatistics


def compress(weight, known, level):
    """Keep the best of every group of the normalised weights."""
    n, m = read_nm(level, "nowag")
    kept = nowag_p(weight, hessian_diag(InputStatistics(known.gram, known.tokens)), n, m).mask
    return n_of_m(weight * kept, kept, n, m)


METHOD = PruningMethod(
    key="nowag", title="n:m, NoWag-P", levels=RATIOS, compress=compress,
    source="Liu et al. 2025, arXiv 2510.05528", needs="gram", count=nm_count("nowag"), ladder="n:m",
)  # fmt: skip
