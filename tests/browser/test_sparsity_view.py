"""SparsityView in real Chromium, through our server and through JupyterLab: what readers see, touch and save."""

import hashlib
import re
import time
import xml.etree.ElementTree as ElementTree
from urllib.parse import urlsplit

import numpy as np
import pytest
from scipy import sparse

from kernels.reorder import permuted, reorder

CELL = """
import os, time
import numpy as np
from scipy import sparse
from widgets.views.sparsity import SparsityView
random = sparse.random_array((200, 160), density=0.05, format="csr", rng=np.random.default_rng(3))
wide = sparse.random_array((900, 900), density=0.01, format="csr", rng=np.random.default_rng(4))

def slow():
    time.sleep(6)
    return random

def read(filename, content):
    raise ValueError(f"{filename}: line 1 is no Matrix Market header")

view = SparsityView.from_query(
    os.environ.get("QUERY_STRING", ""), {"random": random, "wide": wide, "slow": slow}, read=read
)
view
"""
BAD_BOX = ".wb-error:not(:empty)"


def random_matrix():
    return sparse.random_array((200, 160), density=0.05, format="csr", rng=np.random.default_rng(3))


@pytest.fixture(scope="module")
def folder(view_folder):
    card = {"title": "Pattern", "description": "A pattern.", "thumbnail": "", "papers": []}
    return view_folder({"dashboards/pattern": [card, "md:# Pattern", CELL], "pattern": [CELL]})


@pytest.fixture
def open_view(open_dashboard, folder):
    def open_it(query="", on=None):
        page = open_dashboard("pattern", query, folder, on)
        painted(page)
        return page

    return open_it


def painted(page):
    """Wait until the picture is on screen and nothing is being computed."""
    page.wait_for_selector(".wb-canvas[data-painted]")
    page.wait_for_selector(".wb-bar[data-busy=false]", state="attached")
    page.wait_for_timeout(400)


def cells_on_screen(page, rows, columns):
    """Return which of rows x columns equal parts of the picture are not the page's colour: read from the pixels."""
    found = page.evaluate(
        """([rows, columns]) => {
            const canvas = document.querySelector(".wb-pixels"), context = canvas.getContext("2d");
            const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
            const empty = getComputedStyle(document.querySelector(".wb-canvas")).getPropertyValue("--wb-plot").trim();
            const paper = [1, 3, 5].map((i) => parseInt(empty.slice(i, i + 2), 16));
            const out = [];
            for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
                const y = Math.floor((r + 0.5) * canvas.height / rows);
                const x = Math.floor((c + 0.5) * canvas.width / columns);
                const at = 4 * (y * canvas.width + x);
                out.push(paper.some((value, i) => data[at + i] !== value));
            }
            return out;
        }""",
        [rows, columns],
    )
    return np.array(found).reshape(rows, columns)


def picture(page):
    content = page.evaluate("() => document.querySelector('.wb-pixels').toDataURL()")
    return hashlib.sha256(content.encode()).hexdigest()


def turn(page, key, value):
    page.locator(f"[data-key={key}]").select_option(label=value)
    painted(page)


def test_the_screen_shows_the_matrix_entry_by_entry_reads_it_out_and_follows_a_control(open_view):
    page = open_view()
    dense = random_matrix().toarray()
    np.testing.assert_array_equal(cells_on_screen(page, 200, 160), dense != 0)
    row, column = map(int, np.argwhere(dense)[37])
    box = page.locator(".wb-pixels").bounding_box()
    page.mouse.move(box["x"] + (column + 0.5) * box["width"] / 160, box["y"] + (row + 0.5) * box["height"] / 200)
    page.wait_for_function("() => document.querySelector('.wb-readout').textContent.includes('value')")
    said = page.locator(".wb-readout").inner_text()
    assert said == f"Row {row}, column {column}: value {dense[row, column]:.6g}."
    turn(page, "ordering", "RCM (narrow band)")
    wanted = permuted(random_matrix(), reorder(random_matrix(), "rcm"))
    np.testing.assert_array_equal(cells_on_screen(page, 200, 160), wanted.toarray() != 0)
    page.wait_for_function("() => location.search.includes('ordering=rcm')")


def test_one_to_one_zoom_equals_the_matrix(open_view):
    page = open_view("matrix=wide")
    page.get_by_role("button", name="1:1").click()
    painted(page)
    page.wait_for_timeout(800)
    window = [int(x) for x in page.locator(".wb-canvas").get_attribute("data-window").split(":")]
    wide = sparse.random_array((900, 900), density=0.01, format="csr", rng=np.random.default_rng(4)).toarray() != 0
    shown = cells_on_screen(page, window[1] - window[0], window[3] - window[2])
    assert window[1] - window[0] < 900
    np.testing.assert_array_equal(shown, wide[window[0] : window[1], window[2] : window[3]])


