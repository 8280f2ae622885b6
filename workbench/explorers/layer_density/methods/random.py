"""random, as a pruner at initialisation."""

from workbench.explorers.layer_density.method import ScoringMethod

METHOD = ScoringMethod(key="random", title="Random: nothing is known of a weight", told="chance")
