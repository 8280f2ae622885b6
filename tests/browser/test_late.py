"""Widgets whose code takes longer to load than anywidget waits for it."""

import pytest

# Every module that anywidget loads takes three seconds; it gives up after two.
SLOW_CODE = """
const { Blob: Fast } = window;
window.Blob = class extends Fast {
  constructor(parts, options) {
    const wait = "await new Promise((go) => setTimeout(go, 3000));";
    super(options?.type === "text/javascript" ? [wait, ...parts] : parts, options);
  }
};
"""
PAINTED = """() => {
  const panes = [...document.querySelectorAll("[data-pane]")].filter((pane) => pane.clientHeight);
  return panes.length >= 3 && panes.every((pane) => pane.dataset.pane === "painted");
}"""


@pytest.mark.parametrize("where", ["served page", "JupyterLab"])
def test_late_widgets_are_painted_and_hear_what_the_kernel_says(page, where, open_dashboard, open_lab):
    page.add_init_script(SLOW_CODE)
    page.watch.allow("Failed to initialize model")
    if where == "JupyterLab":
        open_lab("dashboards/sparsity_patterns.ipynb")
    else:
        open_dashboard("sparsity_patterns")
    page.wait_for_function(PAINTED, timeout=60000)
    before = page.inner_text(".wb-total")
    page.locator("[data-key=matrix]").select_option(index=1)
    page.wait_for_function("(before) => document.querySelector('.wb-total').innerText !== before", arg=before)
    page.wait_for_function(PAINTED)
