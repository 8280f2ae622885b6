"""The three functions of a notebook: a learner's own input, a verdict that never raises, one hint more per call."""

import pytest

from workbench.app import grader
from workbench.app.exercises import check, given, hint

NAME = "start_here/density"


@pytest.fixture(autouse=True)
def fresh_grader():
    grader._hints_shown.clear()
    grader._wrong_tries.clear()


def _right():
    return grader.find_exercise(NAME).answer(given(NAME))


def test_not_answered_yet():
    for nothing in (..., None):
        verdict = check(NAME, nothing)
        assert not verdict and verdict.state == "open"


def test_correct_and_not_yet():
    assert check(NAME, _right())
    verdict = check(NAME, 2 * _right())
    assert verdict.state == "not yet" and "too large, by a factor of about 2" in str(verdict)


def test_a_known_mistake_gets_its_remark():
    assert "That is the sparsity" in str(check(NAME, 1 - _right()))


def test_hints_come_one_by_one_and_stay():
    first, second, third = hint(NAME), hint(NAME), hint(NAME)
    assert [len(card.paragraphs) for card in (first, second, third)] == [1, 2, 2]
    assert second.headline == "Hint 2 of 2"


def test_hints_are_offered_after_two_wrong_tries():
    assert "hint(" not in str(check(NAME, 5.0))
    assert "hint('start_here/density') has 2 more to say" in str(check(NAME, 5.0))
    hint(NAME), hint(NAME)
    assert "more to say" not in str(check(NAME, 5.0))


def test_a_misspelt_name_gets_the_nearest():
    for card in (check("start_here/densty", 1), hint("start_here/densty")):
        assert card.state == "unknown" and "did you mean 'start_here/density'?" in str(card)
    with pytest.raises(KeyError, match="did you mean"):
        given("start_here/densty")


def test_the_learner_is_named_by_the_environment(monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_USER", "hub")
    assert grader.student() == "tester"
    monkeypatch.delenv("WORKBENCH_STUDENT")
    assert grader.student() == "hub"
    monkeypatch.delenv("JUPYTERHUB_USER")
    assert grader.student()


def test_the_card_speaks_without_colour_and_is_safe():
    html = check(NAME, "<script>")._repr_html_()
    assert 'role="status"' in html and "Not yet" in html and "✗" in html
    assert "<script>" not in html
    assert "✗ Not yet" in repr(check(NAME, 5.0))
