"""Pictures in real Chromium: strips without bands, colour scales, stale pictures, and what has nothing to show."""

import pytest

CELL = """
import os, time
import numpy as np
from scipy import sparse
from widgets.views.sparsity import SparsityView

def equal(m, n):
    return sparse.csr_array(np.tile(np.arange(n) % 7 < 3, (m, 1)).astype(float))

def slow():
    time.sleep(1.5)
    return equal(300, 300)

def broken():
    time.sleep(0.5)
    raise ValueError("This matrix cannot be read")

corner = sparse.csr_array((np.ones(8100), np.divmod(np.arange(8100), 90)), shape=(3000, 3000))
matrices = {f"equal{m}": equal(m, 450) for m in (300, 777, 1500, 3001)}
matrices |= {"corner": corner, "slow": slow, "broken": broken, "no rows": sparse.csr_array((0, 5))}
matrices["no entries"] = sparse.csr_array((40, 50))
view = SparsityView.from_query(os.environ.get("QUERY_STRING", ""), matrices)
view
"""
# For every pixel row of the strip beside a picture: how many of its pixels are inked, and how many of them faintly.
BARS = """() => {
  const canvas = document.querySelector(".wb-right canvas"), { width, height } = canvas;
  const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  return Array.from({ length: height }, (_, y) => {
    const row = Array.from({ length: width }, (_, x) => data[4 * (y * width + x) + 3]);
    return [row.filter((alpha) => alpha > 0).length, row.filter((alpha) => alpha > 0 && alpha < 255).length];
  });
}"""


@pytest.fixture(scope="module")
def folder(view_folder):
    card = {"title": "Pictures", "description": "Pictures.", "thumbnail": "", "papers": []}
    return view_folder({"dashboards/pictures": [card, "md:# Pictures", CELL]})


@pytest.fixture
def open_view(open_dashboard, folder):
    def open_it(query="", on=None):
        page = open_dashboard("pictures", query, folder, on)
        settled(page)
        return page

    return open_it


def settled(page):
    page.wait_for_selector(".wb-bar[data-busy=false]", state="attached")
    page.wait_for_function("() => !document.querySelector('.wb-view [aria-busy=true]')")
    page.wait_for_timeout(300)


@pytest.mark.parametrize("ratio", (1, 1.25, 1.5, 2))
def test_rows_that_are_equal_make_a_flat_strip_on_whole_pixels(open_view, new_page, ratio):
    page = open_view("matrix=equal300", new_page(device_scale_factor=ratio, viewport={"width": 1280, "height": 900}))
    for matrix, width, zoomed in (
        ("equal300", 1280, 0),
        ("equal777", 1013, 0),
        ("equal1500", 1280, 0),
        ("equal3001", 731, 0),
        ("equal1500", 1280, 2),
        ("equal3001", 390, 1),
    ):
        page.set_viewport_size({"width": width, "height": 900})
        page.locator("[data-key=matrix]").select_option(label=matrix)
        settled(page)
        for _ in range(zoomed):
            page.get_by_role("button", name="Zoom in").click()
            page.wait_for_timeout(400)
        settled(page)
        bars = page.evaluate(BARS)
        assert len(bars) > 100 and {soft for _, soft in bars} == {0}, (matrix, width)
        assert len({long for long, _ in bars}) == 1 and bars[0][0] > 20, (matrix, width)
    page.evaluate("() => { window.bars = []; }")
    page.locator(".wb-pixels").click()
    for _ in range(4):
        page.keyboard.press("+")
        bars = page.evaluate(BARS)  # before the kernel has binned the new window
        assert len({tuple(bar) for bar in bars}) == 1


def most(page):
    return page.locator(".wb-most:visible").all_inner_texts()


def test_the_numbers_of_a_scale_do_not_ask_for_the_size_of_the_screen(open_view, new_page):
    found = set()
    for ratio, widths in ((1, (1440, 390)), (2, (900,))):
        sized = new_page(device_scale_factor=ratio, viewport={"width": widths[0], "height": 900})
        page = open_view("matrix=corner", sized)
        for width in widths:
            page.set_viewport_size({"width": width, "height": 900})
            settled(page)
            (text,) = most(page)
            assert page.locator(".wb-scale").inner_text().startswith("0")
            found.add(text)
    assert len(found) == 1 and found.pop().endswith(" per position")


