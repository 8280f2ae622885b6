"""Comparing an answer with the right one by value, and saying what differs, by how much and in which direction."""

import copy
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from workbench.grading.plain import described, entries, number, shortened, single, truth, unwrapped, word
from workbench.grading.typed import Unreadable

__all__ = ["DIGITS", "Comparison", "compare", "compare_calls"]

DIGITS = 4  # significant digits that are enough; whole numbers must be exact
ROUNDING = 1e-9  # of the largest value: what rounding leaves where the right value is zero
SHORT = "Its type holds two or three digits only; compute in float32 or float64."
NOISE = 1e-6  # how far a float may lie from a whole number that it stands for


@dataclass(frozen=True)
class Comparison:
    """Whether two answers agree, and one sentence on what was compared and how far they are apart."""

    equal: bool
    sentence: str


def compare(answer: Any, right: Any, *, unit: str = "") -> Comparison:
    """Compare a learner's answer with the right one, whatever types the answer's numbers and sequences have.

    A whole number must be exact. Any other passes if it lies within one unit of the right one's fourth significant
    digit, so both a rounded and a cut-off number of four digits do.

    Parameters
    ----------
    answer : what the learner gave, of any type; a string is read as `read_typed` reads it.
    right : bool, int, float, str, array, SciPy sparse array, or tuple, list or dict of these.
    unit : named in the sentence.

    Returns
    -------
    Comparison, whose sentence never prints the right value itself.
    """
    try:
        result = _compare(answer, right, f" {unit}" if unit else "")
    except Unreadable as told:
        return Comparison(False, str(told))
    if result.equal or not str(getattr(answer, "dtype", "")).endswith("float16"):
        return result
    return Comparison(False, f"{result.sentence} {SHORT}")


def compare_calls(function: Any, right: Callable, cases: list[tuple], *, unit: str = "") -> Comparison:
    """Compare two functions call by call; an exception in the learner's function is told, not raised."""
    if not callable(function):
        return Comparison(False, f"Wanted a function, got {described(function)}.")
    for place, case in enumerate(cases, start=1):
        call = f"Call {place} of {len(cases)}"
        try:
            found = function(*copy.deepcopy(case))
        except (Exception, SystemExit) as error:
            return Comparison(False, f"{call} stopped with {type(error).__name__}: {shortened(str(error), 200)}.")
        result = compare(found, right(*case), unit=unit)
        if not result.equal:
            return Comparison(False, f"{call} differs. {result.sentence}")
    return Comparison(True, f"All {len(cases)} calls of your function agree.")


def _compare(answer, right, unit):
    if sp.issparse(right):
        return _sparse(answer, right, unit)
    if isinstance(right, dict):
        return _dict(answer, right, unit)
    if isinstance(right, (tuple, list)):
        return _sequence(answer, right, unit)
    if np.ndim(right):
        return _array(answer, np.asarray(right), unit)
    answer = single(answer)
    if isinstance(right, str):
        return _word(answer, right)
    return _truth(answer, right) if isinstance(right, (bool, np.bool_)) else _number(answer, right, unit)


def _word(answer, right):
    found = word(answer)
    same = found.casefold() == right.strip().casefold()
    return Comparison(same, f"Compared your text {shortened(found)!r}, ignoring upper and lower case.")


def _truth(answer, right):
    found = truth(answer)
    return Comparison(found == bool(right), f"You said {found}.")


def _number(answer, right, unit):
    found, right = number(answer), np.asarray(right).item()
    told = f"Your {_shown(found)}{unit} was compared {_how(right)}"
    if _equal(found, right, abs(right)):
        return Comparison(True, f"{told}.")
    real = isinstance(right, float) and not isinstance(found, complex)
    share = real and 0 < right <= 1 and _equal(_float(found) / 100, right, right)
    remark = " It is in per cent; answer with the share, a number from 0 to 1." if share else ""
    return Comparison(False, f"{told} and is {_distance(found, right)}.{remark}")


def _how(right):
    return "exactly" if isinstance(right, int) else f"to {DIGITS} significant digits"


