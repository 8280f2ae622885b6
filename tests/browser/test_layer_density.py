"""The explorer of layer densities in real Chromium: tabs, the shuffled mask, rounds, the link, phones, the dark."""

from urllib.parse import urlsplit

import pytest

QUICK = "rounds=5"


@pytest.fixture
def open_view(open_dashboard):
    def open_it(query=QUICK):
        page = open_dashboard("layer_densities", query)
        painted(page)
        return page

    return open_it


def painted(page):
    page.wait_for_selector(".wb-plot-area[data-painted], .wb-cells canvas", state="attached")
    page.wait_for_selector(".wb-bar[data-busy=false]", state="attached")
    page.wait_for_timeout(400)


def said(page):
    return page.locator(".wb-view").inner_text()


def test_bars_have_boxes_and_the_mask_is_shuffled_by_a_button(open_view):
    page = open_view()
    assert page.locator(".wb-plot-area .bars .point path").count() == 32  # 16 layers, pruned and cropped
    page.get_by_role("tab", name="One layer's mask").click()
    page.wait_for_function("() => location.search.includes('section=mask')")
    page.wait_for_function("() => document.querySelectorAll('.wb-numbers tr').length === 4")
    before = said(page)
    page.get_by_role("button", name="Shuffle again").click()
    page.wait_for_function("() => location.search.includes('shuffle=1')")
    page.wait_for_timeout(400)
    assert said(page) == before  # as many weights, as many channels: a dense kernel has as much to do
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").click()
    query = urlsplit(page.evaluate("() => navigator.clipboard.readText()")).query
    assert query == urlsplit(page.url).query and len(query) < 2000


def test_rounds_are_turned_by_keyboard_and_a_lost_layer_is_told(open_view):
    page = open_view("density=0.01&rounds=2&section=rounds&net=plain")
    slider = page.locator("[data-key=rounds]").first
    slider.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => location.search.includes('rounds=1')")
    painted(page)
    assert "keep" in said(page) and page.locator(".wb-plot-area .scatterlayer .point").count() == 5  # the water level


def test_what_cannot_be_cropped_is_a_sentence(open_view):
    page = open_view("density=0.02&mode=inner&method=random")
    assert "Nothing is cropped" in said(page) and "infeasible" in said(page)


def test_it_is_painted_in_jupyterlab(open_lab):
    page = open_lab("dashboards/layer_densities.ipynb")
    painted(page)
    page.get_by_role("tab", name="Rounds").last.click()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.gtitle')].some((t) => t.textContent.includes('stay in each layer'))"
    )
