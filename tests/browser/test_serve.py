"""The served dashboards in real Chromium."""

import pytest

TINY = [
    {"title": "A tiny dashboard", "description": "One slider."},
    "md:# A tiny dashboard",
    "# Load the widgets\nimport ipywidgets",
    "# Draw a slider\nfrom urllib.parse import parse_qsl\n"
    "from workbench.app.request import query_string\n"
    "asked = dict(parse_qsl(query_string()))\n"
    "slider = ipywidgets.IntSlider(int(asked.get('n', 3)), max=50, description='n')\n"
    "label = ipywidgets.Label()\n"
    "slider.observe(lambda change: setattr(label, 'value', f'twice: {2 * change.new}'), 'value')\n"
    "display(ipywidgets.VBox([slider, label]))",
]


@pytest.fixture(scope="module")
def folder(notebook_folder):
    return notebook_folder({"dashboards/tiny": TINY})


def test_dashboard_takes_its_state_from_the_address(open_dashboard, folder):
    page = open_dashboard("tiny", "n=17", folder)
    assert page.inner_text(".widget-readout") == "17"


def test_kernel_answers_the_slider(open_dashboard, folder):
    page = open_dashboard("tiny", "n=4", folder)
    page.press(".widget-slider [role=slider], .noUi-handle", "ArrowRight")
    page.wait_for_selector("text=twice: 10")
