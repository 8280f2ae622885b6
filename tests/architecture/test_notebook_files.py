"""Notebooks are committed without outputs, in step with their text twin, and say what they are."""

import ast
import re
from pathlib import Path

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
TEXT = NOTEBOOKS / "text"
SAVED_BY_JUPYTER = ".ipynb_checkpoints"
ALL = sorted(
    path.relative_to(NOTEBOOKS).with_suffix("").as_posix()
    for path in NOTEBOOKS.rglob("*.ipynb")
    if SAVED_BY_JUPYTER not in path.parts
)
LONGEST_FUNCTION = 10


@pytest.fixture(params=ALL)
def name(request):
    return request.param


def _notebook(name):
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def test_there_are_notebooks():
    texts = [path for path in TEXT.rglob("*.py") if SAVED_BY_JUPYTER not in path.parts]
    twins = sorted(path.relative_to(TEXT).with_suffix("").as_posix() for path in texts)
    assert twins == ALL and ALL


def test_no_outputs(name):
    for cell in _notebook(name).cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None
    nbformat.validate(_notebook(name))


def test_the_twin_is_in_step(name):
    kept = [(cell.cell_type, cell.source, cell.metadata) for cell in _notebook(name).cells]
    twin = jupytext.read(TEXT / f"{name}.py")
    assert kept == [(cell.cell_type, cell.source, cell.metadata) for cell in twin.cells], "run `make notebooks`"
    assert _notebook(name).metadata.get("workbench") == twin.metadata.get("workbench")


def test_functions_are_short(name):
    for node in ast.walk(ast.parse("\n".join(c.source for c in _notebook(name).cells if c.cell_type == "code"))):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < LONGEST_FUNCTION, f"{node.name}: move it into a module"


def test_it_has_a_card(name):
    card = _notebook(name).metadata.get("workbench", {})
    assert card.get("title") and card.get("description")
    if name.startswith("dashboards/"):
        assert isinstance(card.get("papers"), list)
        assert re.fullmatch(r"[a-z_]+", Path(name).name)


def test_a_dashboard_names_its_steps(name):
    if name.startswith("dashboards/"):
        code = [cell for cell in _notebook(name).cells if cell.cell_type == "code"]
        assert all(cell.metadata.get("workbench", {}).get("step") for cell in code)
