import pytest

from workbench.paper import loaded_later, row, rows_with, values

ROWS = [row("time", 2.0, "ms", "measured", method="a"), row("time", 3.0, "ms", "measured", method="b")]


def test_rows_are_found_by_quantity_and_labels():
    assert list(ROWS[0]) == ["method", "quantity", "value", "unit", "kind"]
    assert values(ROWS, "time") == [2.0, 3.0]
    assert rows_with(ROWS, "time", method="b") == [ROWS[1]]
    with pytest.raises(LookupError, match="no row of 'time' with"):
        values(ROWS, "time", method="c")


def test_an_experiment_that_is_loaded_later_takes_no_matrix():
    with pytest.raises(ValueError, match="reach has its own input; a matrix cannot take its place"):
        loaded_later("_no_such_module", "reach")(size="tiny", seed=1, matrix="mine.mtx")
