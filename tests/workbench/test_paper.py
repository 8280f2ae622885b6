import sys
import types
from itertools import pairwise

import pytest

from workbench.paper import Report, loaded_later, row, rows_with, values

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

    def traffic(size, seed, report, matrix=None):
        calls.append((size, seed, matrix))
        return ROWS

    def reach(size, seed, report):
        calls.append((size, seed))
        return ROWS

    module.traffic, module.reach = traffic, reach
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


@pytest.fixture
def heard():
    return []


@pytest.fixture
def report(heard):
    return Report(lambda fraction, step: heard.append((fraction, step)))


def test_a_part_of_a_part_takes_its_place_in_the_whole(report, heard):
    report(0.0, "reading")
    second = report.part(1, 2, "second")
    second(0.5, "half")
    second.part(3, 4, "last")(0.5, "nearly")
    second(1.0)
    assert heard == [(0.0, "reading"), (0.75, "second: half"), (0.9375, "second: last: nearly"), (1.0, "second")]


def test_no_part_leaves_its_place(report, heard):
    report.part(0, 4)(1.7, "too far")
    report.part(3, 4)(-0.2, "too early")
    report(2.0)
    assert heard == [(0.25, "too far"), (0.75, "too early"), (1.0, "")]


def test_parts_in_turn_rise_from_none_to_all(report, heard):
    for index in range(3):
        for step in range(5):
            report.part(index, 3).part(step, 5)(0.0)
            report.part(index, 3).part(step, 5)(1.0)
    fractions = [fraction for fraction, _ in heard]
    assert fractions[0] == 0 and fractions[-1] == 1
    assert all(after > before - 1e-12 for before, after in pairwise(fractions)) and len(set(fractions)) >= 16


def test_who_asks_for_no_report_is_told_nothing():
    assert Report().part(0, 2)(0.5, "unheard") is None  # and nothing is raised


def test_an_experiment_is_given_a_report_whatever_was_passed(monkeypatch, heard):
    module = types.ModuleType("workbench.papers.made_up.runs")
    module.reach = lambda size, seed, report: report.part(1, 2)(0.0, "half") or ROWS
    monkeypatch.setitem(sys.modules, module.__name__, module)
    run = loaded_later("made_up.runs", "reach")
    assert run(size="tiny", seed=1) == ROWS
    run(size="tiny", seed=1, report=lambda fraction, step: heard.append((fraction, step)))
    assert heard == [(0.5, "half")]
