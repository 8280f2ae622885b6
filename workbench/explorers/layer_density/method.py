"""Pruners at initialisation: what each tells the explorer, and those there are, one file each under ``methods``."""

from dataclasses import dataclass
from functools import cache

from workbench.gathered import gathered

__all__ = ["ScoringMethod", "methods"]

PACKAGE = "workbench.explorers.layer_density.methods"


@dataclass(frozen=True, kw_only=True)
class ScoringMethod:
    """One way to score weights before training.

    Parameters
    ----------
    key : name of the file, and of the method in `workbench.models.compression.pai_scores.pai_scores`.
    title : what readers see.
    told : what scores the weights, words that go before "keeps so many weights".
    needs_data : whether it wants labelled examples.
    rounds : whether it is meant to be repeated on the net masked so far.
    """

    key: str
    title: str
    told: str
    needs_data: bool = False
    rounds: bool = False


@cache
def methods() -> dict[str, ScoringMethod]:
    """Return every method by key, those in rounds first, then by title."""
    found = gathered(PACKAGE, "METHOD")
    return dict(sorted(found.items(), key=lambda item: (not item[1].rounds, item[1].title.lower())))
