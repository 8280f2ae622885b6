"""A one-layer model of small pictures, pixel after pixel: the setting in which causal attention patterns compete.

The picture is read in raster order; every pixel's grey level is predicted from those before it. Attention is given from
outside, so that patterns differ in nothing else.
"""

from functools import cache
from math import log

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from workbench.data import images

__all__ = ["LEVELS", "SIDE", "PixelModel", "bits_per_pixel", "digits", "draw", "train"]

LEVELS, SIDE = 17, 8


@cache
def digits():
    """Return the handwritten digits as grey levels 0..16: int64 (1437, 64) to train, (360, 64) to test."""
    return tuple(torch.from_numpy((16 * pictures).round().astype(np.int64).reshape(len(pictures), -1))
                 for pictures, _ in images.digits())  # fmt: skip


class PixelModel(nn.Module):
    """Embedding of the pixel before, learned positions, one layer that normalises first, and a prediction.

    Parameters
    ----------
    attention : module that maps (b, L, dim) to (b, L, dim), causal.
    dim : width; the feed-forward part is twice as wide.
    length : pixels.
    """

    def __init__(self, attention, dim=64, length=SIDE * SIDE):
        super().__init__()
        self.pixels = nn.Embedding(LEVELS + 1, dim)  # one more for "nothing yet"
        self.positions = nn.Parameter(0.5 * torch.randn(length, dim))
        self.attention = attention
        self.norm_attention, self.norm_feed, self.norm_out = (nn.LayerNorm(dim) for _ in range(3))
        self.feed = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        self.predict = nn.Linear(dim, LEVELS)

    def forward(self, pictures):
        """Return logits (b, L, levels) of every pixel given those before it."""
        before = F.pad(pictures[:, :-1], (1, 0), value=LEVELS)
        x = self.pixels(before) + self.positions
        x = x + self.attention(self.norm_attention(x))
        x = x + self.feed(self.norm_feed(x))
        return self.predict(self.norm_out(x))

    def loss(self, pictures):
        """Return the mean cost in nats per pixel."""
        return F.cross_entropy(self(pictures).flatten(0, 1), pictures.flatten())


def train(make_attention, *, steps, seed=0, batch=32, rate=3e-3, report=lambda fraction: None) -> PixelModel:
    """Train a model on the training digits by AdamW with a cosine schedule.

    Parameters
    ----------
    make_attention : () -> attention module, called under ``seed``.
    """
    pictures, _ = digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PixelModel(make_attention())
        optimiser = torch.optim.AdamW(model.parameters(), lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
        for step in range(steps):
            rows = torch.randint(len(pictures), (batch,))
            optimiser.zero_grad(set_to_none=True)
            model.loss(pictures[rows]).backward()
            optimiser.step()
            schedule.step()
            if step % 50 == 0:
                report(step / steps)
    return model.eval()


@torch.no_grad()
def bits_per_pixel(model, tested=360) -> float:
    """Return the model's cost on the first ``tested`` test digits, in bits per pixel."""
    return model.loss(digits()[1][:tested]).item() / log(2)


@torch.no_grad()
def draw(model, pictures, given, seed=0):
    """Return pictures whose first ``given`` pixels stand and whose others are drawn from the model: (b, L)."""
    rng = torch.Generator().manual_seed(seed)
    pictures = pictures.clone()
    for at in range(given, pictures.shape[1]):
        chances = model(pictures)[:, at].softmax(-1)
        pictures[:, at] = torch.multinomial(chances, 1, generator=rng)[:, 0]
    return pictures
