"""Text twins of the notebooks by key, and a desk without memory of earlier tests."""

from pathlib import Path

import pytest

from workbench.app import grader as desk

TEXT = Path(__file__).resolve().parents[4] / "notebooks" / "text"


@pytest.fixture
def notebook_sources():
    return {path.stem: path.read_text() for path in TEXT.rglob("*.py")}


@pytest.fixture(autouse=True)
def fresh_desk():
    desk._hints_shown.clear()
    desk._wrong_tries.clear()
