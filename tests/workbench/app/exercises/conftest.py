"""Text twins of the notebooks by key, and a grader without memory of earlier tests."""

from pathlib import Path

import pytest

from workbench.app import grader

TEXT = Path(__file__).resolve().parents[4] / "notebooks" / "text"


@pytest.fixture
def notebook_sources():
    return {path.stem: path.read_text() for path in TEXT.rglob("*.py")}


@pytest.fixture(autouse=True)
def fresh_grader():
    grader._hints_shown.clear()
    grader._wrong_tries.clear()
