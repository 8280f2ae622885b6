"""Two small matrices whose product can be done by hand."""

from workbench.data.product_pairs import worked_example
from workbench.explorers.spgemm.source import Source

SOURCE = Source(
    key="worked",
    title="Worked example with 7 partial products",
    make=lambda settings: worked_example(),
)
