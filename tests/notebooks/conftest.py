"""Runs a notebook whole in a fresh kernel, as a reader's machine would, without a network."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
LOADED = "import sys as _sys; 'torch' in _sys.modules"


@pytest.fixture(scope="session")
def run_notebook():
    """Return ``run(path, size="tiny", query="", then="")`` -> (notebook with outputs, whether torch was imported).

    ``then`` is code that runs after the notebook, as its last cell.
    """

    def run(path, size="tiny", query="", then=""):
        notebook = nbformat.read(NOTEBOOKS / path, as_version=4)
        if then:
            notebook.cells.append(nbformat.v4.new_code_cell(then))
        notebook.cells.append(nbformat.v4.new_code_cell(LOADED))
        environment = os.environ | {"WORKBENCH_SIZE": size, "QUERY_STRING": query}
        client = NotebookClient(
            notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOKS)}}
        )
        client.execute(env=environment)
        loaded = notebook.cells.pop().outputs[-1]["data"]["text/plain"] == "True"
        return notebook, loaded

    return run
