"""Every exercise of every notebook keeps the contract in ``workbench/app/exercises/__init__.py``."""

import fractions
import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from workbench.app import grader
from workbench.grading.comparison import compare, compare_calls

NAMES = [f"{key}/{name}" for key in grader.exercise_keys() for name in grader.exercises(key)]
STUDENTS = ("ada", "emmy", "grace")


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def right(name):
    """The right answer, an array where it is a list of numbers; skips where it is a function."""
    exercise = grader.find_exercise(name)
    if exercise.cases:
        pytest.skip("a function")
    return exercise.answer(grader.given(name))


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


def _forms(right):
    """Return the same answer in every form that a learner may give it in."""
    values = np.asarray(right)
    plain = values.tolist()
    if values.ndim == 2:
        yield "\n".join(" ".join(f"{x:d}" if values.dtype.kind == "b" else repr(x) for x in row) for row in plain)
        yield from (sp.csr_array(values), [tuple(row) for row in plain], np.asmatrix(values))
    if values.ndim == 1:
        yield from (tuple(plain), ", ".join(map(str, plain)), str(plain), np.array2string(values, threshold=9999))
        yield [values[i : i + 1].reshape(()) for i in range(len(values))]
    if values.ndim == 0:
        yield from (values, values.reshape(1), [plain], str(plain), f" {plain} ")
    yield from (values, plain, values.astype(object), repr(plain))
    if values.dtype.kind in "bif":
        yield from (torch.tensor(plain), torch.tensor(plain).unsqueeze(0)[0], np.ma.array(values), values.astype(float))
    if values.dtype.kind == "f":
        yield from (torch.tensor(plain, dtype=torch.float64, requires_grad=True), values.astype(np.float32))
        yield np.vectorize(lambda x: float(f"{x:.4g}"))(values)
        yield np.vectorize(lambda x: f"{x:.3e}")(values).tolist()
    if values.dtype.kind in "if":
        yield np.vectorize(fractions.Fraction, otypes=[object])(values)
        yield values.astype(complex)
    if values.dtype.kind == "b":
        yield from (values.astype(int), torch.tensor(plain).int(), np.where(values, "yes", "no"))


def test_an_equal_answer_is_right_in_every_form(name, right):
    for form in _forms(right):
        verdict = grader.check(name, form)
        assert verdict.passed, (form, str(verdict))


def _off(value):
    """Return values that are off in the third digit of a number, or by one of a whole number."""
    if isinstance(value, float):
        step = 10.0 ** (math.floor(math.log10(abs(value))) - 2) if value else 0.01
        return value + step, value - step
    return (
        (not value,)
        if isinstance(value, bool)
        else (value + 1, value - 1)
        if isinstance(value, int)
        else ("", value + "x")
    )


def test_an_answer_that_is_off_in_the_third_digit_is_wrong(name, right):
    plain = np.asarray(right).tolist()
    flat = np.asarray(right).ravel().tolist()
    for place in (0, len(flat) // 2, len(flat) - 1):
        for wrong in _off(flat[place]):
            changed = [*flat[:place], wrong, *flat[place + 1 :]]
            answer = np.reshape(np.array(changed, dtype=object), np.shape(plain)).tolist()
            verdict = grader.check(name, answer)
            assert verdict.state == "not yet", (answer, str(verdict))


def test_the_precision_is_said_with_the_question_before_the_answer(name):
    exercise = grader.find_exercise(name)
    card = grader.check(name, ...)
    assert card.state == "open" and card.question.startswith(f"{exercise.question} Answer with ")
    right = exercise.answer(grader.given(name))
    kind = "f" if exercise.cases else np.asarray(right).dtype.kind
    said = {"f": "4 significant digits", "i": "exact whole number", "b": "(True ", "U": "word"}[kind]
    assert said in card.question
    assert grader.check(name, "").question == card.question


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
    for student in STUDENTS:
        monkeypatch.setenv("WORKBENCH_STUDENT", student)
        question = grader.given(name)
        right = exercise.answer(question)
        for mistake in exercise.mistakes:
            wrong = mistake.answer(question)
            same = compare_calls(wrong, right, exercise.cases(question)) if exercise.cases else compare(wrong, right)
            assert not same.equal, f"{mistake.say!r} remarks on the right answer"
            assert mistake.say in str(grader.check(name, wrong))


def test_hints_are_graded_and_give_no_number_away(name):
    exercise = grader.find_exercise(name)
    assert len(exercise.hints) >= 2
    assert exercise.question.endswith(("?", "."))
    right = exercise.answer(grader.given(name))
    if isinstance(right, (int, float)) and not isinstance(right, bool) and abs(right) > 9:
        assert not any(str(right) in hint for hint in exercise.hints)


class Hostile:
    """Raises whatever is asked of it."""

    def __getattribute__(self, attribute):
        raise RuntimeError(attribute)

    def __float__(self):
        raise MemoryError

    __index__ = __len__ = __iter__ = __eq__ = __bool__ = __repr__ = __array__ = __float__
    __hash__ = None


HOLDS_ITSELF: list = []
HOLDS_ITSELF.append(HOLDS_ITSELF)
ODD = {
    "object": object(),
    "nothing": [],
    "letter": "x",
    "empty text": "",
    "long text": "9" * 100_000,
    "brackets": "[" * 5000,
    "code": "__import__('os').system('true')",
    "dict": {},
    "text array": np.array(["a"]),
    "empty sparse": sp.csr_array((0, 0)),
    "nan": float("nan"),
    "infinity": -math.inf,
    "huge": 10**5000,
    "huge text": "1e999999999",
    "function": lambda: None,
    "type": int,
    "generator": (n for n in ()),
    "long list": [0] * 100_000,
    "endless": range(10**15),
    "wide": np.broadcast_to(0.0, (10**9, 10**9)),
    "nothing inside": [None, None],
    "itself": HOLDS_ITSELF,
    "records": np.zeros(3, [("a", int)]),
    "dates": np.array(["2020-01-01"], "datetime64[D]"),
    "meta tensor": torch.empty(3, device="meta"),
    "bytes": b"\xff",
    "hostile": Hostile(),
    "hostile inside": [Hostile()],
    "set of lists": {(1, "a"), ("b", 2)},
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", ["smash/products", "combiner/flat", "combiner/tree", "favit/partners", "smash/bits",
                                  "xattention/distances", "ponet/local", "favit/fuse"])  # fmt: skip
def test_nothing_makes_check_raise(name, odd):
    verdict = grader.check(name, ODD[odd])
    assert verdict.state == "not yet" and verdict.paragraphs and verdict.paragraphs[0].endswith(".")
    assert len(verdict.paragraphs[0]) < 400 and verdict._repr_html_() and str(verdict)


def test_a_wrong_type_is_explained_not_raised(name):
    for answer in (object(), [], "x", {}, np.array(["a"]), sp.csr_array((0, 0)), float("nan"), lambda: None):
        verdict = grader.check(name, answer)
        assert not verdict.passed and verdict.paragraphs


def test_the_notebook_asks_it_and_says_how_precise_numbers_must_be(name, notebook_sources):
    key = name.partition("/")[0]
    source = notebook_sources[key]
    assert f'check("{name}", ' in source
    assert f'given("{name}")' in source
    assert "four significant digits are enough" in source.replace("\n# ", " ")
