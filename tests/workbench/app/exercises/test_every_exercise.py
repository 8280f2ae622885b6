"""Every exercise of every notebook keeps the contract in ``workbench/app/exercises/__init__.py``."""

import numpy as np
import pytest
import scipy.sparse as sp

from workbench.app import grader
from workbench.grading.comparison import compare, compare_calls

NAMES = [f"{key}/{name}" for key in grader.exercise_keys() for name in grader.exercises(key)]
STUDENTS = ("ada", "emmy", "grace")


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def _bytes(value):
    if sp.issparse(value):
        return b"".join(_bytes(part) for part in (value.indptr, value.indices, value.data))
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, dict):
        return _bytes(list(value.items()))
    if isinstance(value, (tuple, list)):
        return b"|".join(_bytes(part) for part in value)
    return repr(value).encode()


def test_the_right_answer_passes_for_every_learner(name, monkeypatch):
    for student in STUDENTS:
        monkeypatch.setenv("WORKBENCH_STUDENT", student)
        verdict = grader.check(name, grader.find_exercise(name).answer(grader.given(name)))
        assert verdict.passed, str(verdict)


def test_learners_get_inputs_of_their_own_and_the_same_twice(name, monkeypatch):
    inputs = set()
    for student in STUDENTS:
        monkeypatch.setenv("WORKBENCH_STUDENT", student)
        first = _bytes(grader.given(name))
        assert first == _bytes(grader.given(name))
        inputs.add(first)
    assert len(inputs) > 1, "all learners get the same input; use rng in given()"


def test_mistakes_are_wrong_and_remarked(name, monkeypatch):
    exercise = grader.find_exercise(name)
    question = grader.given(name)
    right = exercise.answer(question)
    for mistake in exercise.mistakes:
        wrong = mistake.answer(question)
        options = {"rtol": exercise.rtol, "atol": exercise.atol}
        same = (
            compare_calls(wrong, right, exercise.cases(question))
            if exercise.cases
            else compare(wrong, right, **options)
        )
        assert not same.equal, f"{mistake.say!r} remarks on the right answer"
        assert mistake.say in str(grader.check(name, wrong))


def test_hints_are_graded_and_give_no_number_away(name):
    exercise = grader.find_exercise(name)
    assert len(exercise.hints) >= 2
    assert exercise.question.endswith(("?", "."))
    right = exercise.answer(grader.given(name))
    if isinstance(right, (int, float)) and not isinstance(right, bool) and abs(right) > 9:
        assert not any(str(right) in hint for hint in exercise.hints)


def test_a_wrong_type_is_explained_not_raised(name):
    for answer in (object(), [], "x", {}, np.array(["a"]), sp.csr_array((0, 0)), float("nan"), lambda: None):
        verdict = grader.check(name, answer)
        assert not verdict.passed and verdict.paragraphs


def test_the_notebook_asks_it(name, notebook_sources):
    key = name.partition("/")[0]
    source = notebook_sources[key]
    assert f'check("{name}", ' in source
    assert f'given("{name}")' in source
