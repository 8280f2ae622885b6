"""Kinds of caches: what a source tells the explorer, and the sources there are, one file each under ``sources``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from widgets.controls.knob import Knob
from workbench.gathered import gathered

__all__ = ["CacheKind", "sources"]

PACKAGE = "workbench.explorers.kv_cache.sources"


@dataclass(frozen=True, kw_only=True)
class CacheKind:
    """One kind of keys and values.

    Parameters
    ----------
    key, title : name of the file, and what readers see.
    load : settings -> q (1, query heads, n, d), k and v (1, heads, n, d), float32, not to be changed.
    told : settings -> which cache it is, in words.
    kind : "measured" where trained weights made it, "counted" where a generator did.
    knobs : all that it reads.
    missing : () -> "" or the sentence that says what must be installed.
    """

    key: str
    title: str
    load: Callable[[Mapping[str, Any]], tuple[np.ndarray, np.ndarray, np.ndarray]]
    told: Callable[[Mapping[str, Any]], str]
    kind: Literal["measured", "counted"]
    knobs: tuple[Knob, ...]
    missing: Callable[[], str] = lambda: ""


@cache
def sources() -> dict[str, CacheKind]:
    """Return every source by key, in the order of their titles."""
    return dict(sorted(gathered(PACKAGE, "SOURCE").items(), key=lambda item: item[1].title.lower()))
