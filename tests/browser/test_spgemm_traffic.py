"""The SpGEMM traffic view in real Chromium, through our server and through JupyterLab."""

import pytest

PIXEL = """([index, row, column]) => {
  const canvas = document.querySelectorAll('.wb-cells canvas')[index];
  const scale = canvas.width / canvas.dataset.columns;
  const at = canvas.getContext('2d').getImageData((column + 0.15) * scale, (row + 0.15) * scale, 1, 1);
  return [...at.data].slice(0, 3);
}"""
ORANGE, BLUE, GREEN, GREY = [0xD5, 0x5E, 0x00], [0x00, 0x72, 0xB2], [0x00, 0x9E, 0x73], [0xB9, 0xC3, 0xCC]
STEP_THREE = "A[0, 2] = 2 times B[2, 1] = 9 adds 18 to C[0, 1]: merge. On the chip: 2 elements (32 B)."
END = "C is complete with 6 entries, and nothing is left on the chip."


@pytest.fixture
def traffic(open_dashboard):
    def open_it(query=""):
        page = open_dashboard("spgemm_traffic", query)
        page.wait_for_selector(".wb-tabs [aria-selected=true]")
        quiet(page)
        return page

    return open_it


def quiet(page):
    page.wait_for_function("() => document.querySelector('.wb-bar')?.dataset.busy === 'false'")


def sentence(page, wanted):
    page.wait_for_function("w => document.querySelector('.wb-stepper-sentence').textContent.includes(w)", arg=wanted)


def painted(page, name):
    page.wait_for_function(
        "n => [...document.querySelectorAll('.wb-plot-area')].some("
        "a => a.offsetParent && a.dataset.painted && a.textContent.includes(n))",
        arg=name,
    )


def open_tab(page, name):
    page.get_by_role("tab", name=name).click()
    page.wait_for_selector(f".wb-tabs [aria-selected=true]:text-is('{name}')")


def test_steps_by_keyboard_reach_the_pixels_and_the_address(traffic):
    page = traffic("operands=worked")
    sentence(page, "7 partial products to come")
    slider = page.locator(".wb-stepper input[type=range]")
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    sentence(page, STEP_THREE)
    page.wait_for_timeout(200)
    assert page.evaluate(PIXEL, [0, 0, 2]) == ORANGE
    assert page.evaluate(PIXEL, [0, 0, 0]) == BLUE
    assert page.evaluate(PIXEL, [1, 2, 1]) == ORANGE
    assert page.evaluate(PIXEL, [2, 0, 1]) == ORANGE
    assert page.evaluate(PIXEL, [2, 0, 0]) == GREEN
    assert page.evaluate(PIXEL, [2, 2, 0]) == GREY
    assert page.locator(".wb-kept li").all_inner_texts() == ["C[0, 1] = 24", "C[0, 0] = 16"]
    page.keyboard.press("ArrowRight")
    sentence(page, "Row 0 of C is complete and leaves the accumulator with 2 entries.")
    page.wait_for_selector(".wb-kept li:text-is('C[1, 0] = 24')")
    assert page.locator(".wb-kept li").count() == 1 and page.evaluate(PIXEL, [2, 0, 0]) == BLUE
    page.keyboard.press("End")
    sentence(page, END)
    assert page.locator(".wb-kept li").count() == 0 and "It is empty." in page.locator(".wb-kept").inner_text()
    page.keyboard.press("Home")
    sentence(page, "7 partial products to come")
    page.keyboard.press("Shift+ArrowRight")
    sentence(page, END)
    page.wait_for_function("() => location.search.includes('step=8')")
    page.reload()
    page.wait_for_selector(".wb-stepper")
    sentence(page, END)


def test_play_scrub_dataflow_and_cell_read_out(traffic):
    page = traffic("operands=worked")
    page.get_by_label("Speed").select_option("15")
    play = page.get_by_role("button", name="Play", exact=True)
    play.click()
    sentence(page, END)
    page.wait_for_function("() => document.querySelector('.wb-stepper-play').textContent === 'Play'")
    page.get_by_role("button", name="outer product").click()
    page.locator(".wb-stepper input[type=range]").fill("3")
    sentence(page, "to be merged after the last product. On the chip: 3 elements")
    canvas = page.locator(".wb-cells canvas").first
    canvas.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    said = page.locator(".wb-cells-said").first.text_content()
    assert said.startswith("row ") and "column " in said


