import sys
import types

import pytest

from workbench.paper import loaded_later, row, rows_with, values

ROWS = [row("time", 2.0, "ms", "measured", method="a"), row("time", 3.0, "ms", "measured", method="b")]


def test_rows_are_found_by_quantity_and_labels():
    assert list(ROWS[0]) == ["method", "quantity", "value", "unit", "kind"]
    assert values(ROWS, "time") == [2.0, 3.0]
    assert rows_with(ROWS, "time", method="b") == [ROWS[1]]
    with pytest.raises(LookupError, match="no row of 'time' with"):
        values(ROWS, "time", method="c")


@pytest.fixture
def given(monkeypatch):
    """What two experiments of a paper made up here were called with: ``traffic`` takes a matrix, ``reach`` does not."""
    calls = []
    module = types.ModuleType("workbench.papers.made_up.runs")
    module.traffic = lambda size, seed, report, matrix=None: calls.append((size, seed, matrix)) or ROWS
    module.reach = lambda size, seed, report: calls.append((size, seed)) or ROWS
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def test_a_matrix_reaches_an_experiment_that_has_the_parameter(given):
    run = loaded_later("made_up.runs", "traffic")
    assert run(size="tiny", seed=1) == run(size="full", seed=2, matrix="mine.mtx") == ROWS
    assert given == [("tiny", 1, None), ("full", 2, "mine.mtx")]


def test_an_experiment_without_the_parameter_refuses_a_matrix(given):
    run = loaded_later("made_up.runs", "reach")
    assert run(size="tiny", seed=1) == ROWS
    with pytest.raises(ValueError, match="reach has its own input; a matrix cannot take its place"):
        run(size="tiny", seed=1, matrix="mine.mtx")
    assert given == [("tiny", 1)]


def test_nothing_is_imported_before_an_experiment_runs():
    run = loaded_later("no_such_paper.runs", "reach")
    with pytest.raises(ModuleNotFoundError, match="no_such_paper"):
        run(size="tiny", seed=1)
