"""Between which values every part of a mask formula lies, over whole blocks of pairs: what needs no look at the pairs.

Interval arithmetic: from the least and the greatest position of a block follow a least and a greatest value of every
part. They may lie outside what really occurs, never inside it. So a block whose condition is certain is full or empty,
and numbers whose bounds fit 32 or 64 bits cannot wrap.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kernels.masks.formula_tree import LARGEST_POWER, Part

__all__ = ["Bounds", "bounds_of"]

BEYOND = 2**64  # stands for every number that does not fit


@dataclass(frozen=True)
class Bounds:
    """What is certain of a condition, block by block.

    Parameters
    ----------
    always, never : bool, the condition holds at every pair of the block, or at none.
    peak : largest magnitude that any part may have anywhere; `BEYOND` at most.
    """

    always: np.ndarray
    never: np.ndarray
    peak: int


def bounds_of(part: Part, places: Mapping[str, tuple]) -> Bounds:
    """Return what is certain of a condition over blocks.

    Parameters
    ----------
    places : name -> least and greatest position of "q" and "k" in every block, arrays that broadcast, and the numbers
        "b", "h", "t" twice; Python integers (object arrays) unless all parts are known to fit 64 bits.
    """
    found = _Intervals(places)
    always, possible = found.of(part)
    risk = found.risk
    return Bounds(np.asarray(always & ~risk, bool), np.asarray(~(possible | risk), bool), found.peak)


class _Intervals:
    """Pairs of (least, greatest) of a number, or (certain, possible) of a condition."""

    def __init__(self, places):
        self.places, self.exact = places, np.asarray(places["q"][0]).dtype == object
        self.risk, self.peak = np.zeros((), bool), 0  # where a division, power or shift may fail

    def of(self, part):
        if part.sign == "truth":
            return np.asarray(part.value, bool), np.asarray(part.value, bool)
        if part.sign in ("number", "name"):
            found = self.places[part.value] if part.sign == "name" else (part.value, part.value)
            return self._noted(*found)
        values = [self.of(each) for each in part.parts]
        if part.sign == "where":
            return self._chosen(part, *values)
        if part.is_condition:
            return _CONDITIONS[part.sign](*values)
        return self._noted(*getattr(self, _NUMBERS[part.sign])(*values))

    def _noted(self, low, high):
        dtype = object if self.exact else np.int64
        ends = [np.array(end, dtype, ndmin=1) for end in (low, high)]  # Python's integers need an array
        if self.exact:
            ends = [np.clip(end, -BEYOND, BEYOND) for end in ends]
            self.peak = max(self.peak, *(int(np.max(np.abs(end), initial=0)) for end in ends))
        return tuple(ends)

    def _chosen(self, part, asked, taken, otherwise):
        certain, possible = asked
        either = (np.logical_and, np.logical_or) if part.is_condition else (np.minimum, np.maximum)
        ends = [
            np.where(certain, a, np.where(possible, join(a, b), b))
            for a, b, join in zip(taken, otherwise, either, strict=True)
        ]
        return tuple(ends) if part.is_condition else self._noted(*ends)

    # Numbers ----------------------------------------------------------------------------------------------------------
    @staticmethod
    def positive(a):
        return a

    @staticmethod
    def negative(a):
        return -a[1], -a[0]

    @staticmethod
    def plus(a, b):
        return a[0] + b[0], a[1] + b[1]

    @staticmethod
    def minus(a, b):
        return a[0] - b[1], a[1] - b[0]

    @staticmethod
    def times(a, b):
        return _corners(np.multiply, a, b)

    @staticmethod
    def magnitude(a):
        crosses = (a[0] <= 0) & (a[1] >= 0)
        ends = np.abs(a[0]), np.abs(a[1])
        return np.where(crosses, 0, np.minimum(*ends)), np.maximum(*ends)

    @staticmethod
    def least(*values):
        return tuple(_reduced(np.minimum, [value[end] for value in values]) for end in (0, 1))

    @staticmethod
    def greatest(*values):
        return tuple(_reduced(np.maximum, [value[end] for value in values]) for end in (0, 1))

    def quotient(self, a, b):
        crosses = self._crosses(b)
        low, high = _corners(np.floor_divide, a, _without_zero(b, crosses))
        most = np.maximum(np.abs(a[0]), np.abs(a[1]))
        return np.where(crosses, -most, low), np.where(crosses, most, high)

    def rest(self, a, b):
        crosses = self._crosses(b)
        low, high = np.minimum(b[0] + 1, 0), np.maximum(b[1] - 1, 0)
        divisor = _without_zero(b, crosses)[0]
        first, last = a[0] // divisor, a[1] // divisor
        one = ~crosses & (b[0] == b[1]) & (first == last)  # one divisor, one multiple of it: the rest grows with a
        return np.where(one, a[0] - first * divisor, low), np.where(one, a[1] - last * divisor, high)

    def power(self, a, b):
        self.risk = self.risk | (b[0] < 0)
        low, high = (np.clip(end, 0, LARGEST_POWER + 1) for end in b)
        most = np.maximum(np.abs(a[0]), np.abs(a[1])) ** high
        most = np.maximum(most, 1)
        return np.where(a[0] > 0, np.maximum(a[0], 1) ** low, np.where(a[0] == 0, 0, -most)), most

    def shifted_left(self, a, b):
        self.risk = self.risk | (b[0] < 0)
        factors = tuple(2 ** np.clip(end, 0, LARGEST_POWER + self.exact) for end in b)
        return _corners(np.multiply, a, factors)

    def shifted_right(self, a, b):
        self.risk = self.risk | (b[0] < 0)
        return _corners(np.right_shift, a, tuple(np.clip(end, 0, LARGEST_POWER + 1) for end in b))

    @staticmethod
    def of_bits(*values):
        """Any whole number of as many bits, negative only where an operand may be."""
        most = _reduced(np.maximum, [np.maximum(np.abs(low), np.abs(high)) for low, high in values])
        for step in (1, 2, 4, 8, 16, 32):
            most = most | most >> step
        signed = _reduced(np.logical_or, [np.asarray(low < 0, bool) for low, _ in values])
        return np.where(signed, ~most, 0), most

    @staticmethod
    def flipped(a):
        return ~a[1], ~a[0]

    def _crosses(self, b):
        crosses = np.asarray((b[0] <= 0) & (b[1] >= 0), bool)
        self.risk = self.risk | crosses
        return crosses


_NUMBERS = {
    "+": "plus", "-": "minus", "*": "times", "//": "quotient", "%": "rest", "**": "power", "<<": "shifted_left",
    ">>": "shifted_right", "&": "of_bits", "|": "of_bits", "^": "of_bits", "~": "flipped", "negative": "negative",
    "positive": "positive", "abs": "magnitude", "min": "least", "max": "greatest",
}  # fmt: skip


def _reduced(join, values):
    found = values[0]
    for value in values[1:]:
        found = join(found, value)
    return found


def _corners(function, a, b):
    ends = [function(x, y) for x in a for y in b]
    return _reduced(np.minimum, ends), _reduced(np.maximum, ends)


def _without_zero(b, crosses):
    return tuple(np.where(crosses, 1, end) for end in b)


def _equal(a, b):
    one = (a[0] == a[1]) & (b[0] == b[1]) & (a[0] == b[0])
    return one, (a[0] <= b[1]) & (b[0] <= a[1])


def _negated(a):
    return ~np.asarray(a[1], bool), ~np.asarray(a[0], bool)


def _odd(a, b):
    different = (a[0] & ~b[1]) | (b[0] & ~a[1])
    same = (a[0] & b[0]) | (~a[1] & ~b[1])
    return different, ~same


def _every(join):
    return lambda *values: tuple(_reduced(join, [value[end] for value in values]) for end in (0, 1))


_CONDITIONS = {
    "<": lambda a, b: (a[1] < b[0], a[0] < b[1]),
    "<=": lambda a, b: (a[1] <= b[0], a[0] <= b[1]),
    ">": lambda a, b: (b[1] < a[0], b[0] < a[1]),
    ">=": lambda a, b: (b[1] <= a[0], b[0] <= a[1]),
    "==": _equal,
    "!=": lambda a, b: _negated(_equal(a, b)),
    "and": _every(np.logical_and),
    "&": _every(np.logical_and),
    "or": _every(np.logical_or),
    "|": _every(np.logical_or),
    "^": _odd,
    "not": _negated,
}
