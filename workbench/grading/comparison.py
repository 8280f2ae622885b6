"""Comparing an answer with the right one, and saying what differs, by how much and in which direction."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True)
class Comparison:
    """Whether two answers agree, and one sentence on what was compared and how far they are apart."""

    equal: bool
    sentence: str


def compare(answer: Any, right: Any, *, rtol: float = 1e-6, atol: float = 0.0, unit: str = "") -> Comparison:
    """Compare a learner's answer with the right one.

    Parameters
    ----------
    answer : what the learner gave, of any type.
    right : bool, int, float, str, array, SciPy sparse array, or tuple, list or dict of these.
    rtol, atol : a float x passes if ``|x - right| <= atol + rtol * |right|``; NaN passes only where ``right`` is NaN.
    unit : named in the sentence.

    Returns
    -------
    Comparison, whose sentence never prints the right value itself.
    """
    if sp.issparse(right):
        return _sparse(answer, right, rtol, atol, unit)
    if isinstance(right, dict):
        return _dict(answer, right, rtol, atol, unit)
    if isinstance(right, (tuple, list)):
        return _sequence(answer, right, rtol, atol, unit)
    if isinstance(right, str):
        return _text(answer, right)
    if isinstance(right, (bool, np.bool_)):
        return _truth(answer, right)
    if np.ndim(right) == 0:
        return _number(answer, right, rtol, atol, unit)
    return _array(answer, np.asarray(right), rtol, atol, unit)


def compare_calls(function: Any, right: Callable, cases: list[tuple], **options: Any) -> Comparison:
    """Compare two functions call by call; an exception in the learner's function is told, not raised."""
    if not callable(function):
        return Comparison(False, f"Wanted a function, got {_kind(function)}.")
    for number, case in enumerate(cases, start=1):
        try:
            found = function(*case)
        except Exception as error:
            return Comparison(False, f"Call {number} of {len(cases)} stopped with {type(error).__name__}: {error}.")
        result = compare(found, right(*case), **options)
        if not result.equal:
            return Comparison(False, f"Call {number} of {len(cases)} differs. {result.sentence}")
    return Comparison(True, f"All {len(cases)} calls of your function agree.")


def _kind(value: Any) -> str:
    if sp.issparse(value):
        return f"a sparse {value.format} matrix of shape {value.shape}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if value is None:
        return "None"
    return f"a value of type {type(value).__name__}"


def _tolerance(rtol: float, atol: float) -> str:
    return f"relative {rtol:g}" + (f", absolute {atol:g}" if atol else "")


def _text(answer: Any, right: str) -> Comparison:
    if not isinstance(answer, str):
        return Comparison(False, f"Wanted a string, got {_kind(answer)}.")
    same = answer.strip().casefold() == right.strip().casefold()
    return Comparison(same, f"Compared your text {answer.strip()!r}, ignoring upper and lower case.")


def _truth(answer: Any, right: bool) -> Comparison:
    if not isinstance(answer, (bool, np.bool_)):
        return Comparison(False, f"Wanted True or False, got {_kind(answer)}.")
    return Comparison(bool(answer) == bool(right), f"You said {bool(answer)}.")


def _number(answer: Any, right: Any, rtol: float, atol: float, unit: str) -> Comparison:
    if isinstance(answer, (bool, np.bool_, str)) or (not np.isscalar(answer) and np.ndim(answer) != 0):
        return Comparison(False, f"Wanted one number, got {_kind(answer)}.")
    try:
        found = complex(answer) if isinstance(right, complex) else float(answer)
    except (TypeError, ValueError):
        return Comparison(False, f"Wanted one number, got {_kind(answer)}.")
    unit = f" {unit}" if unit else ""
    if isinstance(right, (int, np.integer)):
        same, how = answer == right, "exactly"
    else:
        same = bool(np.isclose(found, right, rtol=rtol, atol=atol, equal_nan=True))
        how = f"to {_tolerance(rtol, atol)}"
    if same:
        return Comparison(True, f"Your {answer:,}{unit} was compared {how}.")
    return Comparison(False, f"Your {answer:,}{unit} was compared {how} and is {_distance(found, right)}.")


def _distance(found: Any, right: Any) -> str:
    """Say the direction and rough size of an error without giving the right number away."""
    if found != found:
        return "not a number"
    if isinstance(found, complex) or not np.isfinite(found) or not np.isfinite(right):
        return "not the right value"
    direction = "too large" if found > right else "too small"
    if found * right < 0:
        return f"{direction} and of the wrong sign"
    if right == 0:
        return direction
    ratio = abs(found / right)
    factor = max(ratio, 1 / ratio) if ratio else np.inf
    if factor >= 2:
        return f"{direction}, by a factor of about {factor:.1g}" if np.isfinite(factor) else direction
    share = abs(found - right) / abs(right)
    return f"{direction}, by about {100 * share:.1g} per cent"


