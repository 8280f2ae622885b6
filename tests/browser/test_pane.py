"""What a pane says while its picture is on the way, late, or cannot be drawn."""

import pytest

from widgets import theme


@pytest.fixture
def pane(page):
    page.goto("about:blank")
    hurried = theme.PANE.replace("= 500;", "= 50;").replace("= 20000;", "= 1500;")
    page.add_script_tag(
        content=hurried + "; window.asked = 0; window.note = paneNote(document.body, () => { asked += 1; });"
    )
    return page


def test_pane_that_waits_says_so_and_asks_again_whenever_patience_runs_out(pane):
    pane.evaluate("note.waiting()")
    pane.wait_for_selector("text=The picture is being drawn.")
    assert pane.evaluate("asked") == 0
    pane.wait_for_selector("text=Ask for it again")
    pane.wait_for_function("asked >= 2")
    before = pane.evaluate("document.querySelector('.wb-pane-note button').click(), asked")
    assert before >= 3
    pane.evaluate("note.painted(), asked = 0")
    pane.wait_for_timeout(2000)
    assert pane.evaluate("asked") == 0
    assert pane.locator(".wb-pane-note:visible").count() == 0
    assert pane.get_attribute("body", "data-pane") == "painted"


def test_pane_that_is_painted_in_time_says_nothing(pane):
    pane.evaluate("note.waiting(); note.painted()")
    pane.wait_for_timeout(600)
    assert pane.locator(".wb-pane-note:visible").count() == 0


def test_pane_that_failed_says_why_and_is_tried_again_a_few_times(pane):
    pane.watch.allow("pane")
    pane.evaluate("window.fail = () => note.failed(new Error('no room')); note.waiting(); fail()")
    assert "The picture could not be drawn: no room." in pane.inner_text("body")
    pane.wait_for_function("asked === 1")
    for _ in range(4):
        pane.evaluate("fail()")
        pane.wait_for_timeout(600)
    assert pane.evaluate("asked") == 3
    pane.click("text=Draw it again")
    assert pane.evaluate("asked") == 4
