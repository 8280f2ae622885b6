"""The friendships of a karate club of 34 people, squared."""

from workbench.data.matrices import graph
from workbench.data.product_pairs import paired
from workbench.explorers.spgemm.source import Source

SOURCE = Source(key="karate", title="Karate club, squared", make=lambda settings: paired(graph("karate")))
