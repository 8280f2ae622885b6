"""A matrix whose rows differ in length by a power law, squared."""

from workbench.data.matrices import power_law
from workbench.data.product_pairs import paired
from workbench.explorers.spgemm.knobs import EDGE_FACTOR, SCALE, SEED
from workbench.explorers.spgemm.source import Source


def _make(settings):
    return paired(power_law(2 ** settings["scale"], nnz_per_row=settings["edge_factor"], seed=settings["seed"]))


SOURCE = Source(
    key="power_law",
    title="Matrix with power-law rows, squared",
    make=_make,
    knobs=(SCALE, EDGE_FACTOR, SEED),
)
