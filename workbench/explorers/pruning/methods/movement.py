"""Movement pruning: while the model trains, the weights stay that move away from zero."""

from workbench.explorers.pruning.forms import as_sparsity, unstructured
from workbench.explorers.pruning.levels import SHARES
from workbench.explorers.pruning.method import PruningMethod
from workbench.models.sparse_inference.compress import prune_while_distilling


def trained(dense, batches, level, **how):
    """Prune single weights by their movement, along a cubic schedule."""
    target = as_sparsity(level, "movement")
    return prune_while_distilling(dense, batches, sparsity=target, block=(1, 1), criterion="movement", **how)


def compress(weight, known, level):
    """Keep what the training has kept."""
    return unstructured(weight, weight != 0)


METHOD = PruningMethod(
    key="movement", title="Movement", levels=SHARES, compress=compress, trained=trained,
    source="Sanh et al. 2020, arXiv 2005.07683",
)  # fmt: skip
