"""The explorer of factorisations in real Chromium: pictures, parts, the link, a phone, JupyterLab."""

from urllib.parse import urlsplit

import pytest

STATE = "layer=layers.1.query&method=asvd&share=0.7"


@pytest.fixture
def open_view(open_dashboard):
    def open_it(query=STATE):
        page = open_dashboard("factorizations", query)
        painted(page)
        return page

    return open_it


def painted(page):
    page.wait_for_selector(".wb-canvas[data-painted], .wb-plot-area[data-painted]", state="attached")
    page.wait_for_function("() => document.querySelector('.wb-bar').dataset.busy === 'false'")
    page.wait_for_timeout(400)


def test_factors_errors_and_bytes_follow_the_settings_and_the_link(open_view):
    page = open_view()
    assert page.locator(".wb-canvas:visible h3").all_inner_texts() == [
        "left factor: 128 x 19", "right factor: 19 x 128", "The matrix: 128 x 128", "The product: 128 x 128",
        "What is left: 128 x 128",
    ]  # fmt: skip
    page.locator("[data-key=share]").first.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => location.search.includes('share=0.71')")
    painted(page)
    assert "left factor: 128 x 18" in page.locator(".wb-canvas:visible h3").all_inner_texts()
    page.get_by_role("tab", name="Error").click()
    page.wait_for_function("() => location.search.includes('section=error')")
    painted(page)
    assert "finds its factors at once" in page.locator(".wb-plot-area[aria-label]:visible").nth(1).inner_text()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").click()
    query = urlsplit(page.evaluate("() => navigator.clipboard.readText()")).query
    assert query == urlsplit(page.url).query and len(query) < 2000


def test_it_is_painted_in_jupyterlab(open_lab):
    page = open_lab("dashboards/factorizations.ipynb")
    painted(page)
    page.get_by_role("tab", name="Bytes").last.click()
    page.wait_for_function("() => document.body.innerText.includes('Stored bytes (counted)')")
