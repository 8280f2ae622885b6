"""What an exercise wants to be given: how precise, said with the question, and how to type it on a page."""

from typing import Any

import numpy as np
import scipy.sparse as sp

from workbench.grading.comparison import DIGITS
from workbench.grading.exercise import Exercise

__all__ = ["asked", "how_to_type"]

_FUNCTION = f"Answer with a function; the numbers that it returns are compared to {DIGITS} significant digits."
_NUMBERS = {
    "b": ("yes or no (True or False)", "yes and no (True and False)"),
    "i": ("an exact whole number", "exact whole numbers"),
    "f": (
        f"a number, with at least {DIGITS} significant digits",
        f"numbers, each with at least {DIGITS} significant digits",
    ),
    "U": ("a word", "words"),
}
_KINDS = {"u": "i", "c": "f"}
_EXAMPLES = {
    "b": ("yes", "yes, no, no"),
    "i": ("1234", "3, 0, 12"),
    "f": ("0.1234, 1/4 or 1.234e-5", "0.1234, 1/4, 1e-3"),
    "U": ("one word", "words with commas between them"),
}


def asked(exercise: Exercise, right: Any) -> str:
    """Return the question, and what to answer with: the kind of the right answer, and how precise numbers must be."""
    return f"{exercise.question} {_FUNCTION if exercise.cases else _precision(right)}"


def _precision(right) -> str:
    kind, dimensions = _form(right)
    if dimensions is None:
        return f"Answer with a dict; its numbers need at least {DIGITS} significant digits, whole ones must be exact."
    one, several = _NUMBERS[kind]
    return f"Answer with {('', 'a list of ', 'a matrix of ')[min(dimensions, 2)]}{several if dimensions else one}."


def how_to_type(right: Any) -> str:
    """Return how an answer of this kind is typed, with an example that is not the answer."""
    kind, dimensions = _form(right)
    if dimensions is None:
        return "An answer of this kind is given in the notebook."
    one, several = _EXAMPLES[kind]
    if dimensions < 2:
        return f"For example: {several if dimensions else one}."
    marked = " Or list the positions that are true: (0, 3), (2, 5)." if kind == "b" else ""
    return f"One row a line, with spaces or commas between the values.{marked}"


def _form(right):
    """Return the kind of the values, a key of _NUMBERS, and the number of dimensions; None for a dict."""
    if isinstance(right, dict):
        return "f", None
    values = right.data if sp.issparse(right) else np.asarray(right)
    return _KINDS.get(values.dtype.kind, values.dtype.kind), 2 if sp.issparse(right) else values.ndim
