"""The catalog of papers: one file per paper, found by looking into this folder; nobody keeps a list.

A file whose name begins with an underscore is part of a paper, not one.
"""

import difflib
import importlib
import pkgutil
from functools import cache

from workbench.paper import Paper


@cache
def catalog() -> dict[str, Paper]:
    """Return every paper by key, in alphabetical order."""
    papers = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_"):
        paper = importlib.import_module(f"{__name__}.{name}").PAPER
        if paper.key != name:
            raise ImportError(f"workbench.papers: {name}.py has key {paper.key!r}; the key must equal the file name.")
        papers[name] = paper
    return papers


def get(key: str) -> Paper:
    """Return one paper; a misspelt key raises KeyError naming the nearest."""
    papers = catalog()
    if key in papers:
        return papers[key]
    near = difflib.get_close_matches(key, papers, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(papers)}."
    raise KeyError(f"no paper {key!r}; {hint}")
