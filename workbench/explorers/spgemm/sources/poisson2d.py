"""The five-point Laplacian of a square grid, squared."""

from workbench.data.matrices import poisson2d
from workbench.data.product_pairs import paired
from workbench.explorers.spgemm.knobs import SCALE
from workbench.explorers.spgemm.source import Source

SOURCE = Source(
    key="poisson2d",
    title="Poisson equation on a square grid, squared",
    make=lambda settings: paired(poisson2d(2 ** (settings["scale"] // 2))),
    knobs=(SCALE,),
)