def _array(answer: Any, right: np.ndarray, rtol: float, atol: float, unit: str) -> Comparison:
    if sp.issparse(answer) or answer is None:
        return Comparison(False, f"Wanted a dense array of shape {right.shape}, got {_kind(answer)}.")
    try:
        found = np.asarray(answer)
    except ValueError:
        return Comparison(False, f"Wanted an array of shape {right.shape}, got {_kind(answer)}.")
    if found.shape != right.shape:
        return Comparison(False, f"Wanted shape {right.shape}, got {found.shape}.")
    if found.dtype.kind not in "biufc":
        return Comparison(False, f"Wanted numbers, got an array of {found.dtype}.")
    if right.dtype.kind in "biu":
        wrong, how = found != right, "exactly"
    else:
        wrong = ~np.isclose(found, right, rtol=rtol, atol=atol, equal_nan=True)
        how = f"to {_tolerance(rtol, atol)}"
    count = int(wrong.sum())
    compared = f"All {right.size:,} elements were compared {how}"
    if not count:
        return Comparison(True, f"{compared}.")
    gap = np.where(wrong, np.abs(found.astype(right.dtype if right.dtype.kind in "fc" else float) - right), -1)
    at = np.unravel_index(int(np.nanargmax(np.where(np.isnan(gap), np.inf, gap))), right.shape)
    where = ", ".join(str(int(i)) for i in at)
    unit = f" {unit}" if unit else ""
    distance = _distance(found[at].item(), right[at].item())
    return Comparison(
        False, f"{compared}; {count:,} differ. The worst is [{where}]: your {found[at]:g}{unit} is {distance}."
    )


def _sparse(answer: Any, right: Any, rtol: float, atol: float, unit: str) -> Comparison:
    if not sp.issparse(answer):
        return Comparison(False, f"Wanted a SciPy sparse array, got {_kind(answer)}.")
    if answer.shape != right.shape:
        return Comparison(False, f"Wanted shape {right.shape}, got {answer.shape}.")
    found, wanted = _canonical(answer), _canonical(right)
    extra, missing = _only_in(found, wanted), _only_in(wanted, found)
    if len(extra) or len(missing):
        places = [f"{len(extra):,} entries too many"] if len(extra) else []
        places += [f"{len(missing):,} entries missing"] if len(missing) else []
        i, j = divmod(int((extra if len(extra) else missing)[0]), right.shape[1])
        return Comparison(False, f"The pattern has {' and '.join(places)}, for one ({i}, {j}).")
    values = _array(found.data, wanted.data, rtol, atol, unit)
    return Comparison(values.equal, f"The pattern of {wanted.nnz:,} entries agrees. {values.sentence}")


def _canonical(matrix: Any) -> sp.csr_array:
    matrix = sp.csr_array(matrix, copy=True)
    matrix.sum_duplicates()
    return matrix


def _only_in(first: sp.csr_array, second: sp.csr_array) -> np.ndarray:
    return np.setdiff1d(_positions(first), _positions(second), assume_unique=True)


def _positions(matrix: sp.csr_array) -> np.ndarray:
    rows = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
    return rows * matrix.shape[1] + matrix.indices


def _sequence(answer: Any, right: Any, rtol: float, atol: float, unit: str) -> Comparison:
    if not isinstance(answer, (tuple, list, np.ndarray)):
        return Comparison(False, f"Wanted {len(right)} values, got {_kind(answer)}.")
    if len(answer) != len(right):
        return Comparison(False, f"Wanted {len(right)} values, got {len(answer)}.")
    for place, (found, wanted) in enumerate(zip(answer, right, strict=True), start=1):
        result = compare(found, wanted, rtol=rtol, atol=atol, unit=unit)
        if not result.equal:
            return Comparison(False, f"Value {place} of {len(right)} differs. {result.sentence}")
    return Comparison(True, f"All {len(right)} values agree.")


def _dict(answer: Any, right: dict, rtol: float, atol: float, unit: str) -> Comparison:
    if not isinstance(answer, dict):
        return Comparison(False, f"Wanted a dict, got {_kind(answer)}.")
    missing = [key for key in right if key not in answer]
    if missing:
        return Comparison(False, f"The dict lacks {', '.join(map(repr, missing))}.")
    for key, wanted in right.items():
        result = compare(answer[key], wanted, rtol=rtol, atol=atol, unit=unit)
        if not result.equal:
            return Comparison(False, f"The value of {key!r} differs. {result.sentence}")
    return Comparison(True, f"All {len(right)} values agree.")