def test_device_pixels_are_crisp(open_view, new_page):
    page = open_view(on=new_page(device_scale_factor=2, viewport={"width": 1280, "height": 900}))
    sizes = page.evaluate("() => { const c = document.querySelector('.wb-pixels'); return [c.width, c.clientWidth]; }")
    assert sizes[0] == 2 * sizes[1]
    np.testing.assert_array_equal(cells_on_screen(page, 200, 160), random_matrix().toarray() != 0)


def test_keyboard_alone_reaches_zooms_and_reads(open_view):
    page = open_view()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.classList.contains('wb-pixels')"):
            break
    else:
        pytest.fail("Tab never reached the picture")
    assert page.locator(".wb-main").evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "+", "+"):
        page.keyboard.press(key)
    page.wait_for_function("() => document.querySelector('.wb-readout').textContent.startsWith('Row 102')")
    dense = random_matrix().toarray()
    value = dense[102, 80]
    told = f"value {value:.6g}" if value else "no entry"
    assert page.locator(".wb-readout").inner_text() == f"Row 102, column 80: {told}."
    page.wait_for_function("() => location.search.includes('window=')")
    page.keyboard.press("Home")
    page.wait_for_function("() => !location.search.includes('window=')")
    page.locator("[data-key=ordering]").focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_function("() => location.search.includes('ordering=rcm')")


def test_a_copied_link_brings_the_same_picture(open_view, new_page):
    page = open_view()
    turn(page, "ordering", "random")
    page.locator("[data-key=grid]").check()
    for _ in range(2):
        page.get_by_role("button", name="Zoom in").first.click()
    page.wait_for_timeout(1500)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").click()
    link = page.evaluate("() => navigator.clipboard.readText()")
    assert link == page.url and len(urlsplit(link).query) < 2000
    other = open_view(urlsplit(link).query, new_page())
    other.wait_for_timeout(500)
    assert picture(other) == picture(page)
    assert other.locator("[data-key=grid]").is_checked()


def test_back_is_undo(open_view):
    page = open_view()
    first = picture(page)
    turn(page, "ordering", "random")
    page.wait_for_function("() => location.search.includes('ordering=random')")
    assert picture(page) != first
    page.go_back()
    painted(page)
    page.wait_for_timeout(500)
    assert picture(page) == first and page.locator("[data-key=ordering]").input_value() == "0"


def test_what_is_stopped_or_refused_leaves_the_picture(open_view, tmp_path):
    page = open_view()
    before = picture(page)
    slow_work_shows_progress_and_stops_at_once(page)
    assert picture(page) == before
    file = tmp_path / "mine.mtx"
    file.write_text("nonsense")
    page.locator("input[type=file]").set_input_files(file)
    page.wait_for_selector(BAD_BOX)
    assert page.locator(".wb-error").inner_text() == "mine.mtx: line 1 is no Matrix Market header."
    assert picture(page) == before


def slow_work_shows_progress_and_stops_at_once(page):
    page.locator("[data-key=matrix]").select_option(label="slow")
    page.wait_for_timeout(600)
    assert page.locator(".wb-progress").is_hidden()
    page.wait_for_selector(".wb-progress:not([hidden])", timeout=1500)
    page.get_by_role("button", name="Cancel").click()
    begin = time.monotonic()
    page.wait_for_selector(".wb-bar[data-busy=false]", state="attached")
    assert time.monotonic() - begin < 0.3
    assert page.locator(".wb-remark").inner_text().startswith("Cancelled.")


def test_a_picture_that_got_lost_on_its_way_is_asked_for_again(page, _servers, folder):
    lost = []

    def between(client):
        behind = client.connect_to_server()
        client.on_message(behind.send)

        def hand_on(message):
            if not lost and isinstance(message, bytes) and b'"type": "tile"' in message:
                lost.append(message)
            else:
                client.send(message)

        behind.on_message(hand_on)

    page.route_web_socket(re.compile("/channels"), between)
    page.goto(f"{_servers(folder, 'serve').url}dashboards/pattern")
    page.wait_for_selector(".wb-canvas .wb-pane-note >> text=The picture is being drawn.")
    page.wait_for_selector(".wb-canvas[data-pane=painted]", timeout=60000)
    assert len(lost) == 1 and page.locator(".wb-canvas .wb-pane-note:visible").count() == 0


def test_every_export_opens_and_the_page_stands_alone(open_view, new_page, tmp_path):
    page = open_view()
    page.wait_for_selector(".wb-plot-area[data-painted]")
    menu = page.locator(".wb-export")
    checks = {
        "PNG": lambda content: content.startswith(b"\x89PNG\r\n\x1a\n"),
        "SVG": lambda content: ElementTree.fromstring(content).tag.endswith("svg"),
        "Data (CSV)": lambda content: content.startswith(b"part,item,value"),
        "Data (NPZ)": lambda content: content.startswith(b"PK"),
        "Matrix in this order (Matrix Market)": lambda content: content.startswith(b"%%MatrixMarket matrix coordinate"),
        "Matrix in this order (NPZ of SciPy)": lambda content: content.startswith(b"PK"),
        "Page": lambda content: content.startswith(b"<!doctype html>"),
        "Python": lambda content: bool(compile(content, "recipe", "exec")),
    }
    saved = {}
    labels = menu.locator("option").all_inner_texts()
    assert len(labels) == 12
    for label in labels:
        menu.select_option(label=label)
        page.wait_for_timeout(150)  # Chromium drops a frame's eleventh download within one second
        with page.expect_download() as download:
            page.get_by_role("button", name="Export").click()
        file = tmp_path / download.value.suggested_filename
        download.value.save_as(file)
        saved[label] = file
        kind = next(kind for kind in checks if label.startswith(kind))
        assert checks[kind](file.read_bytes()), label
    other = new_page()
    other.set_content(saved["Page (HTML, offline)"].read_text())
    other.wait_for_selector(".main-svg")
    assert other.locator("img").evaluate("node => node.naturalWidth") > 100


