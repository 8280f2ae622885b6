"""N:M sparsity: of every M neighbours along the input axis the N of the largest scores stay."""

import numpy as np

from kernels.check import as_int
from kernels.masks.threshold import check_scores, mask_of_largest

__all__ = ["as_nm", "nm_mask", "nm_mask_reference"]


def nm_mask(scores, n, m, *, num_threads=None) -> np.ndarray:
    """Keep the n largest scores of every m neighbours.

    Parameters
    ----------
    scores : (..., k) float16, float32 or float64, C-contiguous, without NaN; groups lie along the last axis, which in a
        weight matrix (outputs, inputs) is that of the inputs.
    n : from 0 to m, how many of a group stay.
    m : at least 1, the size of a group; k must be a multiple of it.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    bool, shape of scores, with exactly n True in every group; of equal scores the ones further left stay.

    Raises
    ------
    TypeError : scores are no floats, or n or m no integers.
    ValueError : n above m, k no multiple of m, NaN, or scores that are not contiguous.

    Cost
    ----
    m comparisons for every score where m is at most 32.

    Source
    ------
    Mishra et al. 2021, "Accelerating sparse deep neural networks" (2:4); Zhou et al. 2021 (N:M).
    """
    n, m = as_nm(n, m, function="nm_mask")
    check_scores(scores, function="nm_mask", name="scores")
    if scores.ndim == 0 or scores.shape[-1] % m:
        raise ValueError(
            f"nm_mask: scores must have a last axis that is a multiple of m={m}, got shape {scores.shape}; pad it"
        )
    groups = scores.reshape(scores.size // m, m)
    return mask_of_largest(groups, n, axis=-1, num_threads=num_threads, function="nm_mask").reshape(scores.shape)


def nm_mask_reference(scores, n, m) -> np.ndarray:
    """Sort each group stably in falling order, and mark the places of the first n."""
    groups = scores.reshape(-1, m)
    mask = np.zeros(groups.shape, bool)
    np.put_along_axis(mask, np.argsort(-groups, axis=1, kind="stable")[:, :n], True, axis=1)
    return mask.reshape(scores.shape)


def as_nm(n, m, *, function: str) -> tuple[int, int]:
    """Return n and m as ints, after checking that 0 <= n <= m and m >= 1."""
    m = as_int(m, function=function, name="m", low=1, high=2**31)
    return as_int(n, function=function, name="n", low=0, high=m), m
