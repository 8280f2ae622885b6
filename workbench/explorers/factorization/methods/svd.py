"""The nearest matrix of a rank: truncated singular value decomposition."""

from kernels.factor.svd import rank_for_ratio, svd_plain
from widgets.views.frame.story import Story
from workbench.explorers.factorization.forms import low_rank
from workbench.explorers.factorization.knobs import SHARE
from workbench.explorers.factorization.method import FactorMethod


def factorise(weight, gram, settings, progress):
    """Keep the largest singular values."""
    progress(0.1, "singular value decomposition")
    rank = rank_for_ratio(settings["share"], weight.shape)
    return low_rank(svd_plain(weight, rank))


METHOD = FactorMethod(
    key="svd", title="Truncated SVD", knobs=(SHARE,), factorise=factorise, source="Eckart and Young 1936",
    stories=(
        Story(
            "One subspace for all rows",
            {"method": "svd", "share": 0.5, "section": "error"},
            "Every row of the product lies in one space of few dimensions. The singular values of the matrix fall "
            "slowly: what is cut off still holds much of it. Which layer suits this method best? Tick “All layers”.",
        ),
    ),
)  # fmt: skip
