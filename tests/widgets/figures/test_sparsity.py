"""Figures of a pattern are pure: same data, same figure; numbers add up; both themes."""

import json

import numpy as np
import pytest

from widgets import theme
from widgets.figures.sentence import sentence_of
from widgets.figures.sparsity import BlockDensities, block_density_figure, row_length_figure, row_lengths


@pytest.mark.parametrize("lengths", ([0, 1, 1, 2, 3, 4, 7, 8, 1000], [], [0, 0], [5]))
def test_bins_hold_every_row_once(lengths):
    found = row_lengths(np.array(lengths, dtype=np.int64))
    assert found.rows.sum() == len(lengths)
    for first, last, rows in zip(found.first, found.last, found.rows, strict=True):
        assert rows == sum(first <= length <= last for length in lengths)
    np.testing.assert_array_equal(found.first[1:], found.last[:-1] + 1)


@pytest.mark.parametrize("appearance", ("light", "dark"))
def test_figures_follow_the_theme_and_are_json(appearance):
    blocks = BlockDensities(np.array([4, 8]), np.array([0.1, 0.2]), np.array([0.9, 0.5]), 8)
    for figure in (
        row_length_figure(row_lengths(np.arange(20)), appearance),
        block_density_figure(blocks, appearance),
    ):
        assert figure.layout.template == theme.template(appearance)
        assert "counted" in figure.layout.title.text
        json.loads(figure.to_json())
    assert figure.to_json() == block_density_figure(blocks, appearance).to_json()


@pytest.mark.parametrize(
    "figure",
    (
        row_length_figure(row_lengths(np.array([], np.int64))),
        block_density_figure(BlockDensities(np.array([4, 8]), np.zeros(2), np.zeros(2), 8)),
        block_density_figure(BlockDensities(np.array([], np.int64), np.zeros(0), np.zeros(0), 8)),
    ),
)
def test_a_plot_of_nothing_is_a_sentence(figure):
    assert sentence_of(figure).endswith(".") and not figure.data and not figure.layout.shapes
    assert figure.layout.annotations[0].text.replace("<br>", " ") == sentence_of(figure)


def test_a_matrix_of_empty_rows_still_has_rows_to_count():
    assert sentence_of(row_length_figure(row_lengths(np.zeros(3)))) == ""
