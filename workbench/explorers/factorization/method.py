"""What a method tells the explorer of factorisations, and the methods there are: one file each under ``methods``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from widgets.controls.knob import Knob
from widgets.figures.factorization import Factor, History
from widgets.views.frame.story import Story
from widgets.views.frame.worker import Progress
from workbench.gathered import gathered

__all__ = ["FactorMethod", "Factorised", "methods"]

PACKAGE = "workbench.explorers.factorization.methods"


@dataclass(frozen=True, kw_only=True, eq=False)
class Factorised:
    """What a method made of one matrix.

    Parameters
    ----------
    factors : in the order of the product, at most 4.
    rebuilt : float32 (m, n), their product.
    bits : what is stored, by kind, with values of 16 bits.
    multiply_adds : for each token.
    history : where the method works in steps.
    """

    factors: Sequence[Factor]
    rebuilt: np.ndarray
    bits: Mapping[str, int]
    multiply_adds: int
    history: History | None = None


@dataclass(frozen=True, kw_only=True)
class FactorMethod:
    """One way to write a matrix as a product.

    Parameters
    ----------
    key, title : name of the file, and what readers see.
    knobs : all that it reads, those shared with other methods from `knobs`.
    factorise : (weight float32 (m, n), gram float64 (n, n) of the inputs or None, settings, progress) -> Factorised.
        ValueError says in a sentence what does not fit.
    source : where the method is published.
    needs : "weights" alone, or the "gram" matrix X^T X of the layer's inputs.
    stories : settings worth seeing.
    """

    key: str
    title: str
    knobs: tuple[Knob, ...]
    factorise: Callable[[np.ndarray, np.ndarray | None, Mapping[str, Any], Progress], Factorised]
    source: str
    needs: Literal["weights", "gram"] = "weights"
    stories: tuple[Story, ...] = ()


@cache
def methods() -> dict[str, FactorMethod]:
    """Return every method by key, in the order of their titles."""
    return dict(sorted(gathered(PACKAGE, "METHOD").items(), key=lambda item: item[1].title.lower()))
