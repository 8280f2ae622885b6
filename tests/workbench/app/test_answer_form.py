"""On a page an open question is a form: it shows the input, reads what is typed, and does not hold the answer."""

import numpy as np
import pytest
import scipy.sparse as sp

from workbench.app import grader
from workbench.app.answer_form import as_python

NAMES = [f"{key}/{name}" for key in grader.exercise_keys() for name in grader.exercises(key)]


@pytest.fixture(autouse=True)
def on_a_page(monkeypatch):
    monkeypatch.setenv("SERVER_SOFTWARE", "sparse-workbench")
    grader._hints_shown.clear()
    grader._wrong_tries.clear()


@pytest.fixture
def form():
    made = []

    def of(name):
        made.append(grader.check(name, ...).form)
        return made[-1]

    yield of
    for each in made:
        each.close()


def typed(form, text):
    form._receive(form, {"type": "answer", "text": text}, [])
    return form.told


def as_typed(right):
    values = np.asarray(right)
    if values.ndim == 2:
        return "\n".join(" ".join(map(str, row)) for row in values.tolist())
    return ", ".join(map(str, values.tolist())) if values.ndim else str(values.item())


@pytest.mark.parametrize("name", NAMES)
def test_every_exercise_is_answered_by_typing_or_says_where(name, form):
    exercise, shown = grader.find_exercise(name), form(name)
    right = exercise.answer(grader.given(name))
    assert shown.question.startswith(exercise.question) and shown.given
    if exercise.cases:
        assert shown.lines == 0 and "workbench copy" in shown.how
        return
    state = {key: value for key, value in shown.get_state().items() if key in ("question", "how", "told")}
    assert as_typed(right) not in state.values() and shown.told == ""
    assert 'data-state="not yet"' in typed(shown, "nonsense, at all")
    assert 'data-state="correct"' in typed(shown, as_typed(right))
    if np.asarray(right).dtype.kind == "f":
        assert 'data-state="correct"' in typed(shown, as_typed(np.vectorize(lambda x: float(f"{x:.4g}"))(right)))


def test_the_card_shows_the_form_and_reads_well_without_it(form):
    card = grader.check("combiner/flat", ...)
    formats, _ = card._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in formats
    assert "Not answered yet" in card._repr_html_() and not card
    card.form.close()


def test_in_a_notebook_there_is_no_form(monkeypatch):
    monkeypatch.delenv("SERVER_SOFTWARE")
    card = grader.check("combiner/flat", ...)
    assert card.form is None and card._repr_mimebundle_() == {}


def test_a_wrong_answer_twice_points_to_the_button(form):
    shown = form("combiner/flat")
    assert "Hint button" not in typed(shown, "5")
    assert "The Hint button has 2 more to say." in typed(shown, "5")
    shown._receive(shown, {"type": "hint"}, [])
    assert "Hint 1 of 2" in shown.told


def test_what_was_typed_is_shown_as_text(form):
    assert "<script>" not in typed(form("smash/bits"), "<script>, <b>, x") + typed(
        form("smash/bits"), "'<b>', '<i>', 'x'"
    )


def test_inputs_are_python_that_makes_them():
    names = {"np": np, "csr_array": sp.csr_array, "array": np.array}
    for name in NAMES:
        text, given = as_python(grader.given(name)), grader.given(name)
        if text.startswith("It holds"):
            assert name in ("pbs_attn/pays", "smash/bits")
            continue
        made = eval(text, names)
        assert as_python(made) == text and type(made) is type(given)
