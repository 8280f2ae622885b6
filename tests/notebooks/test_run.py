"""Every notebook runs whole at size "tiny" without error or noise; dashboards that run no model import no torch."""

from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
ALL = sorted(
    path.relative_to(NOTEBOOKS).as_posix()
    for path in NOTEBOOKS.rglob("*.ipynb")
    if ".ipynb_checkpoints" not in path.parts
)


def _code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert "start_here.ipynb" in ALL


@pytest.mark.slow
@pytest.mark.parametrize("path", ALL)
def test_it_runs_whole(run_notebook, path):
    notebook, torch_loaded = run_notebook(path)
    for number, cell in enumerate(_code(notebook), start=1):
        for output in cell.outputs:
            assert output.output_type != "error", f"cell {number}: {output.get('evalue')}"
            noise = output.output_type == "stream" and output.name == "stderr"
            assert not noise, f"cell {number} writes to stderr: {output.get('text')}"
    if path.startswith("dashboards/"):
        declared = "torch" in notebook.metadata.workbench.get("needs", [])
        assert declared or not torch_loaded, "the kernel imports torch; if it must: workbench: {needs: [torch]}"
        shown = [output.get("data", {}) for cell in _code(notebook) for output in cell.outputs]
        assert any(WIDGET in data for data in shown), "a dashboard shows no widget"
