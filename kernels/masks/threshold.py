r"""The k largest of an array of any size, exactly: their threshold, their mask, and quantiles.

Floats are compared as the integers of their bits, turned so that both have one order. A small sample, drawn at fixed
places, gives two values with the k-th largest score between them, most likely. One pass counts the scores above each
and copies the few in between, where the same is done again; a short rest is searched by counting alone. What the counts
do not confirm is tried again with a wider interval, so the answer is exact and does not depend on the order of threads.

Both zeros are one value, infinities are the largest and smallest ones, and NaN is refused, since it has no place in any
order. Of equal scores those of the lowest index (in C order) count as the larger ones.
"""

from typing import Any

import numpy as np

from kernels._native import core
from kernels.check import as_int, as_number, check_array, check_choice, check_threads
from kernels.work import Work

__all__ = [
    "SCORES",
    "check_scores",
    "mask_of_largest",
    "quantile_threshold",
    "quantile_threshold_reference",
    "topk_mask",
    "topk_mask_reference",
    "topk_mask_work",
    "topk_threshold",
    "topk_threshold_reference",
]

SCORES = (np.float16, np.float32, np.float64)
QUANTILES = ("lower", "higher", "linear")
_BITS = {2: np.uint16, 4: np.uint32, 8: np.uint64}


def topk_threshold(scores, k, *, axis=None, num_threads=None) -> Any:
    """Return the k-th largest score.

    Parameters
    ----------
    scores : float16, float32 or float64 of any shape, C-contiguous, without NaN.
    k : from 1 to the number of scores, of a row with ``axis=-1``.
    axis : None takes all scores together, -1 each row along the last axis.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    A scalar of the dtype of scores, or with ``axis=-1`` an array of shape ``scores.shape[:-1]``. A zero is +0.0.

    Raises
    ------
    TypeError : scores are not floats, or k is no integer.
    ValueError : scores are not contiguous or hold NaN, k is out of range, or axis is neither None nor the last.

    Cost
    ----
    One pass over the scores, and a few over some per cent of them, of which copies are held; a few passes over each
    row that fits into a cache.

    Source
    ------
    Floyd and Rivest 1975, Algorithm 489 (SELECT). *Differs from the paper:* the scores are not moved, and a small rest
    is searched for the value of the threshold by interpolation and halving.
    """
    check_scores(scores, function="topk_threshold", name="scores")
    rows = _rows(scores, axis, "topk_threshold")
    k = as_int(k, function="topk_threshold", name="k", low=1, high=rows.shape[1])
    threads = check_threads(num_threads, function="topk_threshold")
    return _shaped(_kth(rows, k, None, threads, "topk_threshold"), scores, axis)


def topk_mask(scores, k, *, axis=None, num_threads=None) -> np.ndarray:
    """Mark the k largest scores.

    Parameters
    ----------
    scores, axis, num_threads : as for `topk_threshold`.
    k : from 0 to the number of scores, of a row with ``axis=-1``.

    Returns
    -------
    bool, shape of scores, with exactly ``k`` True (in each row with ``axis=-1``). Of scores that equal the k-th largest
    those of the lowest index are kept.

    Raises
    ------
    TypeError, ValueError : as for `topk_threshold`.

    Cost
    ----
    As `topk_threshold`, and one pass to write the mask, or two where only some of several equal scores are kept.

    Source
    ------
    As `topk_threshold`.
    """
    return mask_of_largest(scores, k, axis=axis, num_threads=num_threads, function="topk_mask")


def mask_of_largest(scores, k, *, axis=None, num_threads=None, function: str, name: str = "scores") -> np.ndarray:
    """Return `topk_mask` for a function whose errors bear its own name, and its name of the scores."""
    check_scores(scores, function=function, name=name)
    rows = _rows(scores, axis, function)
    k = as_int(k, function=function, name="k", low=0, high=rows.shape[1])
    threads = check_threads(num_threads, function=function)
    mask = np.zeros(rows.shape, bool)
    if k == 0:
        _refuse_nan(rows, function, name)
    else:
        _kth(rows, k, mask, threads, function, name)
    return mask.reshape(scores.shape)


def quantile_threshold(scores, q, *, method="lower", axis=None, num_threads=None) -> Any:
    """Return the q-quantile of the scores.

    With N scores in rising order, numbered from 0, the quantile stands at position p = q (N - 1), a float64.

    Parameters
    ----------
    scores, axis, num_threads : as for `topk_threshold`; at least one score.
    q : in [0, 1].
    method : "lower" is the score at floor(p), "higher" the one at ceil(p), both exact; "linear" lies between the two as
        p does, computed in float64 and rounded to the dtype of scores. They are the methods of that name of
        ``numpy.quantile``; ``torch.quantile``, which refuses more than 2^24 scores, means "linear" too.

    Returns
    -------
    As `topk_threshold`. Between two opposite infinities "linear" is NaN.

    Raises
    ------
    TypeError, ValueError : as for `topk_threshold`; q outside [0, 1], or an unknown method.

    Cost
    ----
    As `topk_threshold`, twice for "linear".

    Source
    ------
    Hyndman and Fan 1996, definition 7 ("linear").
    """
    name = "quantile_threshold"
    check_scores(scores, function=name, name="scores")
    rows = _rows(scores, axis, name)
    q = as_number(q, function=name, name="q", low=0, high=1)
    check_choice(method, QUANTILES, function=name, name="method")
    threads = check_threads(num_threads, function=name)
    if not rows.shape[1]:
        raise ValueError(f"{name}: scores must hold at least one score, got shape {scores.shape}")
    low, high, share = _position(q, rows.shape[1])
    if method == "lower" or low == high:
        found = _kth(rows, rows.shape[1] - low, None, threads, name)
    elif method == "higher":
        found = _kth(rows, rows.shape[1] - high, None, threads, name)
    else:
        below, above = (_kth(rows, rows.shape[1] - at, None, threads, name).astype(np.float64) for at in (low, high))
        found = _between(below, above, share).astype(scores.dtype)
    return _shaped(found, scores, axis)


