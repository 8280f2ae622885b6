"""The explorer of weight formats in real Chromium: tabs, steps, the link, exports."""

from urllib.parse import urlsplit

import pytest

CELL = """
from workbench.app import request
from workbench.explorers.weight_format.explorer import explorer

explorer(query=request.query_string())
"""


@pytest.fixture(scope="module")
def folder(view_folder):
    card = {"title": "Formats", "description": "Formats.", "thumbnail": "", "papers": []}
    return view_folder({"dashboards/formats": [card, "md:# Formats", CELL]})


@pytest.fixture
def open_view(open_dashboard, folder):
    def open_it(query="", on=None):
        page = open_dashboard("formats", query, folder, on)
        painted(page)
        return page

    return open_it


def painted(page):
    page.wait_for_selector(".wb-plot-area[data-painted]", state="attached")
    page.wait_for_selector(".wb-bar[data-busy=false]", state="attached")
    page.wait_for_timeout(400)


def test_bars_of_every_kind_are_seen_and_the_steps_follow_the_buttons(open_view):
    page = open_view("pattern=blocks")
    colours = page.evaluate(
        """() => [...document.querySelectorAll(".wb-plot-area .bars .point path")].map((path) =>
            path.style.fill.startsWith("url") || path.style.fillOpacity !== "0")"""
    )
    assert len(colours) >= 24 and all(colours)
    page.get_by_role("tab", name="Step by step").click()
    page.wait_for_function("() => location.search.includes('section=step')")
    painted(page)
    page.get_by_role("button", name="CSR, 16-bit indices").click()
    page.wait_for_function("() => location.search.includes('format=csr16')")
    page.get_by_role("button", name="Step forward").click()
    page.wait_for_function("() => location.search.includes('step=2')")
    painted(page)
    assert "One entry of row 0" in page.locator(".wb-view").inner_text()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").click()
    query = urlsplit(page.evaluate("() => navigator.clipboard.readText()")).query
    assert query == urlsplit(page.url).query and len(query) < 2000


def test_tiles_of_tiled_csl_are_turned_by_keyboard(open_view):
    page = open_view("section=step&format=tiled_csl&value_bits=16&rows=128&columns=128&sparsity=0.8")
    assert "a tile of 128 x 64" in page.locator(".wb-view").inner_text()
    page.locator("[data-key=tile_rows]").first.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => location.search.includes('tile_rows=64')")
    painted(page)
    assert "a tile of 64 x 64" in page.locator(".wb-view").inner_text()


def test_nothing_sticks_out_on_a_phone(open_view, new_page):
    page = open_view("pattern=blocks", new_page(viewport={"width": 390, "height": 844}))
    nothing_sticks_out(page)
    for section, name in (("step", "Step by step"), ("roofline", "Roofline")):
        page.get_by_role("tab", name=name).click()
        page.wait_for_function("section => location.search.includes(`section=${section}`)", arg=section)
        painted(page)
        nothing_sticks_out(page)


def nothing_sticks_out(page):
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    clipped = page.evaluate(
        """() => [...document.querySelectorAll(".wb-plot-area[data-painted]")].filter((area) => area.offsetParent &&
            [...area.querySelectorAll(".gtitle, .ytick text, .textpoint text, .bartext")].some((text) => {
              const at = text.getBoundingClientRect(), pane = area.getBoundingClientRect();
              return at.left < pane.left - 1 || at.right > pane.right + 1;
            })).map((area) => area.getAttribute("aria-label"))"""
    )
    assert not clipped  # what is wider than the phone lies in a pane that scrolls


def test_it_is_painted_in_jupyterlab(open_lab, folder):
    page = open_lab("dashboards/formats.ipynb", folder)
    painted(page)
    page.get_by_role("tab", name="Roofline").last.click()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.wb-note')].some((p) => p.innerText.includes('Modelled'))"
    )
    painted(page)
    assert page.locator(".wb-plot-area .scatterlayer .point").count() >= 6


def test_the_roofline_of_another_machine_in_the_dark(open_view, axe):
    page = open_view("section=roofline&machine=a100&value_bits=16&rows=128&columns=64&theme=dark")
    assert "312 Tflop/s" in page.locator(".wb-view").inner_text()
    assert not axe(page)
