"""Softmax over the stored entries of every row of a CSR matrix, and its gradient."""

import numpy as np
from scipy import sparse

from kernels.check import as_csr, check_unmasked

__all__ = ["csr_softmax", "csr_softmax_gradient"]


def csr_softmax(scores) -> sparse.csr_array:
    r"""Compute p_ij = exp(s_ij) / sum_l exp(s_il) over the stored entries of row i.

    Parameters
    ----------
    scores : csr_array or csr_matrix (m, n), float32 or float64; duplicate entries count as separate entries.

    Returns
    -------
    csr_array (m, n), dtype and structure of ``scores``; empty rows stay empty, and a row whose scores are all -inf gets
    zeros, as a query that sees no key does elsewhere.

    Raises
    ------
    TypeError, ValueError : not CSR, wrong dtype, malformed.

    Source
    ------
    Softmax of sparse attention; the row maximum is subtracted first, so large scores do not overflow.
    """
    s = as_csr(scores, function="csr_softmax", name="scores")
    length, filled = _rows(s)
    starts = s.indptr[:-1][filled]
    top = np.maximum.reduceat(s.data, starts) if len(starts) else s.data[:0]
    weights = np.exp(s.data - np.repeat(np.where(np.isneginf(top), s.dtype.type(0), top), length))
    total = np.add.reduceat(weights, starts) if len(starts) else weights
    total = np.where(total == 0, s.dtype.type(1), total)
    return sparse.csr_array((weights / np.repeat(total, length), s.indices, s.indptr), shape=s.shape)


def csr_softmax_gradient(probabilities, gradient) -> np.ndarray:
    r"""Compute ds = p (g - sum_l p_il g_il), the gradient with respect to the scores.

    Parameters
    ----------
    probabilities : csr_array (m, n), what `csr_softmax` returned.
    gradient : (nnz,) gradient of its values.

    Returns
    -------
    (nnz,), dtype of ``probabilities``.

    Raises
    ------
    TypeError : gradient holds no numbers, or is a masked array. ValueError : gradient has another length.

    Source
    ------
    Derivative of softmax.
    """
    p = as_csr(probabilities, function="csr_softmax_gradient", name="probabilities")
    check_unmasked(gradient, function="csr_softmax_gradient", name="gradient")
    gradient = np.asarray(gradient)
    if not np.issubdtype(gradient.dtype, np.number):
        raise TypeError(f"csr_softmax_gradient: gradient must hold numbers, got {gradient.dtype}")
    if gradient.shape != p.data.shape:
        raise ValueError(
            f"csr_softmax_gradient: gradient must have one number per entry, {p.data.shape}; got {gradient.shape}"
        )
    length, filled = _rows(p)
    product = p.data * gradient
    starts = p.indptr[:-1][filled]
    inner = np.add.reduceat(product, starts) if len(starts) else product
    return product - p.data * np.repeat(inner, length)


def _rows(a):
    length = np.diff(a.indptr)
    filled = length > 0
    return length[filled], filled
