"""NoWag-P with a low-rank part: what it misses, what it stores, and that turns never make it worse."""

import numpy as np
import pytest

from workbench.models.compression.armor import nowag_normalize, nowag_p
from workbench.models.compression.nowag_low_rank import nowag_low_rank


@pytest.fixture
def matrix(rng):
    return rng.standard_normal((24, 16)), rng.random(16) + 0.1


def loss(w, h, approximation):
    """The relative loss of a matrix in the scale of the weights, from its definition."""
    normal, r, c = nowag_normalize(w)
    missing = normal - approximation / r[:, None] / c
    return (h * missing**2).sum() / (h * normal**2).sum()


def test_once_is_the_best_matrix_of_that_rank_for_what_nowag_leaves(matrix):
    w, h = matrix
    found, start = nowag_low_rank(w, h, 3), nowag_p(w, h)
    missing = (nowag_normalize(w)[0] - start.weight) * np.sqrt(h)
    left = np.square(np.linalg.svd(missing, compute_uv=False)[3:]).sum()
    whole = (h * nowag_normalize(w)[0] ** 2).sum()
    assert found.history[0] == pytest.approx(start.loss) and found.loss == pytest.approx(left / whole)
    np.testing.assert_array_equal(found.core.to_dense() != 0, start.mask)


def test_turns_never_raise_the_loss_which_is_that_of_the_factors(matrix):
    w, h = matrix
    found = nowag_low_rank(w, h, 3, turns=8)
    assert (np.diff(found.history) <= 1e-12).all() and found.loss < nowag_low_rank(w, h, 3).loss
    assert loss(w, h, found.to_dense()) == pytest.approx(found.loss, rel=1e-5)
    assert ((found.core.to_dense() != 0).reshape(24, 4, 4).sum(-1) <= 2).all()


def test_the_whole_rank_misses_nothing(matrix):
    w, h = matrix
    np.testing.assert_allclose(nowag_low_rank(w, h, 16).to_dense(), w, rtol=1e-4, atol=1e-5)


def test_bits_are_those_of_armor_with_blocks_of_that_side(matrix):
    bits = nowag_low_rank(*matrix, 4).bits()
    assert bits == {"values": 24 * 8 * 16, "indices": 24 * 8 * 2, "dense factors": 16 * 4 * (24 + 16)}


@pytest.mark.parametrize(("arguments", "message"), [
    ({"rank": 0}, "nowag_low_rank: rank"), ({"rank": 17}, "nowag_low_rank: rank"), ({"turns": 0}, "turns"),
    ({"n": 4}, "n must be from 1"), ({"h": np.ones(3)}, "h must be 16"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(matrix, arguments, message):
    w, h = matrix
    with pytest.raises(ValueError, match=message):
        nowag_low_rank(**({"w": w, "h": h, "rank": 2} | arguments))
