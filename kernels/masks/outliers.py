"""The most extreme entries of every vector, taken out exactly, so that what stays has a narrower range.

Source
------
Kang et al. 2024, "GEAR", section 3, the sparse matrix S.
"""

from dataclasses import dataclass

import numpy as np

from kernels.check import as_int, as_number, check_array
from kernels.masks.threshold import mask_of_largest

__all__ = ["SparseOutliers", "extract_outliers", "extract_outliers_reference", "outlier_count"]


@dataclass(frozen=True, eq=False, kw_only=True)
class SparseOutliers:
    """Equally many entries of every vector, the axis of the vectors last.

    Parameters
    ----------
    places : uint16 or uint32 (..., count), positions inside the vector, rising; 16 bits where the vector has at most
        65,536 entries.
    values : float32 (..., count), exact.
    axis : which axis of the array the vectors lie along.
    """

    places: np.ndarray
    values: np.ndarray
    axis: int


def outlier_count(length, share, *, at_least=0) -> int:
    """Return how many entries leave a vector at each end: floor(length share / 2), or more where ``at_least`` says.

    Parameters
    ----------
    length : entries of the vector, at least 0.
    share : of the entries that go, in [0, 1].
    at_least : per end, at least 0; never more than half of the vector.
    """
    length = as_int(length, function="outlier_count", name="length", low=0, high=2**62)
    share = as_number(share, function="outlier_count", name="share", low=0, high=1)
    at_least = as_int(at_least, function="outlier_count", name="at_least", low=0)
    return min(max(int(np.floor(length * share / 2 + 1e-9)), at_least), length // 2)


def extract_outliers(x, share, *, axis=-1, at_least=0, num_threads=None) -> tuple[np.ndarray, SparseOutliers]:
    """Take the largest and the smallest entries out of every vector and put the vector's mean in their place.

    Parameters
    ----------
    x : float32 of any shape, without NaN.
    share : in [0, 1]; of a vector of T entries floor(T share / 2) go at each end.
    axis : the vectors lie along it.
    at_least : entries that go at each end even where the share gives fewer.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    float32 like x without the outliers, and the outliers. Of equal entries those of the lowest index go first, and no
    entry goes twice.

    Raises
    ------
    TypeError : x is no float32 array.
    ValueError : axis or share out of range, or NaN.

    Cost
    ----
    Two exact selections in every vector.

    Source
    ------
    As of the module. *Differs from the released code:* the count follows from the length of the vector itself.
    """
    name = "extract_outliers"
    check_array(x, function=name, name="x", dtypes=(np.float32,))
    axis = as_int(axis, function=name, name="axis", low=-x.ndim, high=x.ndim - 1) % max(x.ndim, 1)
    share = as_number(share, function=name, name="share", low=0, high=1)
    at_least = as_int(at_least, function=name, name="at_least", low=0)
    rows = np.moveaxis(x, axis, -1).copy()
    each = outlier_count(rows.shape[-1], share, at_least=at_least)
    kind = np.uint16 if rows.shape[-1] <= 2**16 else np.uint32
    if not each or not rows.size:
        mask_of_largest(rows, 0, axis=-1, num_threads=num_threads, function=name, name="x")  # refuses NaN
        empty = (*rows.shape[:-1], 0)
        found = SparseOutliers(places=np.zeros(empty, kind), values=np.zeros(empty, np.float32), axis=axis)
        return np.ascontiguousarray(np.moveaxis(rows, -1, axis)), found
    how = {"axis": -1, "num_threads": num_threads, "function": name, "name": "x"}
    largest = mask_of_largest(rows, each, **how)
    gone = largest | mask_of_largest(np.where(largest, np.float32(-np.inf), -rows), each, **how)
    places = np.nonzero(gone)[-1].reshape(*rows.shape[:-1], 2 * each)
    values = np.take_along_axis(rows, places, -1)
    np.put_along_axis(rows, places, rows.mean(-1, keepdims=True, dtype=np.float64).astype(np.float32), -1)
    found = SparseOutliers(places=places.astype(kind), values=values, axis=axis)
    return np.ascontiguousarray(np.moveaxis(rows, -1, axis)), found


def extract_outliers_reference(x, share, axis=-1, at_least=0) -> tuple[np.ndarray, np.ndarray]:
    """Sort every vector and mark both ends; return what stays, filled with the mean, and the mask of what goes."""
    rows = np.moveaxis(x.astype(np.float64), axis, -1)
    each = min(max(int(rows.shape[-1] * share / 2 + 1e-9), at_least), rows.shape[-1] // 2)
    gone = np.zeros(rows.shape, bool)
    np.put_along_axis(gone, np.argsort(-rows, -1, kind="stable")[..., :each], True, -1)
    low = np.argsort(np.where(gone, np.inf, rows), -1, kind="stable")[..., :each]
    np.put_along_axis(gone, low, True, -1)
    filled = np.where(gone, rows.mean(-1, keepdims=True), rows)
    return np.moveaxis(filled, -1, axis), np.moveaxis(gone, -1, axis)
