"""The dashboard of pruning in real Chromium: recorded points, layers, kept weights, a point of one's own, links."""

import io
import xml.etree.ElementTree as ElementTree
from urllib.parse import urlsplit

import numpy as np
import pytest

from widgets.figures.pruning import at_budget
from widgets.figures.pruning_words import point_title

CHOSEN = "model=tiny_lm&point=magnitude%400.5&layer=layers.2.gate"


@pytest.fixture
def open_view(open_dashboard):
    def open_it(query=CHOSEN, on=None):
        page = open_dashboard("pruning_tradeoffs", query, None, on)
        painted(page)
        return page

    return open_it


def painted(page):
    """Wait until plots and picture are on screen and nothing is being computed."""
    page.wait_for_function("() => document.querySelectorAll('.wb-plot-area[data-painted]').length >= 4")
    page.wait_for_selector(".wb-canvas[data-painted]")
    page.wait_for_function(
        "() => [...document.querySelectorAll('.wb-bar')].every((bar) => bar.dataset.busy === 'false')"
    )
    page.wait_for_timeout(400)


def control(page, key):
    return page.locator(f"[data-key={key}]").first


def click(page, x, y):
    """Click a mark of a plot, which plotly must have seen the pointer on."""
    page.mouse.move(x - 2, y - 2)
    page.mouse.move(x, y)
    page.wait_for_timeout(300)
    page.mouse.click(x, y)


def worst_at_half():
    """What the last bar must be: the method whose best point within half of the bytes is the worst."""
    from workbench.explorers.pruning import frontier
    from workbench.explorers.pruning.recorded import points, recorded_rows
    from workbench.explorers.pruning.source import source

    of = source("tiny_lm")
    found = points(recorded_rows(), of)
    before = next(point for point in found if point.key == frontier.DENSE).cost["stored"]
    pruned = [point for point in found if point.key != frontier.DENSE and point.stage == "one-shot"]
    return point_title(at_budget(pruned, of.qualities[0], frontier.COSTS[0], before / 2)[-1])


def chosen(page, key):
    return control(page, key).locator("option:checked").inner_text()


def test_a_point_shows_its_layers_and_a_cell_its_kept_weights(open_view):
    page = open_view()
    assert chosen(page, "point") == "Magnitude, 0.5"
    assert page.locator(".wb-facts").first.inner_text().count("(measured)") >= 2
    assert "704 x 256 with 90,112 entries" in page.locator(".wb-view").nth(1).inner_text()  # half of layer 2's gate
    grid = page.locator(".wb-plot-area").filter(has=page.locator(".heatmaplayer .hm")).locator(".nsewdrag")
    grid.scroll_into_view_if_needed()
    box = grid.bounding_box()
    click(page, box["x"] + box["width"] * 0.5 / 7, box["y"] + box["height"] * 5.5 / 6)
    page.wait_for_function("() => location.search.includes('layer=layers.5.query')")
    painted(page)
    assert "256 x 256 with 32,768 entries" in page.locator(".wb-view").nth(1).inner_text()
    control(page, "matrix").select_option(label="layers.0.up")
    page.wait_for_function("() => location.search.includes('layer=layers.0.up')")


def test_a_click_on_a_point_chooses_it_and_the_link_brings_it_back(open_view, new_page):
    page = open_view("model=tiny_lm")
    bars = page.locator(".wb-plot-area").filter(has=page.locator(".barlayer .point")).first
    worst = bars.locator(".barlayer .point").last  # the longest bar
    worst.scroll_into_view_if_needed()
    box = worst.bounding_box()
    click(page, box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_function("() => location.search.includes('point=')")
    painted(page)
    assert chosen(page, "point") == worst_at_half()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").first.click()
    link = page.evaluate("() => navigator.clipboard.readText()")
    assert len(urlsplit(link).query) < 2000
    other = open_view(urlsplit(link).query, new_page())
    assert chosen(other, "point") == worst_at_half()


def test_a_point_of_ones_own_joins_the_records(open_view):
    page = open_view()
    control(page, "method").select_option(label="Magnitude")
    control(page, "level").select_option(label="0.9")
    page.get_by_role("button", name="Remove the points computed here").click()
    page.get_by_role("button", name="Compute this method at this level").click()
    page.wait_for_function("() => location.search.includes('added=magnitude')")
    page.wait_for_function("() => document.body.innerText.includes('Magnitude, 0.9 (computed here)')")
    painted(page)
    control(page, "point").select_option(label="Magnitude, 0.9 (computed here)")
    page.wait_for_function("() => location.search.includes('point=magnitude%400.9')")
    painted(page)
    page.wait_for_function("() => document.body.innerText.includes('704 x 256 with 18,022 entries')")


def test_a_point_at_the_budget_is_kept_beside_another_by_keyboard(open_view):
    page = open_view("model=tiny_lm&method=magnitude&within=0.3&point=magnitude%400.5")
    page.get_by_role("button", name="Keep the chosen point for comparison").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => location.search.includes('kept=magnitude%400.5')")
    page.get_by_role("button", name="Compute it at the budget of bytes").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.body.innerText.includes('Magnitude, 0.762504 (computed here)')")
    painted(page)
    assert (
        chosen(page, "point") == "Magnitude, 0.762504 (computed here)"
    )  # 0.2375 of the values, and a bit for each place
    assert "0.3000 of the dense bytes" in page.locator(".wb-view").first.inner_text()
    lines = page.locator(".wb-plot-area[aria-label*='layer by layer']")
    assert lines.locator(".scatterlayer .trace").count() == 2
    control(page, "value_bits").select_option("4")
    page.wait_for_function("() => location.search.includes('value_bits=4')")
    painted(page)
    assert "not rounded to 4 bits" in page.locator(".wb-view").first.inner_text()
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    told = page.locator(".wb-view .wb-note").filter(has_text="not rounded to 4 bits").bounding_box()
    assert told["x"] + told["width"] <= 390


def test_every_export_opens(open_view, tmp_path):
    page = open_view()
    menu = page.locator(".wb-export").first
    checks = {
        "PNG": lambda content: content.startswith(b"\x89PNG\r\n\x1a\n"),
        "SVG": lambda content: ElementTree.fromstring(content).tag.endswith("svg"),
        "Data (CSV)": lambda content: content.startswith(b"method,level,stage,quantity,value"),
        "Data (NPZ)": lambda content: "value" in np.load(io.BytesIO(content)).files,
        "Page": lambda content: content.startswith(b"<!doctype html>"),
        "Python": lambda content: bool(compile(content, "recipe", "exec")),
    }
    for label in menu.locator("option").all_inner_texts():
        menu.select_option(label=label)
        page.wait_for_timeout(150)  # Chromium drops a frame's eleventh download within one second
        with page.expect_download() as download:
            page.get_by_role("button", name="Export").first.click()
        file = tmp_path / download.value.suggested_filename
        download.value.save_as(file)
        check = next(check for start, check in checks.items() if label.startswith(start))
        assert check(file.read_bytes()), label


def test_the_keyboard_alone_chooses_a_point_in_the_dark(open_view, axe):
    page = open_view("model=tiny_lm&theme=dark")
    control(page, "point").focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_function("() => location.search.includes('point=')")
    painted(page)
    offered = control(page, "point").locator("option").all_inner_texts()
    assert chosen(page, "point") == offered[1]  # the first is that none is chosen
    assert not axe(page)
