"""The attention dashboard in real Chromium, through our server and JupyterLab: pixels, links, files, keys."""

import hashlib
import io
import re
import xml.etree.ElementTree as ElementTree
from urllib.parse import urlsplit

import numpy as np
import pytest

LEFT, RIGHT = 0, 1
SMALL = "tokens=128&block=16&stride=4&threshold=0.5"
SETTINGS = {"block": 16, "stride": 4, "choose": "threshold", "sampler": "antidiagonal"}


def mask(threshold, tokens=128):
    """What the right picture must show, computed here."""
    from workbench.explorers.attention.method import methods
    from workbench.explorers.attention.source import load_input

    given = load_input("lm", tokens=tokens, layer=3, head=3)
    return methods()["xattention"].trace(given, SETTINGS | {"threshold": threshold}).allowed


@pytest.fixture
def masks(open_dashboard):
    def open_it(query="", on=None):
        page = open_dashboard("attention_masks", query, None, on)
        painted(page)
        return page

    return open_it


def painted(page):
    """Wait until both pictures are on screen and nothing is being computed."""
    page.wait_for_function("() => document.querySelectorAll('.wb-canvas[data-painted]').length >= 2")
    page.wait_for_selector(".wb-bar[data-busy=false]", state="attached")
    page.wait_for_timeout(400)


def cells_on_screen(page, which, rows, columns):
    """Return which of rows x columns equal parts of a picture are not the page's colour: read from the pixels."""
    found = page.evaluate(
        """([which, rows, columns]) => {
            const canvas = document.querySelectorAll(".wb-pixels")[which], context = canvas.getContext("2d");
            const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
            const empty = getComputedStyle(document.querySelector(".wb-canvas")).getPropertyValue("--wb-plot").trim();
            const paper = [1, 3, 5].map((i) => parseInt(empty.slice(i, i + 2), 16));
            return Array.from({ length: rows * columns }, (_, i) => {
                const y = Math.floor((Math.floor(i / columns) + 0.5) * canvas.height / rows);
                const x = Math.floor((i % columns + 0.5) * canvas.width / columns);
                return paper.some((value, j) => data[4 * (y * canvas.width + x) + j] !== value);
            });
        }""",
        [which, rows, columns],
    )
    return np.array(found).reshape(rows, columns)


def pictures(page):
    content = page.evaluate("() => [...document.querySelectorAll('.wb-pixels')].map((c) => c.toDataURL()).join()")
    return hashlib.sha256(content.encode()).hexdigest()


def window(page, which):
    return [int(x) for x in page.locator(".wb-canvas").nth(which).get_attribute("data-window").split(":")]


