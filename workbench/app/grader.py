"""The three functions a notebook calls: ``given``, ``check`` and ``hint``."""

import getpass
import hashlib
import importlib
import os
from collections import Counter
from functools import lru_cache, partial
from typing import Any

import numpy as np

from workbench.app.request import is_served
from workbench.gathered import exporting, find, no_such
from workbench.grading.comparison import Comparison, compare, compare_calls
from workbench.grading.exercise import Exercise
from workbench.grading.verdict import Card
from workbench.grading.wanted import asked

_FOLDER = "workbench.app.exercises"
_hints_shown: Counter[str] = Counter()
_wrong_tries: Counter[str] = Counter()


def student() -> str:
    """Name the learner: ``WORKBENCH_STUDENT``, else ``JUPYTERHUB_USER``, else the account's name."""
    for variable in ("WORKBENCH_STUDENT", "JUPYTERHUB_USER"):
        if name := os.environ.get(variable, "").strip():
            return name
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "anonymous"


def exercises(key: str) -> dict[str, Exercise]:
    """Return the exercises of one notebook by name; KeyError names the nearest notebook that has some."""
    module = find("notebook with exercises", key, _modules())
    return {one.name: one for one in importlib.import_module(module).EXERCISES}


def exercise_keys() -> list[str]:
    """List the notebooks that have exercises."""
    return sorted(_modules())


def _modules() -> dict[str, str]:
    """Return the module of every notebook's exercises: those of the papers, and those of this folder."""
    papers = {key: f"workbench.papers.{key}.exercises" for key in exporting("workbench.papers", "exercises")}
    return papers | {key: f"{_FOLDER}.{key}" for key in exporting(_FOLDER)}


def find_exercise(name: str) -> Exercise:
    """Return the exercise ``"<file>/<exercise>"``; KeyError names the nearest."""
    key, _, inner = str(name).partition("/")
    if key in _modules() and inner in exercises(key):
        return exercises(key)[inner]
    raise no_such("exercise", name, [f"{each}/{one}" for each in exercise_keys() for one in exercises(each)])


def given(name: str) -> Any:
    """Return this learner's own input for an exercise: equal at every call, different between learners.

    Parameters
    ----------
    name : ``"<file>/<exercise>"``, for example ``"start_here/density"``.

    Raises
    ------
    KeyError : no such exercise; the message names the nearest.
    """
    return find_exercise(name).given(_rng(name))


def check(name: str, answer: Any) -> Card:
    """Compare an answer with the right one and explain the difference.

    Whole numbers must be exact; of any other number four significant digits are enough. The type does not matter:
    tensors, arrays, fractions and strings such as "1/4" are compared by their values.

    Parameters
    ----------
    name : ``"<file>/<exercise>"``.
    answer : the learner's answer; ``...`` or None means "not answered yet".

    Returns
    -------
    Card, shown as the cell's output and true if the answer is right. Never raises. On a page, whose reader cannot edit
    the cell, an open question comes with a form to answer it in.
    """
    try:
        exercise = find_exercise(name)
    except KeyError as error:
        return Card("unknown", "No such exercise", paragraphs=(str(error.args[0]),))
    if answer is not ... and answer is not None:
        return _verdict(name, exercise, answer, f"hint({name!r})")
    right, form = _right(name, student()), None
    if is_served():
        from workbench.app.answer_form import answer_form

        form = answer_form(name, exercise, given(name), right, partial(_typed, name, exercise), partial(hint, name))
    question = asked(exercise, right)
    return Card("open", "Not answered yet", question, (f"hint({name!r}) gives a first nudge.",), form)


def _typed(name: str, exercise: Exercise, text: str) -> Card:
    return _verdict(name, exercise, text, "The Hint button")


def _verdict(name: str, exercise: Exercise, answer: Any, hints: str) -> Card:
    """Return the verdict on an answer; ``hints`` is what has more to say after a second wrong one."""
    right = _right(name, student())
    question = asked(exercise, right)
    try:
        result = _grade(exercise, given(name), right, answer)
    except Exception as error:  # an object whose own methods fail
        kind = f"{type(answer).__name__} object"
        result = Comparison(False, f"Your answer could not be read: this {kind} raises {type(error).__name__}.")
    if result.equal:
        return Card("correct", "Correct", question, (result.sentence,))
    _wrong_tries[name] += 1
    remarks = [m.say for m in exercise.mistakes if _is_mistake(exercise, answer, m.answer(given(name)))]
    left = len(exercise.hints) - _hints_shown[name]
    if _wrong_tries[name] >= 2 and left > 0:
        remarks.append(f"{hints} has {left} more to say.")
    return Card("not yet", "Not yet", question, (result.sentence, *remarks))


def hint(name: str) -> Card:
    """Show one more hint at each call, from a nudge to nearly the way; after the last, all of them."""
    try:
        exercise = find_exercise(name)
    except KeyError as error:
        return Card("unknown", "No such exercise", paragraphs=(str(error.args[0]),))
    total = len(exercise.hints)
    shown = _hints_shown[name] = min(_hints_shown[name] + 1, total)
    return Card("hint", f"Hint {shown} of {total}", exercise.question, exercise.hints[:shown])


@lru_cache(maxsize=256)
def _right(name: str, learner: str) -> Any:
    """Return the right answer for one learner, whose name the input depends on."""
    return find_exercise(name).answer(given(name))


def _rng(name: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{student()}\n{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def _grade(exercise: Exercise, question: Any, right: Any, answer: Any) -> Comparison:
    if exercise.cases is not None:
        return compare_calls(answer, right, exercise.cases(question), unit=exercise.unit)
    return compare(answer, right, unit=exercise.unit)


def _is_mistake(exercise: Exercise, answer: Any, wrong: Any) -> bool:
    try:
        return exercise.cases is None and compare(answer, wrong).equal
    except Exception:  # as in the verdict, which has said so
        return False
