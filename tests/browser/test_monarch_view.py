"""The explorer of Monarch matrices in real Chromium: the order of the inputs, blocks that fill, the link, own files."""

from urllib.parse import urlsplit

import numpy as np
import pytest


@pytest.fixture
def open_view(open_dashboard):
    def open_it(query=""):
        page = open_dashboard("structured_matrices", query)
        painted(page)
        return page

    return open_it


def painted(page):
    page.wait_for_selector(".wb-canvas[data-painted], .wb-plot-area[data-painted]", state="attached")
    page.wait_for_selector(".wb-bar[data-busy=false]", state="attached")
    page.wait_for_timeout(400)


def test_permuting_the_inputs_makes_flat_spectra_spikes_and_the_link_keeps_it(open_view):
    page = open_view()
    assert "relative error of 0.935" in page.locator(".wb-headline").inner_text()
    page.get_by_label("Inputs permuted").first.check()
    page.wait_for_function("() => location.search.includes('permuted=1')")
    page.wait_for_function("() => !document.querySelector('.wb-headline').innerText.includes('0.935')")
    page.get_by_role("tab", name="The factors").click()
    page.wait_for_function("() => location.search.includes('section=factors')")
    painted(page)
    page.get_by_role("button", name="Step back").click()
    page.wait_for_function("() => location.search.includes('filled=7')")
    painted(page)
    assert "7 blocks of 8" in page.locator(".wb-view").inner_text()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").click()
    query = urlsplit(page.evaluate("() => navigator.clipboard.readText()")).query
    assert query == urlsplit(page.url).query and len(query) < 2000


def test_blocks_are_turned_by_keyboard_and_bad_ones_are_told(open_view):
    page = open_view()
    page.locator("[data-key=nblocks]").first.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => location.search.includes('nblocks=4')")
    painted(page)
    assert "Two factors with 4 and 4 blocks" in page.locator(".wb-headline").inner_text()


def test_a_file_of_ones_own(open_dashboard, tmp_path):
    np.save(tmp_path / "own.npy", np.kron(np.arange(16.0).reshape(4, 4), np.eye(4)))
    page = open_dashboard("structured_matrices", "matrix=own&nblocks=4")
    page.wait_for_selector("input[type=file]")
    assert "There is no matrix of your own yet" in page.locator(".wb-view").inner_text()
    page.locator("input[type=file]").set_input_files(tmp_path / "own.npy")
    page.wait_for_function("() => document.querySelector('.wb-headline')?.innerText.includes('Own.npy')")
    painted(page)


def test_it_is_painted_in_jupyterlab(open_lab):
    page = open_lab("dashboards/structured_matrices.ipynb")
    painted(page)
    page.get_by_role("tab", name="Error and size").last.click()
    page.wait_for_function("() => document.querySelectorAll('.wb-plot-area .bars .point').length >= 5")
