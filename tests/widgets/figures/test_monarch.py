"""Monarch matrices in pictures and words: which bars are kept, cells of the grid, errors in their order."""

from dataclasses import replace

import numpy as np
import pytest

from widgets.figures.monarch import MonarchScene, Rival, curve_figure, errors_figure, part_figure, spectra_figure
from widgets.figures.monarch_words import curve_columns, factor_words, headline, spectra_columns, spectra_words
from widgets.figures.sentence import sentence_of


@pytest.fixture
def scene():
    spectra = np.array([[[4.0, 3, 0], [5, 0, 0]], [[1, 1, 1], [2, 2, 1]]])
    product = np.arange(24.0).reshape(4, 6)
    return MonarchScene(
        title="A <matrix>",
        remark="It is made up.",
        matrix=product + 1,
        product=product,
        first=np.ones((4, 6)),
        second=np.ones((4, 4)),
        blocks=(2, 2),
        rank=1,
        permuted=False,
        spectra=spectra,
        turned=spectra[::-1],
        error=0.25,
        parameters=20,
        multiply_adds=20,
        rivals=(Rival(name="Monarch", parameters=20, error=0.25), Rival(name="low rank", parameters=20, error=0.5)),
        curves={"2 blocks": (np.array([0.4, 0.8]), np.array([0.25, 0.1])), "low rank": (np.ones(1), np.zeros(1))},
        kind="counted",
    )


def test_energy_kept_is_that_of_the_first_values(scene):
    np.testing.assert_allclose(scene.kept(scene.spectra), [[16 / 25, 1], [1 / 3, 4 / 9]])
    np.testing.assert_allclose(replace(scene, rank=2).kept(scene.spectra), [[1, 1], [2 / 3, 8 / 9]])
    assert scene.kept(np.zeros((1, 1, 3))) == 1
    assert scene.share() == 20 / 24


def test_every_part_has_its_bars_in_its_cell(scene):
    kept, dropped, cells = spectra_figure(scene, scene.spectra, "in their order").data
    x, y = np.array(kept.x, float).reshape(-1, 3), np.array(kept.y, float).reshape(-1, 3)
    assert len(x) == 4 and len(np.array(dropped.x).reshape(-1, 3)) == 8
    assert np.floor(x[:, 0]).tolist() == [0, 1, 0, 1] and np.floor(y[:, 0]).tolist() == [0, 0, 1, 1]
    heights = y[:, 0] - y[:, 1]
    np.testing.assert_allclose(heights / heights[1], np.array([4, 5, 1, 2]) / 5)  # the largest of all is full height
    np.testing.assert_allclose(np.array(cells.customdata, float)[:, 2], [16 / 25, 1, 1 / 3, 4 / 9])


def test_a_large_grid_is_cut_and_says_so(scene):
    large = np.ones((40, 20, 30))
    figure = spectra_figure(replace(scene, spectra=large), large, "in their order")
    assert "16 x 16 of 40 x 20 parts" in figure.layout.title.text
    assert sum(len(trace.x) for trace in figure.data[:2]) == 16 * 16 * 12 * 3


def test_nothing_to_draw_is_a_sentence(scene):
    figure = spectra_figure(scene, np.zeros((2, 2, 3)), "in their order")
    assert "Every entry of the matrix is zero" in sentence_of(figure)


def test_the_picked_part_is_outlined_and_drawn_in_both_orders(scene):
    (shape,) = spectra_figure(scene, scene.spectra, "in their order", picked=(1, 0)).layout.shapes
    assert (shape.x0, shape.x1, shape.y0, shape.y1) == (0, 1, 1, 2)
    now, other = part_figure(scene, (1, 0)).data
    assert now.name == "inputs in their order" and list(now.y) == [1, 1, 1]
    assert other.name == "inputs permuted" and list(other.y) == [4, 3, 0]


def test_errors_and_curves(scene):
    (bars,) = errors_figure(scene).data
    assert list(bars.x) == [0.25, 0.5] and list(bars.y) == ["Monarch", "low rank"]
    figure = curve_figure(scene, theme="dark")
    assert [trace.name for trace in figure.data] == ["2 blocks", "low rank", "shown here"]
    assert (figure.data[2].x, figure.data[2].y) == ((20 / 24,), (0.25,))
    columns = curve_columns(scene)
    assert columns["structure"].tolist() == ["Monarch", "low rank", "2 blocks", "2 blocks", "low rank"]
    assert columns["relative error"].tolist() == [0.25, 0.5, 0.25, 0.1, 0.0]


def test_words_and_tables(scene):
    assert "A &lt;matrix&gt;" in headline(scene) and "83.3% of the dense matrix" in headline(scene)
    assert "inputs in their order" in headline(scene) and "It is made up." in headline(scene)
    assert "from 33.3% to 100.0% of its energy" in spectra_words(scene, scene.spectra, False)
    assert "Nothing is multiplied yet" in factor_words(scene, 0)
    assert "the first 3 of 6 columns" in factor_words(scene, 1)
    table = spectra_columns(scene)
    assert table["block that writes"].tolist() == [0, 0, 1, 1] and table["block that reads"].tolist() == [0, 1, 0, 1]
    assert table["largest singular value"].tolist() == [4, 5, 1, 2]


def test_blocks_fill_their_columns(scene):
    assert scene.columns_of_a_block == 3
    np.testing.assert_array_equal(scene.filled(1)[:, 3:], 0)
    np.testing.assert_array_equal(scene.filled(1)[:, :3], scene.product[:, :3])
    np.testing.assert_array_equal(scene.filled(2), scene.product)
