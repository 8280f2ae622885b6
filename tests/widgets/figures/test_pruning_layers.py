"""Losses of layers: the grid of one pruned model, and the lines of several."""

import numpy as np
import pytest

from widgets.figures.pruning import LayerLoss, TradeoffPoint
from widgets.figures.pruning_layers import comparison_figure, layer_figure, layer_grid
from widgets.figures.sentence import sentence_of


def point(method, *errors):
    names = ("layers.0.query", "layers.0.feed_in", "layers.1.query", "layers.1.feed_in")
    layers = tuple(LayerLoss(name=name, density=0.5, weight_error=2 * error, output_error=error)
                   for name, error in zip(names, errors, strict=False))  # fmt: skip
    return TradeoffPoint(key=f"{method}@0.5", method=method, level="0.5", layers=layers)


ONE, OTHER = point("A", 0.0, 0.01, 0.1, 0.11), point("B", 0.3, 0.2, 0.1, 0.4)


@pytest.mark.parametrize(
    ("names", "rows", "columns"),
    [
        (["layers.0.query", "layers.0.out", "layers.11.out"], ["layer 0", "layer 11"], ["query", "out"]),
        (["encoder.layer.3.attention.self.query"], ["layer 3"], ["attention.self.query"]),
        (["fc1", "fc2"], ["other"], ["fc1", "fc2"]),
        ([], [], []),
    ],
)
def test_layers_are_arranged_by_number_and_role(names, rows, columns):
    found = layer_grid(names)
    assert found[:2] == (rows, columns)
    assert len(set(found[2])) == len(names)


def test_the_grid_holds_each_layers_loss_and_frames_the_chosen_one():
    figure = layer_figure(ONE, "output_error", "layers.1.feed_in", "light")
    np.testing.assert_allclose(figure.data[0].z, [[0.0, 0.01], [0.1, 0.11]])
    frame = figure.layout.shapes[0]
    assert (frame.x0, frame.x1, frame.y0, frame.y1) == (0.5, 1.5, 0.5, 1.5)
    assert "measured" in figure.layout.title.text
    assert "counted" in layer_figure(ONE, "density", "", "light").layout.title.text


def test_several_models_are_lines_over_the_same_layers():
    figure = comparison_figure([ONE, OTHER], "output_error", "layers.1.query", "light")
    first, second = figure.data
    assert list(first.x) == list(second.x) == ["0 query", "0 feed_in", "1 query", "1 feed_in"]
    np.testing.assert_array_equal(second.y, [0.3, 0.2, 0.1, 0.4])
    assert (first.name, second.name) == ("A, 0.5", "B, 0.5")
    assert first.line.dash != second.line.dash and first.marker.symbol != second.marker.symbol
    assert figure.layout.shapes[0].x0 == 2  # the chosen layer
    weights = comparison_figure([ONE, OTHER], "weight_error", "", "dark")
    np.testing.assert_array_equal(weights.data[1].y, [0.6, 0.4, 0.2, 0.8])
    assert "counted" in weights.layout.title.text and not weights.layout.shapes


def test_what_is_not_there_is_a_sentence():
    assert "Choose a point" in sentence_of(layer_figure(None, "output_error", "", "light"))
    assert "Choose a point" in sentence_of(comparison_figure([], "output_error", "", "light"))
    bare = TradeoffPoint(key="n", method="N", level="1", layers=(LayerLoss(name="layers.0.a", density=1.0),))
    assert "was not taken" in sentence_of(layer_figure(bare, "output_error", "", "light"))
    assert "was not taken" in sentence_of(comparison_figure([bare], "output_error", "", "light"))
