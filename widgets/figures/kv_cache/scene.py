"""What the view of a compressed cache draws: plain arrays of one head, and numbers of its layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["METHODS", "PARTS", "PICTURES", "CacheScene", "Drift"]

METHODS = ("quantiser", "low rank", "outliers", "both")
PARTS = ("codes", "scales", "low rank", "outliers", "buffer")
PICTURES = ("exact", "levels", "low_rank", "sparse", "rest")


@dataclass(frozen=True, kw_only=True, eq=False)
class Drift:
    """The error of attention while the model decodes.

    Parameters
    ----------
    tokens : int64 (points,), tokens in the cache.
    error : method -> float64 (points,), size of the difference of attention's output over the output's size.
    """

    tokens: np.ndarray
    error: Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class CacheScene:
    """A cache of one layer, and one head of its keys or values taken apart: exact = levels + low rank + sparse + rest.

    Parameters
    ----------
    title : which cache, in words.
    what : "keys" or "values".
    kind : "measured" where trained weights made the cache, "counted" where a generator did.
    head, channel : those that are shown.
    bits, rank, rank_gen, buffer, prompt : settings; ``prompt`` tokens are read at once.
    exact, levels, low_rank, sparse, rest : float32 (tokens, channels) of the head, all tokens compressed as one block;
        levels are 0 where an outlier lies.
    spectrum : float64, singular values of the head's error before the low-rank part, falling.
    before, after : float32 (tokens,), the channel before and after the filter.
    steps : float64, levels of the channel's first group without the filter, and with it: two arrays.
    errors : method -> relative error of the head.
    bytes : method -> part of `PARTS` -> bytes of the layer after the last token.
    plain_bytes : of the same in half precision.
    """

    title: str
    what: Literal["keys", "values"]
    kind: Literal["measured", "counted"]
    head: int
    channel: int
    bits: int
    rank: int
    buffer: int
    prompt: int
    exact: np.ndarray
    levels: np.ndarray
    low_rank: np.ndarray
    sparse: np.ndarray
    rest: np.ndarray
    spectrum: np.ndarray
    before: np.ndarray
    after: np.ndarray
    steps: tuple[np.ndarray, np.ndarray]
    errors: Mapping[str, float]
    bytes: Mapping[str, Mapping[str, int]]
    plain_bytes: int
    drift: Drift

    @property
    def tokens(self) -> int:
        """Tokens of the cache."""
        return self.exact.shape[0]

    def held(self, tokens: int) -> tuple[int, int, int]:
        """Return, with so many tokens: compressed tokens of the prompt, later blocks, tokens in the buffer."""
        prompt = min(tokens, self.prompt)
        first = prompt // self.buffer * self.buffer
        later = (tokens - first) // self.buffer
        return first, later, tokens - first - later * self.buffer
