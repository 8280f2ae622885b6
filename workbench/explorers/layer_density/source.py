"""Nets to prune before training: what a source tells the explorer, and those that there are, one file each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from workbench.gathered import gathered

if TYPE_CHECKING:  # torch is imported when a net is built
    from torch import Tensor, nn

__all__ = ["NetSource", "digits", "one_digit", "scored_digits", "sources"]

PACKAGE = "workbench.explorers.layer_density.sources"


@dataclass(frozen=True, kw_only=True)
class NetSource:
    """One net.

    Parameters
    ----------
    key : name of the file, and of the net in records.
    title, told : what readers see in the menu, and what the net is, in words.
    build : seed -> the net with its initial weights; it is not changed.
    example : () -> an input (1, channels, rows, columns).
    data : () -> (training, test), each inputs and labels; None where there are none, so that it cannot be trained here.
    batches : () -> batches of inputs and labels for pruners that need them; empty where there are none.
    """

    key: str
    title: str
    told: str
    build: "Callable[[int], nn.Module]"
    example: "Callable[[], Tensor]"
    data: "Callable[[], tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]] | None" = None
    batches: "Callable[[], list[tuple[Tensor, Tensor]]]" = list


@cache
def sources() -> dict[str, NetSource]:
    """Return every source by key, in the order of their titles."""
    return dict(sorted(gathered(PACKAGE, "SOURCE").items(), key=lambda item: item[1].title.lower()))


def digits():
    """Return handwritten digits to train on and to test on: float32 (n, 1, 8, 8) from 0 to 1, and labels."""
    import torch

    from workbench.data import images

    training, test = images.digits()
    return tuple((torch.from_numpy(x)[:, None], torch.from_numpy(labels)) for x, labels in (training, test))


def scored_digits():
    """Return one batch of 128 training digits."""
    x, labels = digits()[0]
    return [(x[:128], labels[:128])]


def one_digit():
    """Return an input without anything drawn on it."""
    import torch

    return torch.zeros(1, 1, 8, 8)
