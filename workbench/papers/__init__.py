"""The catalog of papers: one folder per paper, found by looking into this folder; nobody keeps a list."""

from functools import cache

from workbench.gathered import find, gathered
from workbench.paper import Paper


@cache
def catalog() -> dict[str, Paper]:
    """Return every paper by key, in alphabetical order."""
    return gathered(__name__, "PAPER", file="entry")


def get(key: str) -> Paper:
    """Return one paper; a misspelt key raises KeyError naming the nearest."""
    return find("paper", key, catalog())
