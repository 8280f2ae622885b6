"""What the experiments train: two nets, handwritten digits, and how much of it at each size."""

from dataclasses import dataclass

import torch

from workbench.data import images
from workbench.models.compression.channel_graph import Spec
from workbench.models.compression.crop_networks import MobileSpec, ResNetSpec
from workbench.papers.precropping.cases import INVERTED, RESIDUAL

SCORED = 128  # training examples that SNIP and GraSP see


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How much a size does: epochs, seeds, examples to train and to test on, rounds of SynFlow, the nets' width."""

    epochs: int
    seeds: int
    examples: int
    rounds: int
    width: float


SETTINGS = {
    "tiny": Setting(epochs=1, seeds=1, examples=32, rounds=2, width=0.5),
    "small": Setting(epochs=3, seeds=1, examples=images.TRAINING_DIGITS, rounds=20, width=1.0),
    "full": Setting(epochs=15, seeds=3, examples=images.TRAINING_DIGITS, rounds=100, width=1.0),
}


def net(name: str, setting: Setting) -> Spec:
    """Return the net of a name at the width of a size."""
    return {RESIDUAL: ResNetSpec(), INVERTED: MobileSpec()}[name].scaled(setting.width)


def data(setting: Setting) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return digits to train on and to test on: float32 (n, 1, 8, 8) from 0 to 1, and labels."""
    found = {
        part: (torch.from_numpy(x)[:, None], torch.from_numpy(labels))
        for part, (x, labels) in zip(("training", "test"), images.digits(), strict=True)
    }
    return {part: tuple(each[: setting.examples] for each in of) for part, of in found.items()}
