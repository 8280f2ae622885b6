"""Exercises on a served page: answers are typed, the verdict is that of the notebook, nothing gives the answer away."""

import numpy as np
import pytest

from workbench.app import grader

ASKED = ("smash/products", "combiner/flat", "favit/partners", "xattention/distances", "ponet/local")
CELLS = [
    "md:# Exercises",
    "from workbench.app.exercises import check, given, hint",
    *(f'answer = ...\ncheck("{name}", answer)' for name in ASKED),
]


@pytest.fixture(scope="module")
def server(start_server, notebook_folder):
    return start_server(notebook_folder({"papers/exercises": CELLS}))


@pytest.fixture
def forms(page, server):
    """The page with its forms by exercise, and all that came through the websocket."""
    page.received = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: page.received.append(frame)))
    page.goto(f"{server.url}papers/exercises")
    page.wait_for_function(f"() => document.querySelectorAll('.wb-answer').length === {len(ASKED)}")
    return {name: page.locator(".wb-answer").nth(place) for place, name in enumerate(ASKED)}


@pytest.fixture
def right(monkeypatch):
    """The right answers of the learner whom the server's kernels name."""
    return {name: grader.find_exercise(name).answer(grader.given(name)) for name in ASKED}


def answered(form, text, by="click"):
    """Type an answer, have it checked, return what is told of it."""
    form.locator("textarea").fill(text)
    before = form.locator(".wb-told").inner_html()
    if by == "click":
        form.get_by_role("button", name="Check the answer").click()
    else:
        form.locator("textarea").press(by)
    form.page.wait_for_function(
        "([form, before]) => form.querySelector('.wb-told').innerHTML !== before",
        arg=[form.element_handle(), before],
    )
    return form.locator(".wb-told").inner_text()


def test_answers_are_typed_and_get_the_verdict_of_the_notebook(forms, right):
    count = forms["smash/products"]
    assert "Answer with an exact whole number." in count.locator(".wb-asked").inner_text()
    assert "Not yet" in answered(count, str(right["smash/products"] + 1))
    assert "Correct" in answered(count, str(right["smash/products"]), by="Enter")
    weight = forms["combiner/flat"]
    assert "at least 4 significant digits" in weight.locator(".wb-asked").inner_text()
    assert "per cent" in answered(weight, f"{100 * right['combiner/flat']:.4g} %")
    position, _ = grader.given("combiner/flat")
    whole = answered(weight, f"1/{position + 1}")
    assert "Not yet" in whole and "That is full attention" in whole
    assert "Correct" in answered(weight, f"{right['combiner/flat']:.4g}")
    words = ", ".join("yes" if x else "no" for x in right["xattention/distances"])
    assert "Correct" in answered(forms["xattention/distances"], words)
    places = "\n".join(f"{i} {j}" for i, j in np.argwhere(right["favit/partners"]))
    assert "Correct" in answered(forms["favit/partners"], places)


def test_hints_what_cannot_be_read_and_functions_are_told_in_forms_that_are_accessible(forms, page, axe):
    form = forms["combiner/flat"]
    form.get_by_role("button", name="Hint").click()
    form.get_by_text("Hint 1 of 2").wait_for()
    assert "could not be read" in answered(form, "__import__('os').getcwd()")
    assert "a comma separates values" in answered(form, "0,25")
    assert "The Hint button has 1 more to say." in form.locator(".wb-told").inner_text()
    function = forms["ponet/local"]
    assert not function.locator("textarea").is_visible()
    assert "workbench copy ponet" in function.inner_text()
    assert function.get_by_role("button", name="Hint").is_visible()
    forms["smash/products"].locator("summary").click()
    answered(forms["smash/products"], "5")
    assert axe(page, ".wb-answer") == []


def test_the_input_is_shown_and_the_answer_is_nowhere(forms, right, page):
    form = forms["smash/products"]
    form.locator("summary").click()
    assert form.locator("pre").inner_text().startswith("(csr_array((np.array([")
    sent = page.content() + "".join(x if isinstance(x, str) else x.decode(errors="ignore") for x in page.received)
    assert "How many partial products does a @ b take?" in sent and "csr_array" in sent
    assert repr(right["combiner/flat"]) not in sent  # of the others, short numbers may occur by chance
