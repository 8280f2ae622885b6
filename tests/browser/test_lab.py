"""JupyterLab with the dashboards inside, in real Chromium."""

import pytest

WIDGET = ["md:# Lab", "import ipywidgets\nipywidgets.IntSlider(7, description='n')"]


@pytest.fixture(scope="module")
def folder(notebook_folder):
    tour = ["md:# The tour"]
    return notebook_folder({"dashboards/tiny": [{"title": "Tiny"}, *WIDGET], "start_here": tour})


def test_notebook_runs_and_paints_its_widget(open_lab, folder):
    page = open_lab("dashboards/tiny.ipynb", folder)
    assert page.inner_text(".jp-OutputArea .widget-readout") == "7"


def test_tour_is_open_and_the_launcher_opens_a_dashboard(_servers, page, folder):
    server = _servers(folder, "lab")
    page.goto(server.url)
    page.wait_for_selector(".jp-NotebookPanel .jp-RenderedMarkdown >> text=The tour")
    page.evaluate("window.jupyterapp.commands.execute('launcher:create')")
    page.click(".jp-LauncherCard[data-category='Sparse Workbench'] >> text=Tiny")
    inside = page.frame_locator("iframe[title=Tiny]")
    inside.locator(".widget-readout").wait_for()
    assert inside.locator(".widget-readout").inner_text() == "7"


def test_gallery_is_reachable_in_the_same_process(_servers, page, folder):
    server = _servers(folder, "lab")
    page.goto(server.url.replace("/lab/tree/start_here.ipynb", "/voila/"))
    page.click(".card a >> text=Tiny")
    page.wait_for_selector("#rendered_cells .widget-readout")
