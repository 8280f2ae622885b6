"""The explorer of compressed caches in real Chromium: tabs, steps, the link, a phone, JupyterLab, the dark page."""

from urllib.parse import urlsplit

import pytest

CELL = """
from workbench.app import request
from workbench.explorers.kv_cache.explorer import explorer

explorer(query=request.query_string())
"""
DRAWN = "cache=generated&drawn_tokens=128&prompt=64"


@pytest.fixture(scope="module")
def folder(notebook_folder):
    card = {"title": "Caches", "description": "Caches.", "thumbnail": "", "papers": []}
    return notebook_folder({"dashboards/caches": [card, "md:# Caches", CELL]})


@pytest.fixture
def open_view(open_dashboard, folder):
    def open_it(query="", on=None):
        page = open_dashboard("caches", query, folder, on)
        painted(page)
        return page

    return open_it


def painted(page):
    page.wait_for_selector(".wb-bar[data-busy=false]", state="attached")
    page.wait_for_timeout(600)


def test_parts_are_seen_and_the_timeline_follows_the_buttons(open_view, new_page):
    page = open_view(DRAWN)
    assert page.locator("canvas:visible").count() >= 5
    assert "the quantiser alone is" in page.locator(".wb-view").inner_text()
    page.get_by_role("tab", name="Bytes and blocks").click()
    page.wait_for_function("() => location.search.includes('section=bytes')")
    painted(page)
    page.get_by_role("button", name="Step back").click()
    page.wait_for_function("() => location.search.includes('step=127')")
    painted(page)
    assert "127 tokens: 64 of the prompt" in page.locator(".wb-view").inner_text()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").click()
    query = urlsplit(page.evaluate("() => navigator.clipboard.readText()")).query
    other = open_view(query, new_page())
    assert "127 tokens: 64 of the prompt" in other.locator(".wb-view").inner_text() and len(query) < 2000


def test_a_slider_is_turned_by_keyboard(open_view):
    page = open_view(f"{DRAWN}&section=drift")
    page.locator("[data-key=bits]").first.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => location.search.includes('bits=3')")
    painted(page)
    assert "at 3 bits" in page.locator(".wb-view").inner_text()


@pytest.mark.parametrize("section", ("parts", "corrections", "bytes", "drift"))
def test_nothing_sticks_out_on_a_phone(open_view, new_page, section):
    page = open_view(f"{DRAWN}&section={section}", new_page(viewport={"width": 390, "height": 844}))
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_it_is_painted_in_jupyterlab(open_lab, folder):
    page = open_lab("dashboards/caches.ipynb", folder)
    painted(page)
    page.get_by_role("tab", name="Decoding").last.click()
    page.wait_for_selector(".wb-plot-area[data-painted] .scatterlayer .point", timeout=60_000)
    assert page.locator(".wb-plot-area .scatterlayer .point").count() >= 16


def test_the_dark_page_can_be_read(open_view, axe):
    page = open_view(f"{DRAWN}&section=corrections&theme=dark")
    assert not axe(page)
