import numpy as np
import pytest

from kernels.masks.magnitude import magnitude_mask
from kernels.masks.nm import nm_mask
from kernels.masks.wanda import wanda_mask, wanda_mask_reference, wanda_scores


def test_scores_by_hand():
    w = np.array([[1.0, -2.0], [3.0, 0.5]], np.float32)
    assert wanda_scores(w, np.array([9.0, 0.25])).tolist() == [[3, 1], [9, 0.25]]
    assert wanda_mask(w, np.array([9.0, 0.25]), 0.5).tolist() == [[True, False], [True, False]]
    assert magnitude_mask(w, 0.5, scope="row").tolist() == [[False, True], [True, False]]


def test_scores_are_weights_times_norms_of_inputs(rng, assert_close):
    x, w = rng.standard_normal((50, 6)), rng.standard_normal((4, 6))
    scores = wanda_scores(w, np.diagonal(x.T @ x))
    for i in range(4):
        for j in range(6):
            assert_close(scores[i, j], abs(w[i, j]) * np.linalg.norm(x[:, j]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inputs_of_one_norm_give_magnitude_pruning_by_rows(dtype, rng):
    w = rng.standard_normal((5, 12)).astype(dtype)
    same = np.full(12, 7.0)
    assert (wanda_mask(w, same, 0.6) == magnitude_mask(w, 0.6, scope="row")).all()
    assert (wanda_mask(w, same, n=2, m=4) == nm_mask(np.abs(w), 2, 4)).all()


def test_equals_the_reference(rng):
    w, diagonal = rng.standard_normal((9, 20)), rng.random(20)
    diagonal[3] = 0
    for how in ({"sparsity": 0.0}, {"sparsity": 0.35}, {"sparsity": 1.0}, {"n": 1, "m": 4}, {"n": 3, "m": 5}):
        assert (wanda_mask(w, diagonal, **how) == wanda_mask_reference(w, diagonal, **how)).all()
    assert not wanda_mask(w, diagonal, 0.05)[:, 3].any()
    assert (wanda_mask(np.asfortranarray(w), diagonal, 0.5) == wanda_mask(w, diagonal, 0.5)).all()


def test_bad_arguments_are_refused():
    w, diagonal = np.ones((2, 6)), np.ones(6)
    for how in ({}, {"sparsity": 0.5, "n": 2, "m": 4}, {"sparsity": 0.5, "m": 4}):
        with pytest.raises(ValueError, match="wanda_mask: give either sparsity or both n and m"):
            wanda_mask(w, diagonal, **how)
    with pytest.raises(TypeError, match="m must be an int"):
        wanda_mask(w, diagonal, n=2)
    with pytest.raises(ValueError, match="w has 6 columns, not a multiple of m=4"):
        wanda_mask(w, diagonal, n=2, m=4)
    with pytest.raises(ValueError, match=r"got \(2, 6\) and \(6, 6\); pass np.diagonal"):
        wanda_scores(w, np.eye(6))
    one = np.eye(6)[2]
    for bad_w, bad in ((w, 1 - 2 * one), (w, np.where(one, np.inf, 1)), (np.where(one, np.nan, w), diagonal)):
        with pytest.raises(ValueError, match="must be finite, and gram_diagonal not negative"):
            wanda_scores(bad_w, bad)
    with pytest.raises(TypeError, match="gram_diagonal must be a NumPy array of float64, got float32"):
        wanda_scores(w, diagonal.astype(np.float32))
