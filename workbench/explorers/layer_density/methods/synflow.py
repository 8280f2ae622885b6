"""SynFlow, as a pruner at initialisation."""

from workbench.explorers.layer_density.method import ScoringMethod

METHOD = ScoringMethod(
    key="synflow",
    title="SynFlow: the flow through all absolute weights",
    told="the flow of ones through all absolute weights (SynFlow)",
    rounds=True,
)
