r"""Byte n-gram model with modified Kneser-Ney smoothing, the yardstick of the embedded language model.

.. math:: P_k(w \mid c) = \frac{\max(n(cw) - D(n(cw)), 0)}{n(c)} + \gamma(c)\, P_{k-1}(w \mid c'),
          \qquad P_0 = 1 / 256

n counts occurrences at the highest order and distinct left neighbours below it; c' is c without its first byte; D has
one value each for counts of 1, 2 and more; gamma(c) is the mass that the discounts free (Chen and Goodman 1999,
section 3).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Level:
    """Grams of one length: discounted counts of the grams, totals and freed mass of their contexts; keys are sorted."""

    grams: np.ndarray
    discounted: np.ndarray
    contexts: np.ndarray
    totals: np.ndarray
    freed: np.ndarray


@dataclass(frozen=True)
class ByteNgram:
    """Levels of gram lengths 1 to the order."""

    levels: tuple[Level, ...]

    @property
    def order(self):
        """Length of the longest gram."""
        return len(self.levels)


def fit(texts, order) -> ByteNgram:
    """Count the grams of an iterable of bytes objects.

    Parameters
    ----------
    order : length of the longest gram, 1 to 8; a 5-gram model predicts a byte from the 4 before it.

    Raises
    ------
    ValueError : order is out of range, or there is no text.
    """
    if not 1 <= order <= 8:
        raise ValueError(f"byte_ngram.fit: order must be from 1 to 8, got {order}")
    data, real = _padded(texts, order)
    if not real.any():
        raise ValueError("byte_ngram.fit: texts hold no byte")
    grams, counts = np.unique(_grams(data, order)[real], return_counts=True)
    levels = []
    for length in range(order, 0, -1):
        levels.append(_level(grams, counts))
        if length > 1:  # below the highest order a gram counts once per distinct byte before it
            shorter = grams & np.uint64(2 ** (8 * (length - 1)) - 1)
            grams, counts = np.unique(shorter, return_counts=True)
    return ByteNgram(tuple(reversed(levels)))


def probabilities(model, text) -> np.ndarray:
    """Return the probability of each byte of a text given those before it, float64 (bytes,)."""
    data, real = _padded([text], model.order)
    chance = np.full(int(real.sum()), 1 / 256)
    for length, level in enumerate(model.levels, start=1):
        gram = _grams(data, length)[real]
        context = gram >> np.uint64(8)
        known, at = _find(level.contexts, context)
        seen, where = _find(level.grams, gram)
        own = np.where(seen, level.discounted[where], 0.0)
        chance = np.where(known, (own + level.freed[at] * chance) / level.totals[at], chance)
    return chance


def bits(model, texts) -> float:
    """Return the summed cost of texts (bytes objects) in bits."""
    return float(sum(-np.log2(probabilities(model, text)).sum() for text in texts))


def _padded(texts, order):
    lead = np.zeros(order - 1, np.uint8)
    parts, real = [], []
    for text in texts:
        parts += [lead, np.frombuffer(text, np.uint8)]
        real += [np.zeros(order - 1, bool), np.ones(len(text), bool)]
    return np.concatenate([lead[:0], *parts]), np.concatenate([np.zeros(0, bool), *real])


def _grams(data, length):
    """Return the gram that ends at each byte as one integer, last byte lowest; bytes before the start are zero."""
    packed = np.zeros(len(data), np.uint64)
    for back in range(length - 1, -1, -1):
        packed <<= np.uint64(8)
        packed[back:] |= data[: len(data) - back]
    return packed


def _level(grams, counts):
    frequency = [np.count_nonzero(counts == times) for times in (1, 2, 3, 4)]
    discount = _discounts(frequency)[np.minimum(counts, 3)]
    contexts, first = np.unique(grams >> np.uint64(8), return_index=True)
    return Level(grams, counts - discount, contexts, np.add.reduceat(counts, first), np.add.reduceat(discount, first))


def _discounts(frequency):
    once, twice, thrice, four = frequency
    if not (once and twice and thrice):  # too little text to estimate three discounts
        return np.array([0.0, 0.5, 0.5, 0.5])
    base = once / (once + 2 * twice)
    raw = [1 - 2 * base * twice / once, 2 - 3 * base * thrice / twice, 3 - 4 * base * four / thrice]
    return np.array([0.0, *(np.clip(value, 0.05, times) for times, value in enumerate(raw, start=1))])


def _find(table, keys):
    at = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return table[at] == keys, at
