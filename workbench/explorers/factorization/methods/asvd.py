"""The matrix of a rank whose outputs on calibration data are nearest: activation-weighted truncated SVD."""

from kernels.factor.svd import rank_for_ratio, svd_llm
from widgets.views.frame.story import Story
from workbench.explorers.factorization.forms import low_rank
from workbench.explorers.factorization.knobs import SHARE
from workbench.explorers.factorization.method import FactorMethod


def factorise(weight, gram, settings, progress):
    """Keep the largest singular values of the whitened matrix."""
    progress(0.1, "singular value decomposition of the whitened weights")
    return low_rank(svd_llm(weight, gram, rank_for_ratio(settings["share"], weight.shape)))


METHOD = FactorMethod(
    key="asvd", title="Activation-weighted SVD", knobs=(SHARE,), factorise=factorise,
    source="Wang et al. 2024, SVD-LLM", needs="gram",
    stories=(
        Story(
            "A larger error of the weights, better outputs",
            {"method": "asvd", "share": 0.5, "section": "error"},
            "The inputs of a layer are not alike: some directions never occur. This method spends its rank where the "
            "inputs are. Compare both errors in the headline with those of the truncated SVD at the same share.",
        ),
    ),
)  # fmt: skip
