"""Pairs of operands: what a source tells the explorer, and the sources there are, one file each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp

from widgets.controls.knob import Knob
from workbench.gathered import find, gathered

__all__ = ["Pair", "Source", "load_pair", "small_values", "sources"]

PACKAGE = "workbench.explorers.spgemm.sources"
Settings = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two operands to multiply.

    Parameters
    ----------
    title : what they are, in words.
    made_from : the source's key and the values of its knobs, in their order; equal for equal operands.
    a, b : csr_array, m x k and k x n.
    """

    title: str
    made_from: tuple
    a: sp.csr_array
    b: sp.csr_array


@dataclass(frozen=True, kw_only=True)
class Source:
    """One kind of operands.

    Parameters
    ----------
    key, title : name of the file, and what readers see.
    make : settings -> (a, b), two csr_arrays.
    knobs : all that it reads, those shared with other sources from `knobs`; no others are shown for it.
    remark : settings -> what the headline adds to title and rows, such as how vertices are labelled; "" for nothing.
    refuse : settings -> the sentence that refuses settings that do not fit together, or None.
    """

    key: str
    title: str
    make: Callable[[Settings], tuple[sp.csr_array, sp.csr_array]]
    knobs: tuple[Knob, ...] = ()
    remark: Callable[[Settings], str] = lambda settings: ""
    refuse: Callable[[Settings], str | None] = lambda settings: None


@cache
def sources() -> dict[str, Source]:
    """Return every source by key, in the order of their titles."""
    return dict(sorted(gathered(PACKAGE, "SOURCE").items(), key=lambda item: item[1].title.lower()))


def load_pair(source: str, **settings) -> Pair:
    """Return a source's operands; the last few are kept.

    Parameters
    ----------
    source : a key of `sources`.
    settings : values of its knobs; what is left out has the knob's default.

    Raises
    ------
    KeyError : unknown source. TypeError : a setting that the source does not read. ValueError : a value out of range.
    """
    chosen = find("source", source, sources())
    defaults = {knob.key: knob.default for knob in chosen.knobs}
    unknown = set(settings) - set(defaults)
    if unknown:
        told = f"its settings are {', '.join(defaults)}" if defaults else "it has none"
        raise TypeError(f"load_pair: {source} has no setting {sorted(unknown)[0]!r}; {told}")
    return _pair(chosen, tuple(knob.validate(settings.get(knob.key, knob.default)) for knob in chosen.knobs))


@lru_cache(maxsize=4)
def _pair(source: Source, values: tuple) -> Pair:
    settings = {knob.key: value for knob, value in zip(source.knobs, values, strict=True)}
    a, b = source.make(settings)
    title = ", ".join(filter(None, (source.title, f"{a.shape[0]:,} rows", source.remark(settings))))
    return Pair(title=title, made_from=(source.key, *values), a=a, b=b)


def small_values(a, b, seed=7) -> tuple[sp.csr_array, sp.csr_array]:
    """Give a pair of patterns whole values from 1 to 9, so that a step of the product can be followed by eye."""
    rng = np.random.default_rng(seed)
    drawn = tuple(x.copy() for x in (a, b))
    for x in drawn:
        x.data = rng.integers(1, 10, x.nnz).astype(np.float64)
    return drawn
