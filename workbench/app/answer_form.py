"""The form in which an exercise is answered where cells cannot be edited: on a page of the dashboards' server."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from widgets.controls.answer import AnswerField
from workbench.grading.exercise import Exercise
from workbench.grading.verdict import Card
from workbench.grading.wanted import asked, how_to_type

MOST_NUMBERS = 10_000  # of an input that is shown as text
_MATRIX_LINES = 6


def answer_form(
    name: str, exercise: Exercise, given: Any, right: Any, checked: Callable[[str], Card], hinted: Callable[[], Card]
) -> AnswerField:
    """Return the form of one exercise; neither it nor what it sends to the page holds the right answer.

    Parameters
    ----------
    name : ``"<notebook>/<exercise>"``.
    given : the reader's input.
    right : the right answer, of which the form tells the kind.
    checked, hinted : the card for an answer that was typed, and the card with one more hint.
    """
    written = f"Write it in the notebook; `workbench copy {name.partition('/')[0]}` makes a copy of your own."
    return AnswerField(
        lambda text: _without_question(checked(text)),
        lambda: _without_question(hinted()),
        question=asked(exercise, right),
        given=as_python(given),
        how=written if exercise.cases else how_to_type(right),
        lines=0 if exercise.cases else _MATRIX_LINES if np.ndim(right) > 1 else 1,
    )


def _without_question(card: Card) -> str:
    """Return a card as HTML that does not say again what stands above the field."""
    return replace(card, question="")._repr_html_()


def as_python(value: Any) -> str:
    """Return an exercise's input as Python that makes it, or a sentence where it is too large to be shown."""
    count = _numbers(value)
    if count > MOST_NUMBERS:
        return f"It holds {count:,} numbers, too many to be shown as text; the pictures above show it."
    return _written(value)


def _numbers(value) -> int:
    if sp.issparse(value):
        return value.nnz
    if isinstance(value, Mapping):
        return sum(map(_numbers, value.values()))
    return sum(map(_numbers, value)) if isinstance(value, (tuple, list)) else np.size(value)


def _written(value) -> str:
    if sp.issparse(value):
        parts = ", ".join(_written(part) for part in (value.data, value.indices, value.indptr))
        return f"csr_array(({parts}), shape={value.shape})"
    if isinstance(value, np.ndarray):
        return f"np.array({np.array2string(value, separator=', ', threshold=sys.maxsize, floatmode='unique')})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_written(part)}" for key, part in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        left, right = "()" if isinstance(value, tuple) else "[]"
        return left + ", ".join(map(_written, value)) + right
    return repr(value)
