"""Which characters of a novel by Victor Hugo appear together, squared."""

from workbench.data.matrices import graph
from workbench.data.product_pairs import paired
from workbench.explorers.spgemm.source import Source

SOURCE = Source(
    key="les_miserables", title="Les Misérables, squared", make=lambda settings: paired(graph("les_miserables"))
)
