"""Finds the benches of this folder: a file whose ``BENCH`` has the file's name as key."""

import difflib
import importlib
import pkgutil

import workbench.bench
from workbench.bench.timing import Bench


def benches() -> dict[str, Bench]:
    """Return every bench by key, in alphabetical order."""
    found = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(workbench.bench.__path__)):
        bench = getattr(importlib.import_module(f"workbench.bench.{name}"), "BENCH", None)
        if bench is None:
            continue
        if bench.key != name:
            raise ImportError(f"workbench.bench: {name}.py has key {bench.key!r}; the key must equal the file name.")
        found[name] = bench
    return found


def get(key: str) -> Bench:
    """Return one bench; a misspelt key raises KeyError naming the nearest."""
    found = benches()
    if key in found:
        return found[key]
    near = difflib.get_close_matches(key, found, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(found)}."
    raise KeyError(f"no bench {key!r}; {hint}")
