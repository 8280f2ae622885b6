"""A matrix with eight diagonals on either side of the main one, squared."""

from workbench.data.matrices import banded
from workbench.data.product_pairs import paired
from workbench.explorers.spgemm.knobs import SCALE
from workbench.explorers.spgemm.source import Source

SOURCE = Source(
    key="banded",
    title="Banded matrix, squared",
    make=lambda settings: paired(banded(2 ** settings["scale"], 8)),
    knobs=(SCALE,),
)
