"""The models that the pruning explorer prunes: one file each under ``sources``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from widgets.figures.pruning import Axis
from workbench.data import text
from workbench.gathered import find, gathered

__all__ = ["PruningSource", "source", "sources", "training_text"]

PACKAGE = "workbench.explorers.pruning.sources"
PIECE = 2000  # characters taken from a document at once


@dataclass(frozen=True, kw_only=True)
class PruningSource:
    """A model with the data to prune it and to judge it.

    Parameters
    ----------
    key, title : name of the file, and what readers see.
    load : () -> the model, ready to predict; shared by all callers, who copy it before they change it.
    calibration : () -> batches that the model takes, none of which is judged on.
    evaluation : () -> batches of other text for the error of each layer's outputs.
    loss : (model, batch) -> scalar tensor, whose gradient methods may ask for; it is not zero at the dense model.
    training : (steps, seed) -> a batch for every step of a short training, none of which is judged on.
    distil : (model, dense, batch) -> scalar tensor, how far a pruned model is from giving what the dense one gives.
    judge : model -> quality by axis key.
    qualities : the axes of `judge`, the one that says most first.
    missing : () -> "" or the sentence that says what must be installed.
    """

    key: str
    title: str
    load: Callable[[], nn.Module]
    calibration: Callable[[], Sequence[Any]]
    evaluation: Callable[[], Sequence[Any]]
    loss: Callable[[nn.Module, Any], torch.Tensor]
    training: Callable[[int, int], Sequence[Any]]
    distil: Callable[[nn.Module, nn.Module, Any], torch.Tensor]
    judge: Callable[[nn.Module], dict[str, float]]
    qualities: tuple[Axis, ...]
    missing: Callable[[], str] = lambda: ""


@cache
def sources() -> dict[str, PruningSource]:
    """Return every source by key, in the order of their titles."""
    return dict(sorted(gathered(PACKAGE, "SOURCE").items(), key=lambda item: item[1].title.lower()))


def source(key: str) -> PruningSource:
    """Return the source of a key; KeyError names the nearest one."""
    found: dict[str, Any] = sources()
    return find("model to prune", key, found)


def training_text(characters: int, seed: int) -> str:
    """Return pieces of the standard library's sources, drawn by a seed from documents that are not held out.

    Models are calibrated and judged on the documentation and on held-out documents; those are not among them.
    """
    documents, rng = text.documents("library", "train"), np.random.default_rng(seed)
    pieces, taken = [], 0
    while taken < characters:
        whole = documents[rng.integers(len(documents))].text
        start = rng.integers(max(1, len(whole) - PIECE))
        pieces.append(whole[start : start + PIECE])
        taken += len(pieces[-1])
    return "\n\n".join(pieces)