def test_a_table_pages_by_button_and_brushing_a_strip_narrows_the_numbers(open_view):
    page = open_view()
    page.get_by_role("button", name="Data table").click()
    page.wait_for_selector(".wb-twin tbody tr")
    assert page.locator(".wb-twin th").all_inner_texts() == ["part", "item", "value"]
    page.get_by_role("button", name="Next page").click()
    page.wait_for_function("() => document.querySelector('.wb-where').textContent.startsWith('Rows 26')")
    page.locator(".wb-right canvas").scroll_into_view_if_needed()
    box = page.locator(".wb-right canvas").bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + box["height"] * 0.25)
    page.mouse.down()
    page.mouse.move(box["x"] + 10, box["y"] + box["height"] * 0.5, steps=4)
    page.mouse.up()
    page.wait_for_function("() => document.querySelector('.wb-numbers caption').textContent.startsWith('Brushed')")
    first, end = map(int, page.locator("[data-key=brush_rows]").input_value().split(":"))
    assert abs(first - 50) <= 2 and abs(end - 100) <= 2
    inside = np.count_nonzero(random_matrix().toarray()[first:end])
    assert f"{inside}" in page.locator(".wb-numbers tr", has_text="nnz").inner_text()


def test_no_serious_accessibility_violation_and_the_dark_page_is_dark(open_view, axe):
    page = open_view("theme=light")
    page.wait_for_selector(".wb-plot-area[data-painted]")
    page.get_by_role("button", name="Data table").click()
    page.get_by_role("button", name="Python").click()
    page.wait_for_selector(".wb-twin tbody tr")
    assert axe(page) == []
    page.click("[data-theme-toggle]")
    page.wait_for_function("() => document.documentElement.dataset.wbTheme === 'dark'")
    painted(page)
    assert axe(page) == []
    colours = page.evaluate(
        "() => ['.wb-panel', '.wb-twin'].map((s) => getComputedStyle(document.querySelector(s)).backgroundColor)"
    )
    assert set(colours) == {"rgb(17, 20, 22)"}
    np.testing.assert_array_equal(cells_on_screen(page, 200, 160), random_matrix().toarray() != 0)


def test_nothing_sticks_out_on_narrow_screens(open_view, new_page):
    page = open_view(on=new_page(viewport={"width": 390, "height": 844}))
    for width in (390, 768):
        page.set_viewport_size({"width": width, "height": 844})
        painted(page)
        page.wait_for_selector(".wb-plot-area[data-painted]")
        wide = page.evaluate(
            """() => [...document.querySelectorAll(".wb-view *")].filter((node) => {
                const box = node.getBoundingClientRect();
                return box.width && box.right > innerWidth + 1 && !node.closest(".wb-hidden");
            }).map((node) => node.className || node.tagName)"""
        )
        assert wide == []
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_in_jupyterlab_the_same_view_works(open_lab, folder, axe):
    page = open_lab("pattern.ipynb", folder)
    painted(page)
    np.testing.assert_array_equal(cells_on_screen(page, 200, 160), random_matrix().toarray() != 0)
    turn(page, "ordering", "degree")
    wanted = permuted(random_matrix(), reorder(random_matrix(), "degree"))
    np.testing.assert_array_equal(cells_on_screen(page, 200, 160), wanted.toarray() != 0)
    page.wait_for_selector(".wb-plot-area[data-painted]")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    assert download.value.suggested_filename == "sparsity-pattern-pattern.png"
    page.wait_for_timeout(1500)
    assert not re.search("ordering", urlsplit(page.url).query)
    assert axe(page, ".wb-view") == []


def test_jupyterlabs_dark_theme_is_followed(open_lab, folder):
    """JupyterLab tells its theme in ``body[data-jp-theme-light]``; the test turns that mark as a theme change does."""
    page = open_lab("pattern.ipynb", folder)
    painted(page)
    page.evaluate("() => { document.body.dataset.jpThemeLight = 'false'; }")
    page.wait_for_selector(":root[data-wb-theme=dark]", state="attached")
    page.wait_for_timeout(1500)
    colour = page.locator(".wb-panel").evaluate("node => getComputedStyle(node).backgroundColor")
    assert colour == "rgb(17, 20, 22)"
    np.testing.assert_array_equal(cells_on_screen(page, 200, 160), random_matrix().toarray() != 0)
