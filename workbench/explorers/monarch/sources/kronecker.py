"""A Kronecker product of two matrices drawn at random."""

import numpy as np

from workbench.explorers.monarch.source import MatrixKind


def load(settings) -> np.ndarray:
    """Return the product, (n, n)."""
    n = int(settings["n"])
    rng, m = np.random.default_rng(1), round(n**0.5)
    return np.kron(rng.standard_normal((m, m)), rng.standard_normal((m, m)))


SOURCE = MatrixKind(
    key="kronecker",
    title="Kronecker product",
    load=load,
    told=lambda settings: "a Kronecker product",
    remark=(
        "Every part with its stride is a column of one factor times a row of the other: the Monarch matrix with "
        "sqrt(n) blocks is exact."
    ),
)
