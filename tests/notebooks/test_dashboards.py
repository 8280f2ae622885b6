"""A dashboard takes its whole state from its address, in a kernel of its own."""

import json
from urllib.parse import parse_qsl, urlencode

import pytest

SPARSITY = "dashboards/sparsity_patterns.ipynb"
STATE = (
    "import json; view.wait();print(json.dumps([view.state, view.query, view.theme, view.error, view._toolbar.note]))"
)
CHOICES = "print(json.dumps([value for value, _ in view.knob('matrix').choices]))"
UPLOAD = (
    "text = b'%%MatrixMarket matrix coordinate real general\\n3 4 2\\n1 1 2.5\\n3 4 -1\\n'\n"
    "view.add_file('mine.mtx', text); view.wait()\n"
    "print(json.dumps([view.matrix, view.scene.source.matrix.toarray().tolist(), view.error]))"
)
DUPLICATES = (
    "text = b'%%MatrixMarket matrix coordinate real general\\n3 4 3\\n1 1 2.5\\n3 4 -1\\n1 1 1\\n'\n"
    "view.add_file('twice.mtx', text); view.wait()\n"
    "print(json.dumps([view.scene.source.nnz, view.scene.duplicates, view.canvas.query(0, 1, 0, 1)['value']]))"
)

pytestmark = pytest.mark.slow


def _told(run_notebook, path, *then, **query):
    """What the last cell prints, line by line, after the state of the view."""
    notebook, _ = run_notebook(path, query=urlencode(query), then="\n".join([STATE, *then]))
    printed = "".join(output["text"] for output in notebook.cells[-1].outputs)
    return [json.loads(line) for line in printed.splitlines()]


def test_the_address_sets_the_state_and_every_matrix_of_the_catalogue_can_be_chosen(run_notebook):
    asked = {"matrix": "karate", "ordering": "rcm", "block": "8", "window": "0:10:5:20"}
    (state, query, theme, error, note), choices = _told(run_notebook, SPARSITY, CHOICES, **asked, theme="dark")
    assert {key: str(state[key]) for key in asked} == asked
    assert query == urlencode(asked)
    assert theme == "dark" and not error and not note
    from workbench.data.matrices import MATRICES

    assert choices == list(MATRICES)


def test_what_is_wrong_in_an_address_is_said_and_uploaded_files_are_shown(run_notebook):
    before, uploaded, counted = _told(run_notebook, SPARSITY, UPLOAD, DUPLICATES, matrix="nowhere", block="8")
    state, query, _, error, note = before
    assert state["matrix"] == "rmat" and state["block"] == 8 and query == "block=8"
    assert not error and "matrix" in note and "nowhere" in note
    matrix, values, error = uploaded
    assert matrix == "mine.mtx" and not error
    assert values == [[2.5, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, -1]]
    assert counted == [2, 1, 3.5]  # a duplicate is counted, and added


def test_the_traffic_view_takes_its_state_from_the_address(run_notebook):
    asked = {"operands": "karate", "dataflow": "outer", "version": "2", "load": "0.125"}
    ((state, query, _, error, note),) = _told(run_notebook, "dashboards/spgemm_traffic.ipynb", **asked)
    assert {key: str(state[key]) for key in asked} == asked
    assert dict(parse_qsl(query)) == asked and not error and not note
