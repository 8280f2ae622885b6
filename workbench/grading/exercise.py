"""What an exercise is: a question, an input per learner, the right answer as a function, hints, known mistakes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that learners are known to give, and what to tell them.

    Parameters
    ----------
    answer : ``answer(given)`` -> the wrong answer.
    say : what is wrong with it, in one or two sentences that do not give the right one.
    """

    answer: Callable[[Any], Any]
    say: str


@dataclass(frozen=True)
class Exercise:
    """One question with everything that grading needs.

    Parameters
    ----------
    name : unique in its file; the notebook asks for ``"<file>/<name>"``.
    question : the question in one sentence, repeated on the verdict.
    given : ``given(rng)`` -> the learner's input; ``rng`` is a ``numpy.random.Generator`` of their own.
    answer : ``answer(given)`` -> the right answer, computed.
    hints : from a nudge to nearly the way; at least two. None states the answer.
    unit : what the numbers count, such as ``"bytes"``; "" for pure numbers.
    mistakes : wrong answers that deserve a remark of their own.
    cases : ``cases(given)`` -> list of argument tuples, for exercises whose answer is a function.
    """

    name: str
    question: str
    given: Callable[[np.random.Generator], Any]
    answer: Callable[[Any], Any]
    hints: tuple[str, ...]
    unit: str = ""
    mistakes: tuple[Mistake, ...] = ()
    cases: Callable[[Any], list[tuple]] | None = None
