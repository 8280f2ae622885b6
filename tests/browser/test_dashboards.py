"""Every dashboard of the workbench in real Chromium: in the light, in the dark, and all parts on a phone."""

import pytest

from workbench import folders
from workbench.app.notebook_index import notebook_index

NAMES = [notebook.name for notebook in notebook_index(folders.notebooks()) if notebook.kind == "dashboards"]
CHOSEN = "place => document.querySelectorAll('.wb-tabs [role=tab]')[place].ariaSelected === 'true'"
QUIET = """() => [...document.querySelectorAll(".wb-bar")].every((bar) => bar.dataset.busy === "false")
  && [...document.querySelectorAll("[data-pane]")].every((at) => !at.clientHeight || at.dataset.pane === "painted")
"""


def parts(page):
    """Open one tab after the other and yield its name when all is painted; once without tabs."""
    tabs = page.locator(".wb-tabs [role=tab]")
    for place, name in enumerate(tabs.all_inner_texts() or [""]):
        if name:
            tabs.nth(place).click()
            page.wait_for_function(CHOSEN, arg=place)
        page.wait_for_timeout(400)
        page.wait_for_function(QUIET)
        page.wait_for_timeout(300)
        yield name


def has_no_sideways_scroll(page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("name", NAMES)
def test_every_part_can_be_read_in_both_themes_and_fits_a_phone(open_dashboard, name, axe):
    """Light on a wide screen, with the first part; dark on a phone, part by part."""
    page = open_dashboard(name)
    page.wait_for_function(QUIET)
    assert page.evaluate("document.documentElement.dataset.wbTheme") == "light"
    assert has_no_sideways_scroll(page)
    assert axe(page) == []
    page.click("[data-theme-toggle]")
    page.set_viewport_size({"width": 390, "height": 844})
    for part in parts(page):
        assert page.evaluate("document.documentElement.dataset.wbTheme") == "dark"
        assert has_no_sideways_scroll(page), part
        assert axe(page) == [], part
