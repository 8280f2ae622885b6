"""An answer of any type as plain Python numbers, truths, words and lists; imports no torch, pandas or SymPy."""

import math
import numbers
import operator
from collections import deque
from collections.abc import KeysView, Mapping, Sequence, Set, ValuesView
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import scipy.sparse as sp

from workbench.grading.typed import Unreadable, read_typed

__all__ = ["described", "entries", "number", "shortened", "single", "truth", "unwrapped", "word"]

LONGEST_SHOWN = 40
MOST_VALUES = 4_000_000
MOST_DIMENSIONS = 64
LARGEST_POWER = 400  # of ten: a Decimal beyond it has no useful fraction
_TRUTHS = {"true": True, "yes": True, "y": True, "1": True, "false": False, "no": False, "n": False, "0": False}
_AROUND = " \t\n'\"."  # what may stand around a word that is typed
_LISTS = (Sequence, Set, deque, KeysView, ValuesView)
_TEXTS = (str, bytes, bytearray, memoryview)


def number(value: Any) -> int | float | Fraction | complex:
    """Return the number that ``value`` is, exact where its type is exact.

    Parameters
    ----------
    value : int, float, NumPy scalar, array or tensor without dimensions, Fraction, Decimal, a string such as "1/4" or
        "1e-3", or anything that ``float`` takes. Bools are no numbers.

    Raises
    ------
    Unreadable : it is no number.
    """
    value = unwrapped(value)
    typed = isinstance(value, str)
    if typed:
        value = single(read_typed(value))
    if isinstance(value, bool):
        raise Unreadable(f"Wanted one number, got {value}, which says whether something is true.")
    found = _exact(value)
    if found is None:
        cure = "; a comma separates values, so write 1234 and 0.5" if typed and isinstance(value, tuple) else ""
        raise Unreadable(f"Wanted one number, got {described(value)}{cure}.")
    return found.real if isinstance(found, complex) and found.imag == 0 else found


def _exact(value):
    """Return the number that a plain value is, or None."""
    if value is None or isinstance(value, (*_TEXTS, Mapping, *_LISTS)):
        return None
    if isinstance(value, Decimal):
        ordinary = value.is_finite() and abs(value.adjusted()) < LARGEST_POWER
        return Fraction(value) if ordinary else math.nan if value.is_nan() else float(value)
    if isinstance(value, Fraction):
        return value
    for read in (operator.index, _complex, float):
        try:
            return read(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
        except (TypeError, ValueError):
            continue
    return None


def _complex(value):
    if isinstance(value, numbers.Complex) and not isinstance(value, numbers.Real):
        return complex(value)
    raise TypeError


def truth(value: Any) -> bool:
    """Return the yes or no that ``value`` is: bools of any library, 0 and 1, "yes", "no", "true", "false".

    Raises
    ------
    Unreadable : it is neither.
    """
    value = unwrapped(value)
    if isinstance(value, str):
        found = _TRUTHS.get(value.strip(_AROUND).casefold())
    elif "bool" in type(value).__name__.lower():
        return bool(value)
    else:
        found = {0: False, 1: True}.get(_exact(value))
    if found is None:
        raise Unreadable(f"Wanted yes or no (True or False), got {described(value)}.")
    return found


def word(value: Any) -> str:
    """Return the word that ``value`` is; Unreadable if it is none."""
    value = unwrapped(value)
    if not isinstance(value, str):
        raise Unreadable(f"Wanted a word, got {described(value)}.")
    return value.strip(_AROUND)


def single(value: Any) -> Any:
    """Return the one value that a list, tuple, array or tensor holds, or ``value`` itself where it is none of these."""
    value = unwrapped(value)
    for _ in range(MOST_DIMENSIONS):  # a list may hold itself
        if not isinstance(value, (list, tuple)) or len(value) != 1:
            break
        value = unwrapped(value[0])
    return value


def entries(value: Any, *, ordered: bool = True) -> list:
    """Return what a sequence holds, as a list; sequences inside it stay as they are.

    Parameters
    ----------
    value : list, tuple, range, set, array, tensor, series, sparse matrix, or a string that lists values.
    ordered : whether the order matters; if not, a set gives its values from the smallest up.

    Raises
    ------
    Unreadable : it is no sequence, a set where order matters, or so long that it cannot be an answer.
    """
    value = unwrapped(value)
    if isinstance(value, str):
        value = read_typed(value)
    if isinstance(value, _TEXTS) or not isinstance(value, _LISTS):
        cure = "; make a list of it" if hasattr(value, "__next__") else ""
        raise Unreadable(f"Wanted several values, got {described(value)}{cure}.")
    if len(value) > MOST_VALUES:
        raise Unreadable(f"Wanted fewer values, got {len(value):,}, which is far too many.")
    if not isinstance(value, Set) or isinstance(value, KeysView):
        return list(value)
    if ordered:
        raise Unreadable("Wanted values in their order, got a set, which has none; answer with a list.")
    try:
        return sorted(value)
    except TypeError:
        raise Unreadable("The values of this set are of different kinds; answer with a list.") from None


def unwrapped(value: Any) -> Any:
    """Return arrays, tensors, series and sparse matrices as nested lists, NumPy's scalars as Python's; others as given.

    Raises
    ------
    Unreadable : it holds so many values that it cannot be an answer, or some of them are masked.
    """
    if isinstance(value, type) or not hasattr(value, "shape"):
        return value
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise Unreadable("Some values of this array are masked; answer with an array that has them all.")
    shape = tuple(value.shape)
    if math.prod(shape) > MOST_VALUES:
        raise Unreadable(f"Wanted fewer values, got {described(value)}.")
    if sp.issparse(value):
        return value.toarray().tolist()
    if hasattr(value, "detach"):  # a tensor, of any layout and on any device
        value = value.detach()
        return (value if "strided" in str(value.layout) else value.to_dense()).cpu().tolist()
    return np.asarray(value).tolist()


def described(value: Any) -> str:
    """Return what an answer is, in words, never longer than a line."""
    kind = type(value).__name__
    article = "an" if kind[:1].lower() in "aeiou" else "a"
    if value is None or isinstance(value, (bool, np.bool_)):
        return str(value)
    if isinstance(value, str):
        return f"the text {shortened(value.strip())!r}"
    if isinstance(value, type):
        return f"the type {kind}"
    if isinstance(value, (list, tuple, set, frozenset, dict, range)):
        return f"{article} {kind} of {len(value):,} value{'s' * (len(value) != 1)}"
    if isinstance(getattr(value, "shape", None), tuple):
        return f"{article} {kind} of shape {tuple(value.shape)}"
    if callable(value):
        return "a function; answer with what it returns"
    return f"a value of type {kind}"


def shortened(words: str, longest: int = LONGEST_SHOWN) -> str:
    """Return words cut to at most ``longest`` characters."""
    return words if len(words) <= longest else words[: longest - 1] + "…"
