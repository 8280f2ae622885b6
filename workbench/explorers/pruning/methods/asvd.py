"""SVD-LLM: the matrix of the rank that the values left can hold whose outputs are nearest, by whitening the inputs."""

from kernels.factor.svd import svd_llm
from workbench.explorers.pruning.factored import from_low_rank, low_rank_count, rank_at
from workbench.explorers.pruning.levels import SHARES
from workbench.explorers.pruning.method import PruningMethod


def compress(weight, known, level):
    """Keep the largest singular values of the whitened weights."""
    return from_low_rank(svd_llm(weight, known.gram, rank_at(weight.shape, level, "asvd")))


METHOD = PruningMethod(
    key="asvd", title="SVD of whitened weights (SVD-LLM)", levels=SHARES, compress=compress,
    source="Wang et al. 2024, arXiv 2403.07378", needs="gram", count=low_rank_count("asvd"), masks=False,
)  # fmt: skip
