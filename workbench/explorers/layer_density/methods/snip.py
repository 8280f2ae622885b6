"""SNIP, as a pruner at initialisation."""

from workbench.explorers.layer_density.method import ScoringMethod

METHOD = ScoringMethod(
    key="snip",
    title="SNIP: what the loss would change",
    told="the change of the loss without a weight (SNIP)",
    needs_data=True,
)
