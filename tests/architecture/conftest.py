"""The project's own files, as git sees them: tracked or new, never ignored ones."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("kernels", "widgets", "workbench")


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def files():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    found = [Path(line) for line in listed.stdout.splitlines() if (ROOT / line).is_file()]
    assert len(found) > 50
    return found


@pytest.fixture(scope="session")
def modules(files):
    """Every Python file of the three libraries with its syntax tree."""
    wanted = [path for path in files if path.suffix == ".py" and path.parts[0] in LIBRARIES]
    return {path: ast.parse((ROOT / path).read_text()) for path in wanted}
