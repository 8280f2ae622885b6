"""The value of a mask formula at pairs of a query and a key, exact: a number that would not fit is an error, no wrap.

Where the bounds of every part are known to fit a machine's integers, numbers are int32 or int64 arrays. Elsewhere they
are Python's own integers, which cannot wrap, and every result is held against 64 bits.
"""

from collections.abc import Mapping

import numpy as np

from kernels.masks.formula_tree import LARGEST, LARGEST_POWER, FormulaError, Part

__all__ = ["value_at"]

_PLAIN = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "&": np.bitwise_and, "|": np.bitwise_or, "^": np.bitwise_xor,
    "~": np.invert, "negative": np.negative, "positive": np.positive, "abs": np.abs,
}  # fmt: skip
_COMPARE = {
    "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "==": np.equal, "!=": np.not_equal,
}  # fmt: skip
_LOGIC = {"&": np.logical_and, "|": np.logical_or, "^": np.logical_xor, "not": np.logical_not}


def value_at(part: Part, places: Mapping[str, np.ndarray], live=None, *, function: str) -> np.ndarray:
    """Return a part's values, at pairs that the arrays of ``places`` broadcast to.

    Parameters
    ----------
    places : name -> positions of "q" and "k", and the numbers "b", "h", "t"; of one integer dtype, or Python integers.
    live : bool, the pairs at which the value matters; None for all. Errors at other pairs are none.

    Raises
    ------
    FormulaError : a division by zero, a negative power or shift, or a number beyond 64 bits at a pair that matters.
    """
    return _Evaluation(places, function).of(part, live)


class _Evaluation:
    def __init__(self, places, function):
        self.places, self.function = places, function
        self.dtype = np.asarray(places["q"]).dtype
        self.exact = self.dtype == object

    def of(self, part, live):
        if part.sign in ("number", "name", "truth"):
            value = self.places[part.value] if part.sign == "name" else part.value
            return np.array(
                value, bool if part.is_condition else self.dtype, ndmin=1
            )  # Python's integers need an array
        if part.sign in ("and", "or"):
            return self._one_after_another(part, live)
        if part.sign == "where":
            asked = self.of(part.parts[0], live)
            taken, otherwise = self.of(part.parts[1], _both(live, asked)), self.of(part.parts[2], _both(live, ~asked))
            return np.where(asked, taken, otherwise)
        values = [self.of(each, live) for each in part.parts]
        if part.sign in _COMPARE:
            return _COMPARE[part.sign](*values)
        if part.is_condition:
            return _LOGIC[part.sign](*values)
        return self._held(part, self._number(part, values, live), live)

    def _one_after_another(self, part, live):
        found = self.of(part.parts[0], live)
        for each in part.parts[1:]:
            if part.sign == "and":
                found = found & self.of(each, _both(live, found))
            else:
                found = found | self.of(each, _both(live, ~found))
        return found

    def _number(self, part, values, live):
        if part.sign in _PLAIN:
            return _PLAIN[part.sign](*values)
        if part.sign in ("min", "max"):
            choose = np.minimum if part.sign == "min" else np.maximum
            found = values[0]
            for value in values[1:]:
                found = choose(found, value)
            return found
        a, b = values
        if part.sign in ("//", "%"):
            zero = np.asarray(b == 0, bool)
            self._refuse(part, zero, live, "divides by zero")
            divide = np.floor_divide if part.sign == "//" else np.remainder
            return divide(a, np.where(zero, b + 1, b) if zero.any() else b)
        self._refuse(part, np.asarray(b < 0, bool), live, "has a negative power or shift")
        b = np.maximum(b, 0)
        if part.sign == ">>":
            return np.right_shift(a, np.minimum(b, LARGEST_POWER + 1 if self.exact else 8 * self.dtype.itemsize - 1))
        return self._grown(part, a, b, live)

    def _grown(self, part, a, b, live):
        """Powers and left shifts: exponents are cut before anything is computed, so that no number is enormous."""
        small = np.abs(a) < (2 if part.sign == "**" else 1)
        self._refuse(part, np.asarray(~small & (b > LARGEST_POWER), bool), live, _BEYOND)
        b = np.where(b > LARGEST_POWER, LARGEST_POWER - b % 2, b)  # an odd power stays odd: (-1) ** b keeps its sign
        return np.power(a, b) if part.sign == "**" else np.left_shift(a, b)

    def _held(self, part, found, live):
        if not self.exact:
            return found
        beyond = np.asarray(np.abs(found) > LARGEST, bool)
        self._refuse(part, beyond, live, _BEYOND)
        return np.where(beyond, 0, found) if beyond.any() else found

    def _refuse(self, part, where, live, words):
        where = _both(live, where)
        if not where.any():
            return
        places = np.broadcast_arrays(where, self.places["q"], self.places["k"])
        first = np.unravel_index(int(np.argmax(places[0])), places[0].shape)
        query, key = (int(place[first]) for place in places[1:])
        raise FormulaError(self.function, f"at {part.place}, {part.text!r} {words} at query {query}, key {key}")


_BEYOND = "is beyond 64 bits"


def _both(live, condition):
    return condition if live is None else live & condition
