import numpy as np
import pytest

from kernels.masks.movement import movement_scores, snip_momentum_scores, snip_scores
from kernels.masks.prune import prune_mask


def test_by_hand():
    w, g = np.array([2.0, -1.0, 0.5]), np.array([-3.0, -2.0, 4.0])
    assert snip_scores(w, g).tolist() == [6, 2, 2]
    first = movement_scores(np.zeros(3), w, g, lr=0.5)
    assert first.tolist() == [3, -1, -1]
    assert movement_scores(first, w, g, lr=0.5).tolist() == [6, -2, -2]
    first = snip_momentum_scores(np.zeros(3), w, g)
    assert snip_momentum_scores(first, w, g, beta=0.5).tolist() == [9, 3, 3]
    assert snip_momentum_scores(np.ones(3), w, g).tolist() == [6.9, 2.9, 2.9]
    assert snip_momentum_scores(np.ones(3), w, g, beta=0).tolist() == [6, 2, 2]


def test_weights_that_grow_stay_and_weights_that_shrink_go(rng):
    """Descent on a quadratic whose minimum is further out for some weights and at zero for the others."""
    w, target = np.full(10, 1.0), np.where(np.arange(10) % 2, 3.0, 0.0)
    scores = np.zeros(10)
    for _ in range(20):
        g = w - target
        scores = movement_scores(scores, w, g, lr=0.1)
        w = w - 0.1 * g
    assert (prune_mask(scores, 0.5) == (target > 0)).all()
    assert (scores[target > 0] > 0).all() and (scores[target == 0] < 0).all()


def test_a_movement_score_is_the_descent_on_a_score_that_multiplies_its_weight(rng):
    """d/ds of a loss of w s at s = 1 is w g: finite differences of 0.5 |w s - t|^2."""
    w, target, h = rng.standard_normal(5), rng.standard_normal(5), 1e-6

    def loss(s):
        return 0.5 * np.sum((w * s - target) ** 2)

    slopes = [(loss(1 + h * e) - loss(1 - h * e)) / (2 * h) for e in np.eye(5)]
    np.testing.assert_allclose(-movement_scores(np.zeros(5), w, w - target), slopes, rtol=1e-6)


def test_dtype_and_operands_stay(rng):
    s, w, g = (rng.standard_normal((3, 4)).astype(np.float32) for _ in range(3))
    before = [x.copy() for x in (s, w, g)]
    for result in (movement_scores(s, w, g, 0.3), snip_scores(w, g), snip_momentum_scores(s, w, g)):
        assert result.dtype == np.float32 and result.shape == (3, 4)
    assert all((x == y).all() for x, y in zip((s, w, g), before, strict=True))


def test_bad_arguments_are_refused():
    a = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"gradient has shape \(3, 2\), w \(2, 3\)"):
        snip_scores(a, a.T)
    with pytest.raises(ValueError, match=r"w has shape \(3, 2\), scores \(2, 3\)"):
        snip_momentum_scores(a, a.T.copy(), a.T)
    with pytest.raises(TypeError, match="w is float32, scores is float64"):
        movement_scores(a, a.astype(np.float32), a)
    with pytest.raises(ValueError, match="lr must be a finite number from 0"):
        movement_scores(a, a, a, lr=-1)
    with pytest.raises(ValueError, match="beta must be a finite number from 0 to 1"):
        snip_momentum_scores(a, a, a, beta=1.1)