def test_a_slider_reaches_the_pixels_and_the_link_brings_them_back(masks, new_page):
    page = masks(SMALL)
    np.testing.assert_array_equal(cells_on_screen(page, RIGHT, 128, 128), mask(0.5))
    slider = page.locator("[data-key=threshold]")
    slider.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("() => location.search.includes('threshold=0.55')")
    painted(page)
    np.testing.assert_array_equal(cells_on_screen(page, RIGHT, 128, 128), mask(0.55))
    page.locator("[data-key=right]").select_option(label="blocks: full, partial, empty")
    page.wait_for_function("() => location.search.includes('right=blocks')")
    painted(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").click()
    link = page.evaluate("() => navigator.clipboard.readText()")
    assert link == page.url and len(urlsplit(link).query) < 2000
    other = masks(urlsplit(link).query, new_page())
    assert pictures(other) == pictures(page)
    page.reload()
    painted(page)
    assert pictures(page) == pictures(other)


def test_one_to_one_zoom_equals_the_mask_and_both_pictures_move(masks):
    page = masks("block=16&stride=4&threshold=0.7&row=0&tokens=1024")
    page.locator(".wb-one").nth(RIGHT).click()
    page.wait_for_function("() => !document.querySelectorAll('.wb-canvas')[1].dataset.window.startsWith('0:1024')")
    painted(page)
    page.wait_for_timeout(500)
    r0, r1, c0, c1 = window(page, RIGHT)
    assert window(page, LEFT) == [r0, r1, c0, c1] and r1 - r0 < 1024
    shown = cells_on_screen(page, RIGHT, r1 - r0, c1 - c0)
    np.testing.assert_array_equal(shown, mask(0.7, 1024)[r0:r1, c0:c1])


def test_keyboard_alone_tells_a_story_and_reads_a_pair(masks):
    page = masks()
    page.locator("[data-key=method]").focus()
    page.keyboard.press("p")  # one key: a slow browser takes letters far apart for several names
    page.wait_for_function(
        "() => document.querySelector('[data-key=method]').selectedOptions[0].innerText === 'PBS-Attn'"
    )
    page.wait_for_selector("button:text-is('The same pairs in both orders')")
    painted(page)
    page.get_by_role("button", name="The same pairs in both orders").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => location.search.includes('left=permuted')")
    painted(page)
    assert page.locator(".wb-canvas h3").all_inner_texts() == ["pairs computed, keys sorted", "pairs computed"]
    assert "Softmax does not depend on the order" in page.locator(".wb-view").inner_text()
    assert "largest relative difference from unsorted attention (measured)" in page.locator(".wb-facts").inner_text()
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.classList.contains('wb-pixels')"):
            break
    else:
        pytest.fail("Tab never reached the picture")
    page.keyboard.press("ArrowDown")
    page.wait_for_function("() => document.querySelector('.wb-readout').textContent.startsWith('Row')")
    page.keyboard.press("Enter")  # asks for the query of the row under the cursor
    page.wait_for_function("() => location.search.includes('row=')")


def test_every_export_opens(masks, tmp_path):
    page = masks(SMALL)
    page.wait_for_function("() => document.querySelectorAll('.wb-plot-area[data-painted]').length >= 2")
    menu = page.locator(".wb-export")
    checks = {
        "PNG": lambda content: content.startswith(b"\x89PNG\r\n\x1a\n"),
        "SVG": lambda content: ElementTree.fromstring(content).tag.endswith("svg"),
        "Data (CSV)": lambda content: content.startswith(b"what,item,value") and b"(measured)" in content,
        "Data (NPZ)": lambda content: {"attention", "allowed", "keep"} <= set(np.load(io.BytesIO(content)).files),
        "Page": lambda content: content.startswith(b"<!doctype html>"),
        "Python": lambda content: bool(compile(content, "recipe", "exec")),
    }
    labels = menu.locator("option").all_inner_texts()
    assert not any("key scores" in label for label in labels)  # this method has none
    for label in labels:
        menu.select_option(label=label)
        page.wait_for_timeout(150)  # Chromium drops a frame's eleventh download within one second
        with page.expect_download() as download:
            page.get_by_role("button", name="Export").click()
        file = tmp_path / download.value.suggested_filename
        download.value.save_as(file)
        kind = next(kind for kind in checks if label.startswith(kind))
        assert checks[kind](file.read_bytes()), label
        assert re.fullmatch(r"[\w.-]+", download.value.suggested_filename)


def test_own_file_own_text_and_a_formula_that_is_none(masks, tmp_path):
    page = masks("tokens=64&method=formula")
    page.locator("[data-key=formula]").fill("q > __import__('os')")
    page.keyboard.press("Tab")
    page.wait_for_selector(".wb-error:not(:empty)")
    assert "not in the vocabulary" in page.locator(".wb-error").inner_text()
    page.locator("[data-key=formula]").fill("q - k == 3")
    page.keyboard.press("Tab")
    page.wait_for_function("() => document.querySelector('.wb-error').textContent === ''")
    page.locator("[data-key=words]").fill("one two three. " * 30)
    page.keyboard.press("Tab")
    page.wait_for_function("() => document.querySelector('.wb-facts caption').textContent.includes('your text')")
    painted(page)
    np.testing.assert_array_equal(cells_on_screen(page, RIGHT, 64, 64), np.eye(64, k=-3, dtype=bool))
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", q=rng.standard_normal((50, 8)), k=rng.standard_normal((50, 8)))
    page.locator("[data-key=input]").select_option(label="Your file")
    page.wait_for_selector(".wb-error:not(:empty)")
    page.locator("input[type=file]").set_input_files(tmp_path / "mine.npz")
    page.wait_for_function("() => document.querySelector('.wb-facts caption').textContent.includes('mine.npz')")
    painted(page)
    np.testing.assert_array_equal(cells_on_screen(page, RIGHT, 50, 50), np.eye(50, k=-3, dtype=bool))


def test_a_formula_has_a_row_and_below_it_stands_what_is_wrong_with_it(masks, axe):
    page = masks("tokens=64&method=formula&right=allowed&input=slash")
    field, told = page.locator("[data-key=formula]"), page.locator("[data-key=formula] ~ .wb-told")
    panel = page.locator(".wb-panel").bounding_box()["width"]
    assert field.bounding_box()["width"] > 0.95 * panel
    assert "mono" in field.evaluate("(f) => getComputedStyle(f).fontFamily")
    assert "lambda b, h, q_idx, kv_idx" in page.locator("[data-key=formula] ~ .wb-help").inner_text()
    names = page.locator("[data-key=formula] ~ details")
    names.locator("summary").click()
    assert "torch.logical_and" in names.inner_text() and told.inner_text() == ""
    field.fill("q >= k and q - x < 3")
    field.press("Enter")
    page.wait_for_selector(".wb-told.wb-wrong")
    assert told.inner_text() == "At column 16, 'x' is a name without a value, so not in the vocabulary."
    assert field.get_attribute("aria-invalid") == "true" and told.get_attribute("id") in field.get_attribute(
        "aria-describedby"
    )
    assert axe(page) == []
    page.locator("[data-key=constants]").fill("x = 1")
    page.keyboard.press("Tab")
    page.wait_for_selector(".wb-wrong", state="detached")
    painted(page)
    wanted = np.tri(64, dtype=bool) & (np.arange(64)[:, None] - 1 < 3)
    np.testing.assert_array_equal(cells_on_screen(page, RIGHT, 64, 64), wanted)
    field.fill("lambda b, h, q_idx, kv_idx: q_idx >= kv_idx & q_idx - kv_idx < 4")
    field.press("Enter")
    page.wait_for_function("() => document.querySelector('.wb-told').textContent.includes('binds tighter')")
    assert "wb-wrong" not in told.get_attribute("class") and page.locator(".wb-error").inner_text() == ""
    painted(page)
    field.fill("k % (q - 5) == 0")
    field.press("Enter")
    page.wait_for_selector(".wb-told.wb-wrong")
    assert "divides by zero at query 5, key 0" in told.inner_text()


def test_a_picture_answers_a_click_on_a_pixel(masks):
    page = masks("method=favit")
    page.wait_for_selector(".wb-plot-area[data-painted] .main-svg")
    page.wait_for_timeout(600)
    area = page.locator(".wb-plot-area").first
    box = area.bounding_box()
    area.click(position={"x": 0.37 * box["width"], "y": 0.2 * box["height"]})  # on the second map of the top row
    page.wait_for_function("() => location.search.includes('row=')")
    row = int(dict(part.split("=") for part in urlsplit(page.url).query.split("&"))["row"])
    told = f"Attention of pixel ({row // 56}, {row % 56})"
    page.wait_for_function(
        "([area, told]) => area.querySelector('.gtitle').textContent.includes(told)", arg=[area.element_handle(), told]
    )


def test_rings_follow_the_pointer_over_the_keys(masks):
    page = masks("method=favit")
    page.wait_for_selector(".wb-plot-area[data-painted] .main-svg")
    page.wait_for_timeout(600)
    area = page.locator(".wb-plot-area").first
    area.scroll_into_view_if_needed()
    preview = area.evaluate("(area) => area.layout.meta.preview")
    ringed = """(wanted) => {
        const area = document.querySelector(".wb-plot-area");
        return area.layout.meta.preview.traces.every((i) => area.data[i].x.join() === wanted.join());
    }"""
    kept, first = preview["points"][24][0], preview["points"][0][0]
    assert page.evaluate(ringed, kept)
    keys = area.locator("image").last.bounding_box()
    page.mouse.move(keys["x"] + keys["width"] / 14, keys["y"] + keys["height"] / 14, steps=5)
    page.wait_for_function(ringed, arg=first)
    page.mouse.move(keys["x"] + keys["width"] / 2, keys["y"] + 1.5 * keys["height"], steps=5)
    page.wait_for_function(ringed, arg=kept)
    assert "place=" not in page.url


def test_in_jupyterlab_the_same_view_works(open_lab, view_folder):
    code = (
        "from workbench.explorers.attention.explorer import explorer\n"
        "explorer(tokens=64, method='formula', formula='q - k == 3')"
    )
    page = open_lab("masks.ipynb", view_folder({"masks": [code]}))
    painted(page)
    np.testing.assert_array_equal(cells_on_screen(page, RIGHT, 64, 64), np.eye(64, k=-3, dtype=bool))
    page.locator("[data-key=formula]").fill("q == k")
    page.keyboard.press("Tab")
    page.wait_for_timeout(1000)
    painted(page)
    np.testing.assert_array_equal(cells_on_screen(page, RIGHT, 64, 64), np.eye(64, dtype=bool))
