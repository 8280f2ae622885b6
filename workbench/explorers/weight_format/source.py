"""Kinds of weights: what a source tells the explorer, and the sources there are, one file each under ``sources``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from widgets.controls.knob import Knob
from workbench.gathered import gathered

__all__ = ["WeightKind", "sources"]

PACKAGE = "workbench.explorers.weight_format.sources"


@dataclass(frozen=True, kw_only=True)
class WeightKind:
    """One kind of weights, before they are pruned.

    Parameters
    ----------
    key, title : name of the file, and what readers see.
    load : settings -> float32 (outputs, inputs), not to be changed.
    told : settings -> what the weight is, in words.
    knobs : all that it reads.
    missing : () -> "" or the sentence that says what must be installed.
    """

    key: str
    title: str
    load: Callable[[Mapping[str, Any]], np.ndarray]
    told: Callable[[Mapping[str, Any]], str]
    knobs: tuple[Knob, ...]
    missing: Callable[[], str] = lambda: ""


@cache
def sources() -> dict[str, WeightKind]:
    """Return every source by key, in the order of their titles."""
    return dict(sorted(gathered(PACKAGE, "SOURCE").items(), key=lambda item: item[1].title.lower()))
