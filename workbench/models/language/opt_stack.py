"""Decoder layers of the OPT family with random weights: what one step of writing text computes, at any size."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from workbench.models.language.tiny_lm import dense_attention

__all__ = ["OptConfig", "OptStack"]


@dataclass(frozen=True, kw_only=True)
class OptConfig:
    """Sizes of an `OptStack`; the feed-forward part is four times as wide as the stream."""

    width: int = 4096
    heads: int = 32
    layers: int = 1


class OptLayer(nn.Module):
    """Attention and a feed-forward part with ReLU, each on a normalised copy of the stream; biases everywhere."""

    def __init__(self, config):
        super().__init__()
        width, self.heads = config.width, config.heads
        self.norm_attention, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.feed_in, self.feed_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, past=None):
        """Return the stream (b, t, width) after the layer, and its keys and values with those of ``past``."""
        y = self.norm_attention(x)
        q, k, v = (p(y).unflatten(2, (self.heads, -1)).transpose(1, 2) for p in (self.query, self.key, self.value))
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        x = x + self.out(dense_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.feed_out(F.relu(self.feed_in(self.norm_feed(x)))), (k, v)


class OptStack(nn.Module):
    """Decoder layers without embeddings.

    Parameters
    ----------
    config : OptConfig; width must be a multiple of heads.

    Source
    ------
    Zhang et al. 2022, "OPT": normalisation before each part, ReLU, biases.
    """

    def __init__(self, config: OptConfig):
        super().__init__()
        if config.width % config.heads:
            raise ValueError(f"OptStack: width must be a multiple of heads = {config.heads}, got {config.width}")
        self.layers = nn.ModuleList(OptLayer(config) for _ in range(config.layers))

    def forward(self, x, cache=None):
        """Map the stream (b, t, width) through all layers.

        Parameters
        ----------
        x : (b, t, width).
        cache : None, or a list that holds keys and values of earlier positions and is extended (start with ``[]``).
        """
        past = cache[:] if cache else [None] * len(self.layers)
        found = []
        for layer, before in zip(self.layers, past, strict=True):
            x, kept = layer(x, before)
            found.append(kept)
        if cache is not None:
            cache[:] = found
        return x
