"""Kinds of matrices: what a source tells the explorer, and the sources there are, one file each under ``sources``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from widgets.controls.knob import Knob
from workbench.gathered import gathered

__all__ = ["SIZE", "MatrixKind", "sources"]

PACKAGE = "workbench.explorers.monarch.sources"
SIZE = Knob(
    "n", "Size", "64", choices=tuple((str(n), f"{n} x {n}") for n in (16, 64, 144, 256)), help="Rows and columns."
)


@dataclass(frozen=True, kw_only=True)
class MatrixKind:
    """One kind of matrix.

    Parameters
    ----------
    key, title : name of the file, and what readers see.
    load : settings -> real or complex (m, n), not to be changed.
    told : settings -> what the matrix is, in words.
    remark : which structure wins on it and why, a sentence.
    knobs : all that it reads.
    kind : "counted" for what follows from a formula or data, "measured" for what trained weights made.
    missing : () -> "" or the sentence that says what must be installed.
    """

    key: str
    title: str
    load: Callable[[Mapping[str, Any]], np.ndarray]
    told: Callable[[Mapping[str, Any]], str]
    remark: str
    knobs: tuple[Knob, ...] = (SIZE,)
    kind: Literal["counted", "measured"] = "counted"
    missing: Callable[[], str] = lambda: ""


@cache
def sources() -> dict[str, MatrixKind]:
    """Return every source by key, in the order of their titles."""
    return dict(sorted(gathered(PACKAGE, "SOURCE").items(), key=lambda item: item[1].title.lower()))
