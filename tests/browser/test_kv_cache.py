"""The explorer of compressed caches in real Chromium: tabs, steps, the link, a phone, JupyterLab, the dark page."""

from urllib.parse import urlsplit

import pytest

DRAWN = "cache=generated&drawn_tokens=128&prompt=64"


@pytest.fixture
def open_view(open_dashboard):
    def open_it(query=""):
        page = open_dashboard("compressed_caches", query)
        painted(page)
        return page

    return open_it


def painted(page):
    page.wait_for_selector(".wb-bar[data-busy=false]", state="attached")
    page.wait_for_timeout(600)


def test_parts_are_seen_and_the_timeline_follows_the_buttons(open_view):
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
    assert query == urlsplit(page.url).query and len(query) < 2000


def test_a_slider_is_turned_by_keyboard(open_view):
    page = open_view(f"{DRAWN}&section=drift")
    page.locator("[data-key=bits]").first.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => location.search.includes('bits=3')")
    painted(page)
    assert "at 3 bits" in page.locator(".wb-view").inner_text()


def test_it_is_painted_in_jupyterlab(open_lab):
    page = open_lab("dashboards/compressed_caches.ipynb")
    painted(page)
    page.get_by_role("tab", name="Decoding").last.click()
    page.wait_for_selector(".wb-plot-area[data-painted] .scatterlayer .point", timeout=60_000)
    assert page.locator(".wb-plot-area .scatterlayer .point").count() >= 16
