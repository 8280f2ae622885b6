"""GraSP, as a pruner at initialisation."""

from workbench.explorers.layer_density.method import ScoringMethod

METHOD = ScoringMethod(
    key="grasp",
    title="GraSP: what the gradient would change",
    told="the change of the gradient's norm without a weight (GraSP)",
    needs_data=True,
)
