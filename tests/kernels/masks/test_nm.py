import numpy as np
import pytest

from kernels.masks.nm import nm_mask, nm_mask_reference


def test_by_hand():
    scores = np.array([[3.0, 1, 2, 4, 5, 5, 5, 5], [0, 0, -1, -2, np.inf, 1, np.inf, 2]], np.float32)
    assert nm_mask(scores, 2, 4).astype(int).tolist() == [[1, 0, 0, 1, 1, 1, 0, 0], [1, 1, 0, 0, 1, 0, 1, 0]]
    assert nm_mask(scores, 1, 2).astype(int).tolist() == [[1, 0, 0, 1, 1, 0, 1, 0], [1, 0, 1, 0, 1, 0, 1, 0]]


@pytest.mark.parametrize(
    ("n", "m"), [(0, 4), (1, 1), (1, 4), (2, 4), (3, 5), (4, 8), (7, 16), (5, 24), (9, 40), (4, 4)]
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_equals_sorting_each_group(n, m, dtype, rng):
    for lead in ((), (1,), (3, 5), (600,)):
        scores = np.round(rng.standard_normal((*lead, 3 * m)), 1).astype(dtype)
        mask = nm_mask(scores, n, m)
        assert (mask == nm_mask_reference(scores, n, m)).all()
        assert (mask.reshape(-1, m).sum(axis=1) == n).all()
        assert (mask == nm_mask(scores, n, m, num_threads=3)).all()


def test_empty_matrices():
    assert nm_mask(np.empty((0, 8)), 2, 4).shape == (0, 8)
    assert nm_mask(np.empty((5, 0)), 2, 4).shape == (5, 0)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"last axis that is a multiple of m=4, got shape \(2, 6\); pad it"):
        nm_mask(np.ones((2, 6)), 2, 4)
    with pytest.raises(ValueError, match="n must be an int from 0 to 4, got 5"):
        nm_mask(np.ones((2, 8)), 5, 4)
    with pytest.raises(ValueError, match="m must be an int from 1"):
        nm_mask(np.ones((2, 8)), 0, 0)
    with pytest.raises(ValueError, match="nm_mask: scores must hold no NaN, got one at 3"):
        nm_mask(np.array([0, 1, 2, np.nan]), 2, 4)
    with pytest.raises(ValueError, match="C-contiguous"):
        nm_mask(np.ones((8, 8))[:, ::2], 2, 4)
