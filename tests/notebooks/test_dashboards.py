"""A dashboard takes its whole state from its address, in a kernel of its own."""

import json
from urllib.parse import parse_qsl, urlencode

import pytest

SPARSITY = "dashboards/sparsity_patterns.ipynb"
STATE = (
    "import json; view.wait();print(json.dumps([view.state, view.query, view.theme, view.error, view._toolbar.note]))"
)

pytestmark = pytest.mark.slow


def _state(run_notebook, path, **query):
    notebook, _ = run_notebook(path, query=urlencode(query), then=STATE)
    return json.loads(notebook.cells[-1].outputs[0]["text"])


def test_the_address_sets_the_state(run_notebook):
    asked = {"matrix": "karate", "ordering": "rcm", "block": "8", "window": "0:10:5:20"}
    state, query, theme, error, note = _state(run_notebook, SPARSITY, **asked, theme="dark")
    assert {key: str(state[key]) for key in asked} == asked
    assert query == urlencode(asked)
    assert theme == "dark" and not error and not note


def test_what_is_wrong_in_an_address_is_said_and_left_at_its_default(run_notebook):
    state, query, _, error, note = _state(run_notebook, SPARSITY, matrix="nowhere", block="8")
    assert state["matrix"] == "rmat" and state["block"] == 8 and query == "block=8"
    assert not error and "matrix" in note and "nowhere" in note


def test_every_matrix_of_the_catalogue_can_be_chosen(run_notebook):
    choices = "print(json.dumps([value for value, _ in view.knob('matrix').choices]))"
    notebook, _ = run_notebook(SPARSITY, then="import json; " + choices)
    from workbench.data.matrices import MATRICES

    assert json.loads(notebook.cells[-1].outputs[0]["text"]) == list(MATRICES)


def test_an_uploaded_file_is_shown(run_notebook):
    upload = (
        "text = b'%%MatrixMarket matrix coordinate real general\\n3 4 2\\n1 1 2.5\\n3 4 -1\\n'\n"
        "view.add_file('mine.mtx', text); view.wait(); import json\n"
        "print(json.dumps([view.matrix, view.scene.source.matrix.toarray().tolist(), view.error]))"
    )
    notebook, _ = run_notebook(SPARSITY, then=upload)
    matrix, values, error = json.loads(notebook.cells[-1].outputs[0]["text"])
    assert matrix == "mine.mtx" and not error
    assert values == [[2.5, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, -1]]


def test_duplicates_of_an_uploaded_file_are_counted(run_notebook):
    upload = (
        "text = b'%%MatrixMarket matrix coordinate real general\\n3 4 3\\n1 1 2.5\\n3 4 -1\\n1 1 1\\n'\n"
        "view.add_file('mine.mtx', text); view.wait(); import json\n"
        "print(json.dumps([view.scene.source.nnz, view.scene.duplicates, view.canvas.query(0, 1, 0, 1)['value']]))"
    )
    notebook, _ = run_notebook(SPARSITY, then=upload)
    assert json.loads(notebook.cells[-1].outputs[0]["text"]) == [2, 1, 3.5]


def test_the_traffic_view_takes_its_state_from_the_address(run_notebook):
    asked = {"operands": "karate", "dataflow": "outer", "version": "2", "load": "0.125"}
    path = "dashboards/spgemm_traffic.ipynb"
    state, query, _, error, note = _state(run_notebook, path, **asked)
    assert {key: str(state[key]) for key in asked} == asked
    assert dict(parse_qsl(query)) == asked and not error and not note
