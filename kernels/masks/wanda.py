r"""Wanda: a weight counts as much as it moves the output on calibration data.

.. math:: S_{ij} = |W_{ij}| \, \lVert x_j \rVert_2 = |W_{ij}| \sqrt{G_{jj}}, \qquad G = X^T X

x_j is the j-th input over all calibration tokens. Outputs (rows of W) are pruned each for itself.
"""

import numpy as np

from kernels.check import as_number, check_array, check_threads
from kernels.masks.nm import as_nm, nm_mask, nm_mask_reference
from kernels.masks.prune import mask_at_sparsity, prune_mask_reference

__all__ = ["wanda_mask", "wanda_mask_reference", "wanda_scores"]


def wanda_scores(w, gram_diagonal) -> np.ndarray:
    """Return |w| times the norm of its input.

    Parameters
    ----------
    w : (m, n) float32 or float64, outputs by inputs, finite.
    gram_diagonal : (n,) float64, the diagonal of X^T X: sums of squares of each input, finite and not negative.

    Returns
    -------
    float64 (m, n).

    Raises
    ------
    TypeError : a dtype is another.
    ValueError : shapes do not fit, or values are not finite or negative.

    Source
    ------
    Sun et al. 2024, "A simple and effective pruning approach for large language models", Eq. 1.
    """
    return _scores(w, gram_diagonal, "wanda_scores")


def wanda_mask(w, gram_diagonal, sparsity=None, *, n=None, m=None, num_threads=None) -> np.ndarray:
    """Keep the weights of the largest Wanda scores in every row.

    Parameters
    ----------
    w, gram_diagonal : as for `wanda_scores`.
    sparsity : share of every row that goes, in [0, 1]; of a row of k weights round(sparsity k) go.
    n, m : instead of sparsity, keep n of every m neighbours in a row.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    bool, shape of w; of equal scores the ones further left stay.

    Raises
    ------
    TypeError, ValueError : as `wanda_scores`; both or neither of sparsity and n:m, or values out of range.

    Cost
    ----
    One pass over w, and `kernels.masks.threshold.topk_mask` in float64.

    Source
    ------
    Sun et al. 2024, section 3. *Differs from the released code*, which rounds the number of pruned weights down.
    """
    name = "wanda_mask"
    sparsity, n, m = as_sparsity(sparsity, n, m, function=name)
    check_threads(num_threads, function=name)
    scores = _scores(w, gram_diagonal, name)
    if sparsity is not None:
        return mask_at_sparsity(scores, sparsity, scope="row", num_threads=num_threads, function=name)
    if w.shape[1] % m:
        raise ValueError(f"{name}: w has {w.shape[1]} columns, not a multiple of m={m}; pad it or choose another m")
    return nm_mask(scores, n, m, num_threads=num_threads)


def wanda_mask_reference(w, gram_diagonal, sparsity=None, n=None, m=None) -> np.ndarray:
    """Score as the formula reads, and sort every row or group."""
    scores = np.abs(w.astype(np.float64)) * np.sqrt(gram_diagonal)
    return prune_mask_reference(scores, sparsity, "row") if n is None else nm_mask_reference(scores, n, m)


def as_sparsity(sparsity, n, m, *, function: str) -> tuple:
    """Return sparsity as a float or n and m as ints, whichever is given.

    Raises
    ------
    TypeError, ValueError : both or neither, or values out of range.
    """
    if (sparsity is None) == (n is None and m is None):
        raise ValueError(
            f"{function}: give either sparsity or both n and m, got sparsity={sparsity!r}, n={n!r}, m={m!r}"
        )
    if sparsity is None:
        return None, *as_nm(n, m, function=function)
    return as_number(sparsity, function=function, name="sparsity", low=0, high=1), None, None


def _scores(w, gram_diagonal, function):
    check_array(w, function=function, name="w")
    check_array(gram_diagonal, function=function, name="gram_diagonal", dtypes=(np.float64,))
    if w.ndim != 2 or gram_diagonal.shape != w.shape[1:]:
        raise ValueError(
            f"{function}: w must be (m, n) and gram_diagonal (n,), got {w.shape} and {gram_diagonal.shape}; "
            "pass np.diagonal(gram)"
        )
    if not (np.isfinite(w).all() and np.isfinite(gram_diagonal).all() and (gram_diagonal >= 0).all()):
        raise ValueError(f"{function}: w and gram_diagonal must be finite, and gram_diagonal not negative")
    return np.abs(w, dtype=np.float64, order="C") * np.sqrt(gram_diagonal)
