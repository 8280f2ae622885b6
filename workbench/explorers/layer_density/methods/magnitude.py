"""magnitude, as a pruner at initialisation."""

from workbench.explorers.layer_density.method import ScoringMethod

METHOD = ScoringMethod(
    key="magnitude", title="Magnitude of the initial weights", told="the magnitude of the initial weights"
)
