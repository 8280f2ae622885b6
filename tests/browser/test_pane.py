"""What a pane says while its picture is on the way, late, or cannot be drawn."""

import pytest

from widgets import theme


@pytest.fixture
def pane(page):
    page.goto("about:blank")
    hurried = theme.PANE.replace("= 500;", "= 50;").replace("= 20000;", "= 400;")
    page.add_script_tag(
        content=hurried + "; window.asked = 0; window.note = paneNote(document.body, () => { asked += 1; });"
    )
    return page


def test_pane_that_waits_says_so_and_later_offers_to_ask_again(pane):
    pane.evaluate("note.waiting()")
    pane.wait_for_selector("text=The picture is being drawn.")
    pane.click("text=Ask for it again")
    assert pane.evaluate("asked") == 1
    assert pane.locator(".wb-pane-note:visible").count() == 0
    pane.evaluate("note.painted()")
    assert pane.get_attribute("body", "data-pane") == "painted"


def test_pane_that_is_painted_in_time_says_nothing(pane):
    pane.evaluate("note.waiting(); note.painted()")
    pane.wait_for_timeout(600)
    assert pane.locator(".wb-pane-note:visible").count() == 0


def test_pane_that_failed_says_why_and_draws_again(pane):
    pane.watch.allow("pane")
    pane.evaluate("note.waiting(); note.failed(new Error('no room'))")
    assert "The picture could not be drawn: no room." in pane.inner_text("body")
    pane.click("text=Draw it again")
    assert pane.evaluate("asked") == 1
