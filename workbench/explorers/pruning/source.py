"""The models that the pruning explorer prunes: one file each under ``sources``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from widgets.figures.pruning import Axis
from workbench.gathered import find, gathered

__all__ = ["PruningSource", "source", "sources"]

PACKAGE = "workbench.explorers.pruning.sources"


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
