from itertools import product

import numpy as np
import pytest

from kernels.pareto import pareto_front, pareto_front_reference


def test_by_hand():
    points = np.array([[1.0, 5], [2, 3], [3, 4], [4, 1], [4, 2], [2, 3], [0, 9]])
    assert pareto_front(points).tolist() == [True, True, False, True, False, True, True]
    assert pareto_front(points, (True, False)).tolist() == [False] * 6 + [True]
    assert pareto_front(points, (False, False)).tolist() == [True, False, True, False, True, False, True]


@pytest.mark.parametrize("flags", list(product([True, False], repeat=2)))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_comparing_all_pairs(flags, dtype, rng):
    for n in (0, 1, 2, 3, 30, 100):
        for points in (
            rng.standard_normal((n, 2)),
            rng.integers(0, 4, (n, 2)),
            rng.choice([-np.inf, 0, np.inf], (n, 2)),
        ):
            points = points.astype(dtype)
            front = pareto_front(points, flags)
            assert front.dtype == np.bool_ and (front == pareto_front_reference(points, flags)).all()
            for i in range(n):
                beaten = False
                for j in range(n):
                    dx, dy = ((points[j] > points[i]) * 1 - (points[j] < points[i])) * np.where(flags, 1, -1)
                    beaten |= dx <= 0 and dy <= 0 and (dx < 0 or dy < 0)
                assert front[i] != beaten


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"points must be \(n, 2\) without NaN, got shape \(3, 3\)"):
        pareto_front(np.ones((3, 3)))
    with pytest.raises(ValueError, match="without NaN"):
        pareto_front(np.array([[1.0, np.nan]]))
    with pytest.raises(ValueError, match="lower_is_better must be two bools, got 3 values"):
        pareto_front(np.ones((3, 2)), (True, True, False))
    with pytest.raises(TypeError, match="lower_is_better must be two bools"):
        pareto_front(np.ones((3, 2)), (1, 0))
