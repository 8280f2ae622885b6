"""Factors of a matrix in pictures and words: spectra, steps, bytes, layers."""

from dataclasses import replace

import numpy as np
import pytest

from widgets.figures.factorization import (
    Factor,
    FactorizationScene,
    History,
    bytes_figure,
    errors_figure,
    history_figure,
    spectrum_figure,
)
from widgets.figures.factorization_words import (
    bytes_columns,
    bytes_words,
    error_columns,
    error_words,
    factor_columns,
    factor_words,
    headline,
)
from widgets.figures.pruning import LayerLoss
from widgets.figures.sentence import sentence_of

WEIGHT = np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]], np.float32)
FIRST = np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]], np.float32)  # the first singular triple


@pytest.fixture
def scene():
    """A matrix of singular values 2 and 1, of which a product of rank 1 keeps the first."""
    left = Factor(name="factor <U>", values=np.array([[2.0], [0.0]]), about="one column.")
    right = Factor(name="factor V", values=np.array([[1.0, 0.0, 0.0]]), about="one row.")
    return FactorizationScene(
        title="A method of a matrix", layer="layers.0.query", weight=WEIGHT, rebuilt=FIRST, factors=(left, right),
        bits={"factors": 80, "indices": 4}, dense_bits=96, multiply_adds=5, spectrum=np.array([2.0, 1.0]),
        residual_spectrum=np.array([1.0, 0.0]), weight_error=1 / 5**0.5, output_error=0.25,
    )  # fmt: skip


def test_spectra_of_the_matrix_and_of_what_is_left_are_two_lines(scene):
    before, left = spectrum_figure(scene).data
    assert list(before.y) == [2.0, 1.0] and left.y[0] == 1.0 and np.isnan(left.y[1])  # 0 has no logarithm
    assert "it has no singular value" in sentence_of(spectrum_figure(replace(scene, spectrum=np.zeros(2))))


def test_steps_are_drawn_with_the_methods_they_are_compared_with(scene):
    assert "at once" in sentence_of(history_figure(scene))
    told = History(label="error", unit="sweep", errors=np.array([0.5, 0.3]), lines={"SVD": 0.4})
    curve, line = history_figure(replace(scene, history=told), "dark").data
    assert list(curve.y) == [0.5, 0.3] and list(line.y) == [0.4, 0.4] and line.name == "SVD"


def test_bytes_are_stacked_by_kind_beside_the_dense_ones(scene):
    dense, factors, indices = bytes_figure(scene).data
    assert (dense.x[0], factors.x[0], indices.x[0]) == (12, 10, 0.5)
    assert factors.marker.pattern.shape != indices.marker.pattern.shape  # never colour alone
    assert scene.ratio == 84 / 96


def test_layers_are_drawn_where_they_were_asked_for(scene):
    assert "All layers" in sentence_of(errors_figure(scene))
    losses = [
        LayerLoss(name=f"layers.{i}.query", density=1.0, weight_error=0.1 * i, output_error=0.2 * i) for i in (0, 1)
    ]
    figure = errors_figure(replace(scene, layers=tuple(losses)))
    assert [list(trace.y) for trace in figure.data] == [[0.0, 0.1], [0.0, 0.2]]
    assert figure.layout.shapes[0].x0 == 0  # the layer shown


def test_words_say_what_pictures_show(scene):
    text = headline(scene)
    assert "0.875 of the dense bytes" in text and "0.833" in text and "0.447" in text and "0.25" in text
    assert "outputs" not in headline(replace(scene, output_error=float("nan")))
    assert "Factor <U>, 2 x 1: one column." in factor_words(scene)
    assert "10.5 bytes (factors 10, indices 0.5) in place of 12" in bytes_words(scene)
    told = History(label="error", unit="sweep", errors=np.array([0.5, 0.3]), lines={"SVD": 0.4})
    assert "error from 0.5 to 0.3 in 1 sweep, SVD 0.4" in error_words(replace(scene, history=told))
    assert "was 2; that of what is left is 1" in error_words(scene)


def test_tables_hold_what_is_drawn(scene):
    assert list(factor_columns(scene)["nonzeros"]) == [1, 1]
    assert list(error_columns(scene)["singular value of what is left"]) == [1.0, 0.0]
    assert list(bytes_columns(scene)["bytes"]) == [10, 0.5, 12]
