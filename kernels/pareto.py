"""Which points no other point beats: the Pareto front."""

import numpy as np

from kernels.check import check_array

__all__ = ["pareto_front", "pareto_front_reference"]


def pareto_front(points, lower_is_better=(True, True)) -> np.ndarray:
    """Mark the points that no other point beats.

    A point beats another if it is at least as good on both axes and better on one; so equal points stay together.

    Parameters
    ----------
    points : (n, 2) float32 or float64; infinities are ordered, NaN is refused.
    lower_is_better : two bools, whether small values are the good ones of x and of y.

    Returns
    -------
    bool (n,).

    Raises
    ------
    TypeError : points are no floats, or the flags no bools.
    ValueError : another shape, NaN, or not two flags.

    Cost
    ----
    One sort: n log n comparisons.

    Source
    ------
    Kung, Luccio and Preparata 1975, "On finding the maxima of a set of vectors", the case of two dimensions.
    """
    check_array(points, function="pareto_front", name="points")
    if points.ndim != 2 or points.shape[1] != 2 or np.isnan(points).any():
        raise ValueError(f"pareto_front: points must be (n, 2) without NaN, got shape {points.shape}; drop such rows")
    x, y = (points * np.where(_flags(lower_is_better), 1, -1)).T
    order = np.lexsort((y, x))
    x, y = x[order], y[order]
    best = np.minimum.accumulate(y)
    # beaten by a point of smaller x: the best y before the first point of this x; or by one of equal x and smaller y
    start = np.searchsorted(x, x, side="left")
    before = np.concatenate([[np.inf], best])[start]
    first = start == 0
    front = np.zeros(len(points), bool)
    front[order] = ((y < before) | first) & (y == y[start]) if len(points) else False
    return front


def pareto_front_reference(points, lower_is_better=(True, True)) -> np.ndarray:
    """Compare every point with every other."""
    good = points * np.where(lower_is_better, 1, -1)
    beats = (good[:, None] <= good[None]).all(axis=2) & (good[:, None] < good[None]).any(axis=2)
    return ~beats.any(axis=0)


def _flags(lower_is_better):
    try:
        flags = tuple(lower_is_better)
    except TypeError:
        raise TypeError(
            f"pareto_front: lower_is_better must be two bools, got {type(lower_is_better).__name__}"
        ) from None
    if len(flags) != 2:
        raise ValueError(f"pareto_front: lower_is_better must be two bools, got {len(flags)} values")
    if not all(isinstance(flag, (bool, np.bool_)) for flag in flags):
        raise TypeError("pareto_front: lower_is_better must be two bools, e.g. (True, False)")
    return flags