def _equal(found, right, largest) -> bool:
    """Tell whether a number is the right one; ``largest`` is the largest of the right ones that belong together."""
    if isinstance(right, int):
        rounded = isinstance(found, float) and abs(right) < 2**53
        return found == right or (rounded and abs(found - right) <= NOISE)
    if isinstance(found, complex) or isinstance(right, complex):
        off = abs(complex(found) - right)
    else:
        found = _float(found)
        if not math.isfinite(right) or not math.isfinite(found):
            return found == right or (found != found and right != right)
        off = abs(found - right)
    unit = 10.0 ** (math.floor(math.log10(abs(right))) - DIGITS + 1) if right else 0.0
    return off <= max(unit * (1 + 1e-9), ROUNDING * (largest or 1.0))


def _float(value) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _shown(found) -> str:
    if isinstance(found, int) and abs(found) < 10**15:
        return f"{found:,}"
    return f"{found if isinstance(found, complex) else _float(found):.10g}"


def _distance(found, right) -> str:
    """Say the direction and rough size of an error without giving the right number away."""
    if found != found:
        return "not a number"
    if isinstance(found, complex) or isinstance(right, complex):
        return "not the right value"
    found, right = _float(found), _float(right)
    if not math.isfinite(found) or not math.isfinite(right):
        return "not the right value"
    direction = "too large" if found > right else "too small"
    if found * right < 0:
        return f"{direction} and of the wrong sign"
    if right == 0 or found == 0:
        return direction
    factor = max(abs(found / right), abs(right / found))
    if factor >= 2:
        return f"{direction}, by a factor of about {factor:.1g}" if math.isfinite(factor) else direction
    return f"{direction}, by about {100 * abs(found - right) / abs(right):.1g} per cent"


def _array(answer, right, unit):
    if right.dtype.kind == "b":
        return _mask(answer, right)
    wanted = right.ravel().tolist()
    found = _flat(answer, right.shape, number, ordered=right.ndim > 1 or not _rises(wanted))
    largest = max(map(abs, wanted), default=0)
    wrong = [at for at, (x, y) in enumerate(zip(found, wanted, strict=True)) if not _equal(x, y, largest)]
    told = f"All {right.size:,} elements were compared {_how(wanted[0] if wanted else 0)}"
    if not wrong:
        return Comparison(True, f"{told}.")
    worst = max(wrong, key=lambda at: _gap(found[at], wanted[at]))
    place, distance = _place(worst, right.shape), _distance(found[worst], wanted[worst])
    worst = f"The worst is [{place}]: your {_shown(found[worst])}{unit} is {distance}."
    return Comparison(False, f"{told}; {len(wrong):,} differ. {worst}")


def _mask(answer, right):
    found = _marked(answer, right.shape) if right.ndim > 1 else None
    found = _flat(answer, right.shape, truth) if found is None else found
    wrong = [at for at, (x, y) in enumerate(zip(found, right.ravel().tolist(), strict=True)) if x != y]
    told = f"All {right.size:,} elements were compared"
    if not wrong:
        return Comparison(True, f"{told}.")
    place, said = _place(wrong[0], right.shape), found[wrong[0]]
    return Comparison(False, f"{told}; {len(wrong):,} differ. The first is [{place}]: you said {said}.")


def _marked(answer, shape):
    """Return a mask as a flat list where the answer lists the positions that are true, None where it does not."""
    try:
        places = [tuple(map(number, entries(place))) for place in entries(answer, ordered=False)]
    except Unreadable:
        return None
    pairs = all(len(place) == len(shape) for place in places)
    if not places or not pairs or (len(places), len(shape)) == shape:
        return None
    if not all(0 <= i < side and i == int(i) for place in places for i, side in zip(place, shape, strict=True)):
        raise Unreadable(f"Some of these {len(places):,} positions lie outside the shape {shape}.")
    marked = np.zeros(shape, bool)
    for place in places:
        marked[tuple(map(int, place))] = True
    return marked.ravel().tolist()