def test_a_story_and_a_read_out_leave_with_what_they_told_of(traffic):
    page = traffic("operands=worked")
    page.get_by_role("button", name="By hand").click()
    page.wait_for_selector(".wb-choices p:has-text('Seven products, whichever way')")
    sentence(page, STEP_THREE)
    said = page.locator(".wb-cells-said").nth(2)
    box = page.locator(".wb-cells canvas").nth(2).bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.2 * box["height"])
    page.wait_for_function(
        "() => document.querySelectorAll('.wb-cells-said')[2].textContent.includes('on the chip, 16')"
    )
    page.get_by_role("button", name="Step forward").focus()
    page.keyboard.press("Enter")
    sentence(page, "Row 0 of C is complete")
    page.wait_for_function("() => document.querySelectorAll('.wb-cells-said')[2].textContent.includes('written, 16')")
    assert page.locator(".wb-choices p").all_inner_texts() == ["", "", ""]
    page.mouse.move(0, 0)
    page.wait_for_function("() => document.querySelectorAll('.wb-cells-said')[2].textContent === ''")
    assert said.inner_text() == ""


def test_one_picture_shows_what_every_dataflow_keeps(traffic):
    page = traffic("operands=karate")
    painted(page, "Elements kept on the chip (counted)")
    area = "[...document.querySelectorAll('.wb-plot-area')].find(a => a.offsetParent && a.data)"
    names = f"() => {area}.data.map(t => t.name)"
    found = page.evaluate(names)
    labels = page.locator(".wb-choices [role=group] button").all_inner_texts()
    dataflows = [label for label in labels if any(label == name.split(" (1 ")[0] for name in found)]
    assert len(dataflows) == 6 and len(found) == 7 and found[-1] == "now: 0 kept"
    page.get_by_role("button", name="row-wise, merge of rows of B").click()
    page.locator(".wb-stepper input[type=range]").fill("40")
    sentence(page, "leaves the merge")
    page.wait_for_function(f"() => !({names})().at(-1).includes(': 0 kept')")


def test_stories_sections_export_and_refusal(traffic):
    page = traffic()
    page.get_by_role("button", name="Same work, other traffic").click()
    page.wait_for_selector(".wb-tabs [aria-selected=true]:text-is('Bytes moved')")
    page.wait_for_function("() => document.querySelector('.wb-headline').textContent.includes('14,575')")
    painted(page, "Off-chip bytes by dataflow (counted)")
    page.wait_for_function("() => location.search.includes('section=bytes')")
    open_tab(page, "PIUMA model")
    for figure in (
        "Threads at work (modelled)",
        "Utilisation (modelled)",
        "Extra probes per product (counted)",
        "Roofline (modelled)",
    ):
        painted(page, figure)
    page.locator(".wb-export").select_option(label="Data (CSV)")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    text = download.value.path().read_text()
    assert text.startswith("kernel,time (ms),") and text.count("\n") == 4
    page.locator(".wb-export").select_option(label="PNG: gantt")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    assert download.value.path().read_bytes().startswith(b"\x89PNG")
    page.get_by_label("Hash bits").select_option(label="high (keeps order)")
    quiet(page)
    load = page.get_by_label("Table load")
    load.focus()
    page.keyboard.press("End")
    page.wait_for_function("() => document.querySelector('.wb-error').textContent.includes('below 0.5')")
    open_tab(page, "Constants")
    page.wait_for_selector(".wb-facts td:text-is('published')")
    page.locator(".wb-tabs [role=tab][aria-selected=true]").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".wb-tabs [aria-selected=true]:text-is('Step by step')")


def test_works_in_jupyterlab(open_lab, view_folder):
    folder = view_folder(
        {"traffic": ['from workbench.papers import get\nget("smash").view(operands="worked", step=2)']}
    )
    page = open_lab("traffic.ipynb", folder)
    page.wait_for_selector(".wb-stepper")
    page.get_by_role("button", name="Step forward").click()
    sentence(page, STEP_THREE)
    open_tab(page, "PIUMA model")
    painted(page, "Threads at work (modelled)")
