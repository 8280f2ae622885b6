"""What one query reads: the same as the effective matrix says, and as loops say."""

import numpy as np
import pytest
import torch

from workbench.models.attention.favit import effective_attention
from workbench.models.attention.pixel_readings import pixel_readings


@pytest.fixture
def tokens(rng):
    return rng.standard_normal((12 * 16, 4)).astype(np.float32)


def found(tokens, query=50, **how):
    return pixel_readings(tokens, 12, 16, query, **({"window": 4, "dilation": 2, "sr": 4} | how))


def test_every_reading_adds_up_to_one_and_stays_in_reach(tokens):
    for reading in found(tokens):
        assert reading.heat.sum() == pytest.approx(1, abs=1e-5) and reading.weights.sum() == pytest.approx(1, abs=1e-5)
        assert not reading.heat[~reading.reached].any()


def test_window_groups_are_rows_of_the_effective_matrix(tokens):
    full, _, fine, coarse, _ = found(tokens)
    x = torch.from_numpy(tokens)[None, None]
    for reading, dilation in ((fine, 1), (coarse, 2)):
        matrix = effective_attention(x, x, 12, 16, window=4, dilation=dilation)
        np.testing.assert_allclose(reading.heat.ravel(), matrix[0, 0, 50], atol=1e-6)
    weights = torch.softmax(x[0, 0] @ x[0, 0, 50] / 2, 0)
    np.testing.assert_allclose(full.heat.ravel(), weights, atol=1e-6)


def test_a_swin_window_is_attention_among_neighbours(tokens):
    swin = found(tokens)[1]
    grid = tokens.reshape(12, 16, 4)[0:4, 0:4].reshape(16, 4)  # query 50 is row 3, column 2
    logits = grid @ tokens[50] / 2
    np.testing.assert_allclose(swin.weights.ravel(), np.exp(logits) / np.exp(logits).sum(), rtol=1e-4)
    assert swin.reached.sum() == 16 and swin.reached[:4, :4].all()


def test_the_global_group_averages_squares(tokens):
    summary = found(tokens)[-1]
    assert summary.weights.shape == (3, 4) and summary.reached.all()
    squares = summary.heat.reshape(3, 4, 4, 4)
    np.testing.assert_allclose(squares.std((1, 3)), 0, atol=1e-8)
    np.testing.assert_allclose(squares.sum((1, 3)), summary.weights, rtol=1e-4)


def test_costs_are_two_products_per_key_and_channel(tokens):
    assert [r.products for r in found(tokens)] == [2 * r.keys * 4 for r in found(tokens)]
    assert [r.keys for r in found(tokens)] == [192, 16, 16, 16, 12]


def test_what_does_not_fit_is_named(tokens):
    with pytest.raises(ValueError, match="multiple of the stride 5"):
        found(tokens, sr=5)
    with pytest.raises(ValueError, match="query 192"):
        found(tokens, query=192)
    with pytest.raises(ValueError, match="too small for window"):
        found(tokens, window=14)
