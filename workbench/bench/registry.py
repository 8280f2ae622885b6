"""The benches of this folder: files whose ``BENCH`` has the file's name as key."""

from workbench.bench.timing import Bench
from workbench.gathered import find, gathered


def benches() -> dict[str, Bench]:
    """Return every bench by key, in alphabetical order."""
    return gathered("workbench.bench", "BENCH")


def get(key: str) -> Bench:
    """Return one bench; a misspelt key raises KeyError naming the nearest."""
    return find("bench", key, benches())