def colours(page):
    """The green of the darkest pixel of each picture."""
    return page.evaluate("""() => [...document.querySelectorAll(".wb-pixels")].map((c) => {
        const data = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
        let least = 255;
        for (let i = 0; i < data.length; i += 4) least = Math.min(least, data[i + 1]);
        return least;
    })""")


def test_before_and_after_a_reordering_share_a_scale_that_can_be_locked(open_view, new_page):
    page = open_view("matrix=corner&ordering=random")
    first, second = most(page)
    assert first == second and first.endswith("one scale for both pictures")
    after, before = colours(page)
    assert before + 30 < after  # entries that lie apart are paler than those in the corner
    page.locator("[data-key=colours]").select_option(label="each picture its own")
    settled(page)
    own = most(page)
    assert len(set(own)) == 2 and colours(page)[0] + 30 < after and colours(page)[1] == before
    page.locator("[data-key=colours]").select_option(label="one, locked while settings change")
    page.wait_for_function("() => location.search.includes('colour_tops=entries')")
    locked = most(page)
    assert all(text.endswith(", locked") for text in locked) and len(set(locked)) == 1
    page.locator("[data-key=matrix]").select_option(label="equal300")
    settled(page)
    assert set(most(page)) == set(locked)
    page.wait_for_function("() => !location.search.includes('matrix=corner')")
    other = open_view(page.url.partition("?")[2], new_page())
    assert set(most(other)) == set(locked) and colours(other) == colours(page)


def says(page, sentence):
    page.wait_for_function("told => document.querySelector('.wb-view').innerText.includes(told)", arg=sentence)


def opacity(page):
    return float(page.locator(".wb-frame canvas").first.evaluate("node => getComputedStyle(node).opacity"))


def test_a_stale_picture_is_dimmed_and_never_for_ever(open_view):
    page = open_view("matrix=equal300")
    for to in ("slow", "equal300", "broken"):
        assert opacity(page) == 1
        page.locator("[data-key=matrix]").select_option(label=to)
        if to == "equal300":
            page.wait_for_function("() => !location.search.includes('matrix=slow')")
            settled(page)
            continue
        page.wait_for_selector(".wb-canvas.wb-stale[aria-busy=true]")
        assert page.locator(".wb-plot.wb-stale[aria-busy=true]").count() == 2
        page.wait_for_function("() => getComputedStyle(document.querySelector('.wb-frame canvas')).opacity < 0.6")
        settled(page)
        page.wait_for_function("() => getComputedStyle(document.querySelector('.wb-frame canvas')).opacity === '1'")
        assert page.locator(".wb-stale, [aria-busy=true]").count() == 0
        assert bool(page.locator(".wb-error").inner_text()) == (to == "broken")


def test_a_read_out_of_an_earlier_picture_leaves_and_what_has_nothing_to_show_says_so(open_view):
    page = open_view("matrix=equal300")
    page.locator(".wb-pixels").click(position={"x": 50, "y": 50})
    page.wait_for_function("() => document.querySelector('.wb-readout').textContent.startsWith('Row')")
    page.locator("[data-key=matrix]").select_option(label="equal777")
    page.wait_for_function("() => document.querySelector('.wb-readout').textContent.startsWith('Point at the picture')")
    settled(page)
    page.locator("[data-key=matrix]").select_option(label="no rows")
    says(page, "There is nothing to draw: the matrix has 0 rows and 5 columns.")
    settled(page)
    assert page.locator(".wb-frame:visible").count() == 0
    for sentence in ("has no rows, so there is none to count.", "has no entries, so no block holds one."):
        page.wait_for_selector(f".wb-plot-area[aria-label$='{sentence}'] .annotation-text")
    page.locator("[data-key=matrix]").select_option(label="no entries")
    says(page, "There is no entry in view, so the picture is empty.")
    settled(page)
    assert page.locator(".wb-frame:visible").count() == 1 and page.locator(".wb-scale:visible").count() == 0