def _gap(found, right) -> float:
    gap = abs(complex(found) - right) if isinstance(found, complex) else abs(_float(found) - right)
    return math.inf if gap != gap else gap


def _place(at, shape) -> str:
    return ", ".join(str(int(i)) for i in np.unravel_index(at, shape))


def _flat(answer, shape, read, *, ordered=True) -> list:
    """Return the elements of an answer of the wanted shape, row by row, each read by ``read``."""
    parts = entries(answer, ordered=ordered)
    for depth in range(len(shape)):
        if len(parts) != math.prod(shape[: depth + 1]):
            break
        if depth + 1 == len(shape):
            return [read(part) for part in parts]
        try:
            rows = [entries(part) for part in parts]
        except Unreadable:
            break
        if any(len(row) != shape[depth + 1] for row in rows):
            break
        parts = [element for row in rows for element in row]
    got = _shape(answer, len(shape))
    raise Unreadable(f"Wanted shape {shape}, got {'rows of different lengths' if got == shape else got}.")


def _shape(answer, depth) -> tuple[int, ...]:
    """Return the lengths of an answer, of its first part, and so on."""
    shape, part = [], answer
    while len(shape) <= depth:
        try:
            held = entries(part, ordered=False)
        except Unreadable:
            break
        shape.append(len(held))
        if not held:
            break
        part = held[0]
    return tuple(shape)


def _rises(values) -> bool:
    """Tell whether values rise strictly, so that a set of them says the same as a list."""
    plain = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    return plain and all(a < b for a, b in itertools.pairwise(values))


def _sparse(answer, right, unit):
    wanted = _canonical(right)
    if sp.issparse(answer):
        if answer.shape != right.shape:
            raise Unreadable(f"Wanted shape {right.shape}, got {answer.shape}.")
        found = _canonical(answer)
    else:
        dense = [_float(x) for x in _flat(answer, right.shape, number)]
        found = _canonical(np.reshape(dense, right.shape))
    extra, missing = _only_in(found, wanted), _only_in(wanted, found)
    if len(extra) or len(missing):
        places = [f"{len(extra):,} entries too many"] if len(extra) else []
        places += [f"{len(missing):,} entries missing"] if len(missing) else []
        i, j = divmod(int((extra if len(extra) else missing)[0]), right.shape[1])
        return Comparison(False, f"The pattern has {' and '.join(places)}, for one ({i}, {j}).")
    values = _array(found.data, wanted.data, unit)
    return Comparison(values.equal, f"The pattern of {wanted.nnz:,} entries agrees. {values.sentence}")


def _canonical(matrix: Any) -> sp.csr_array:
    """Return a matrix by value: duplicates summed, columns sorted, no stored zeros."""
    matrix = sp.csr_array(matrix, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def _only_in(first: sp.csr_array, second: sp.csr_array) -> np.ndarray:
    return np.setdiff1d(_positions(first), _positions(second), assume_unique=True)


def _positions(matrix: sp.csr_array) -> np.ndarray:
    rows = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
    return rows * matrix.shape[1] + matrix.indices


def _sequence(answer, right, unit):
    found = entries(answer, ordered=not _rises(right))
    if len(found) != len(right):
        return Comparison(False, f"Wanted {len(right)} values, got {len(found):,}.")
    for place, (one, wanted) in enumerate(zip(found, right, strict=True), start=1):
        result = _compare(one, wanted, unit)
        if not result.equal:
            return Comparison(False, f"Value {place} of {len(right)} differs. {result.sentence}")
    return Comparison(True, f"All {len(right)} values agree.")


def _dict(answer, right, unit):
    if not isinstance(answer, Mapping):
        return Comparison(False, f"Wanted a dict, got {described(unwrapped(answer))}.")
    missing = [key for key in right if key not in answer]
    if missing:
        return Comparison(False, f"The dict lacks {', '.join(map(repr, missing))}.")
    for key, wanted in right.items():
        result = _compare(answer[key], wanted, unit)
        if not result.equal:
            return Comparison(False, f"The value of {key!r} differs. {result.sentence}")
    return Comparison(True, f"All {len(right)} values agree.")
