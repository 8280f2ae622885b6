"""A small vision transformer of handwritten digits, pre-trained and shipped, for methods of fine-tuning to tune.

A picture of 8 x 8 pixels becomes sixteen patches of 2 x 2 and a class token. Query, key, value, output and both
feed-forward matrices are layers of their own, 24 in four blocks, so that methods can take each for itself.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from workbench.data import images
from workbench.folders import WEIGHTS

__all__ = ["FILE", "TASKS", "DigitViT", "ViTConfig", "accuracy", "load", "pictures", "task"]

FILE = WEIGHTS / "digit_vit.safetensors"
PRETRAINED = 1000  # pictures; the others are for tests
PATCH, SIDE = 2, 8


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """Sizes.

    Parameters
    ----------
    width, heads, layers, hidden : of the transformer; ``hidden`` is the width inside the feed-forward part.
    classes : of the head.
    """

    width: int = 64
    heads: int = 4
    layers: int = 4
    hidden: int = 256
    classes: int = 10


class Block(nn.Module):
    """Attention and a feed-forward part, each after a normalisation and added to the stream."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        width, self.heads = config.width, config.heads
        self.norm_attention, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.feed_in, self.feed_out = nn.Linear(width, config.hidden), nn.Linear(config.hidden, width)

    def forward(self, x):
        """Map (b, tokens, width) to the same shape."""
        y = self.norm_attention(x)
        b, t, width = y.shape
        q, k, v = (part(y).view(b, t, self.heads, -1).transpose(1, 2) for part in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, width)
        x = x + self.out(mixed)
        return x + self.feed_out(F.gelu(self.feed_in(self.norm_feed(x))))


class DigitViT(nn.Module):
    """Patches, a class token, learned positions, blocks, and a head on the mean of all tokens.

    Parameters
    ----------
    config : sizes.
    """

    def __init__(self, config: ViTConfig | None = None):
        super().__init__()
        self.config = config = config or ViTConfig()
        tokens = (SIDE // PATCH) ** 2
        self.patches = nn.Linear(PATCH * PATCH, config.width)
        nn.init.normal_(self.patches.weight, std=0.5)
        self.cls = nn.Parameter(torch.zeros(config.width))
        self.positions = nn.Parameter(0.5 * torch.randn(tokens + 1, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm, self.head = nn.LayerNorm(config.width), nn.Linear(config.width, config.classes)

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return what the head sees of pictures (b, 8, 8): (b, width)."""
        b, each = len(pictures), SIDE // PATCH
        cut = pictures.view(b, each, PATCH, each, PATCH).transpose(2, 3).reshape(b, each * each, PATCH * PATCH)
        x = torch.cat([self.cls.expand(b, 1, -1), self.patches(cut)], 1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.norm(x).mean(1)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Map pictures (b, 8, 8) of grey levels from 0 to 1 to logits (b, classes)."""
        return self.head(self.features(pictures))


@cache
def load(path: Path = FILE) -> DigitViT:
    """Return the pre-trained model, frozen, shared by all callers.

    Raises
    ------
    FileNotFoundError : the weights are missing: ``python -m workbench.models.vision.train_digit_vit``.
    """
    from safetensors import safe_open

    if not Path(path).exists():
        raise FileNotFoundError(
            f"digit_vit.load: no {path}; train one with python -m workbench.models.vision.train_digit_vit"
        )
    with safe_open(str(path), framework="pt") as stored:
        sizes = {name: int(value) for name, value in stored.metadata().items()}
        weights = {name: stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118
    model = DigitViT(ViTConfig(**sizes))
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


# Data and tasks -------------------------------------------------------------------------------------------------------
@cache
def pictures() -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Return 1,000 digits to train on and 797 to test: grey levels float32 (n, 8, 8) from 0 to 1, and labels int64."""
    both = images.digits()
    grey, labels = (torch.from_numpy(np.concatenate([part[i] for part in both])) for i in (0, 1))
    return (grey[:PRETRAINED], labels[:PRETRAINED]), (grey[PRETRAINED:], labels[PRETRAINED:])


TASKS = {
    "digits": lambda x: x,
    "rotinv": lambda x: 1 - torch.rot90(x, 1, (1, 2)),
    "rot90": lambda x: torch.rot90(x, 1, (1, 2)),
    "transpose": lambda x: x.transpose(1, 2).contiguous(),
    "mirror": lambda x: x.flip(2),
}


@cache
def task(name: str, count: int = PRETRAINED):
    """Return a task: the digits turned, mirrored or inverted, with their labels, to train on and to test.

    Parameters
    ----------
    name : one of `TASKS`; "rotinv" is turned by a quarter and black for white.
    count : of training pictures, equally many of each digit where there are; the first ones of each.

    Returns
    -------
    ((pictures (count, 8, 8), labels), (pictures (797, 8, 8), labels)).

    Raises
    ------
    ValueError : no such task, or more pictures than there are.
    """
    if name not in TASKS:
        raise ValueError(f"task: name must be one of {', '.join(TASKS)}, got {name!r}")
    (x, y), (x_test, y_test) = pictures()
    if not 1 <= count <= len(x):
        raise ValueError(f"task: count must be from 1 to {len(x)}, got {count}")
    rank = torch.stack([(y[:i] == y[i]).sum() for i in range(len(y))])  # how many of its digit stand before
    chosen = torch.argsort(rank, stable=True)[:count].sort().values
    turn = TASKS[name]
    return (turn(x[chosen]), y[chosen]), (turn(x_test), y_test)


@torch.no_grad()
def accuracy(model: nn.Module, data: tuple[torch.Tensor, torch.Tensor]) -> float:
    """Return the share of pictures whose label the model gives."""
    return float((model(data[0]).argmax(-1) == data[1]).float().mean())