def topk_threshold_reference(scores, k, axis=None) -> np.ndarray:
    """Sort, and take the k-th from the end."""
    rows = np.sort(scores.reshape(1 if axis is None else -1, scores.size if axis is None else scores.shape[-1]))
    found = rows[:, rows.shape[1] - k] + 0.0  # a negative zero becomes a positive one
    return found[0] if axis is None else found.reshape(scores.shape[:-1])


def topk_mask_reference(scores, k, axis=None) -> np.ndarray:
    """Sort stably in falling order, and mark the places of the first k."""
    rows = scores.reshape(1 if axis is None else -1, scores.size if axis is None else scores.shape[-1])
    mask = np.zeros(rows.shape, bool)
    np.put_along_axis(mask, np.argsort(-rows, axis=1, kind="stable")[:, :k], True, axis=1)
    return mask.reshape(scores.shape)


def quantile_threshold_reference(scores, q, method="lower", axis=None) -> np.ndarray:
    """Take the quantile of the sorted scores as its definition reads."""
    rows = np.sort(scores.reshape(1 if axis is None else -1, scores.size if axis is None else scores.shape[-1]))
    low, high, share = _position(q, rows.shape[1])
    below, above = rows[:, low].astype(np.float64), rows[:, high].astype(np.float64)
    found = {"lower": below, "higher": above, "linear": _between(below, above, share)}[method].astype(scores.dtype)
    return found[0] if axis is None else found.reshape(scores.shape[:-1])


def topk_mask_work(size: int, itemsize: int = 4) -> Work:
    """Count the least work of a mask over ``size`` scores of ``itemsize`` bytes: read once, a byte each written."""
    size = as_int(size, function="topk_mask_work", name="size", low=0)
    itemsize = as_int(itemsize, function="topk_mask_work", name="itemsize", low=1)
    return Work(flops=0, bytes_streamed=size * (itemsize + 1), gathers=0)


def check_scores(scores, *, function: str, name: str) -> None:
    """Raise TypeError unless ``scores`` are floats, ValueError unless they lie one after the other in memory."""
    check_array(scores, function=function, name=name, dtypes=SCORES)
    if not (scores.flags.c_contiguous and scores.flags.aligned):
        raise ValueError(f"{function}: {name} must be C-contiguous and aligned; pass np.ascontiguousarray({name})")


def _rows(scores, axis, function):
    """Return the scores as the rows to select from, (1, size) or (rows, n)."""
    if axis is None:
        return scores.reshape(1, scores.size)
    last = as_int(axis, function=function, name="axis")
    if scores.ndim == 0 or last not in (-1, scores.ndim - 1):
        raise ValueError(
            f"{function}: axis must be None or the last of scores ({scores.ndim} axes), got {axis}; "
            "move it there, e.g. np.ascontiguousarray(np.moveaxis(scores, axis, -1))"
        )
    return scores.reshape(int(np.prod(scores.shape[:-1], dtype=np.int64)), scores.shape[-1])


def _kth(rows, k, mask, threads, function, name="scores"):
    """Return the k-th largest of each row, (rows,), after writing the mask if there is one."""
    bits = _BITS[rows.itemsize]
    kth = np.empty(rows.shape[0], rows.dtype)
    marks = np.empty((0, rows.shape[1]), np.uint8) if mask is None else mask.view(np.uint8)
    if rows.size and not core.topk(rows.view(bits), k, kth.view(bits), marks, threads):
        _refuse_nan(rows, function, name)
    return kth


def _refuse_nan(rows, function, name):
    nan = np.isnan(rows)
    if nan.any():
        raise ValueError(
            f"{function}: {name} must hold no NaN, got one at {int(nan.argmax())} of the flattened array; "
            f"np.nan_to_num({name}, nan=-np.inf) puts them last"
        )


def _shaped(found, scores, axis):
    return found[0] if axis is None else found.reshape(scores.shape[:-1])


def _position(q, n):
    """Return the places in rising order that the quantile lies between, and how far it is on its way."""
    at = q * (n - 1)
    low = int(np.floor(at))
    return low, int(np.ceil(at)), at - low


def _between(low, high, share):
    with np.errstate(invalid="ignore"):
        return np.where(low == high, low, (1 - share) * low + share * high)
