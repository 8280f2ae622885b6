"""Truncated SVD: the matrix of the rank that the values left can hold, nearest to the weights."""

from kernels.factor.svd import svd_plain
from workbench.explorers.pruning.factored import from_low_rank, low_rank_count, rank_at
from workbench.explorers.pruning.levels import SHARES
from workbench.explorers.pruning.method import PruningMethod


def compress(weight, known, level):
    """Keep the largest singular values."""
    return from_low_rank(svd_plain(weight, rank_at(weight.shape, level, "svd")))


METHOD = PruningMethod(
    key="svd", title="Truncated SVD", levels=SHARES, compress=compress,
    source="Eckart and Young 1936; of weights, Denton et al. 2014, arXiv 1404.0736",
    count=low_rank_count("svd"), masks=False,
)  # fmt: skip
