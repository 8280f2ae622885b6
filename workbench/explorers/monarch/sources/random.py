"""Independent normal numbers."""

import numpy as np

from workbench.explorers.monarch.source import MatrixKind


def load(settings) -> np.ndarray:
    """Return the numbers, (n, n)."""
    n = int(settings["n"])
    return np.random.default_rng(1).standard_normal((n, n))


SOURCE = MatrixKind(
    key="random",
    title="Drawn at random",
    load=load,
    told=lambda settings: "random numbers",
    remark=(
        "There is no structure to find: all structures lose about as much, and Monarch parts of rank one gain a "
        "little, since small matrices have the larger first singular value."
    ),
)
