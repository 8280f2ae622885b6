r"""SparseGPT: prune column by column, and let the columns that follow make up for what each leaves behind.

.. math:: H = 2 G / s + \lambda I, \quad G = X^T X, \quad H^{-1} = U^T U, \qquad
          S_{ij} = W_{ij}^2 / U_{jj}^2, \quad e_j = (W_{:j} - \hat W_{:j}) / U_{jj}, \quad W_{:,j:} \leftarrow
          W_{:,j:} - e_j U_{j,j:}

U is upper triangular, s the number of calibration samples, lambda a share of the mean diagonal of 2 G / s. In row j of
U stands what the inverse of H is when the inputs before j are already fixed: its first entry gives the error that
pruning a weight of column j costs, the others how the remaining weights best answer.
"""

import numpy as np
from scipy.linalg import LinAlgError, cholesky, lapack

from kernels.check import as_int, as_number, check_array, check_threads
from kernels.masks.nm import nm_mask
from kernels.masks.prune import count_pruned
from kernels.masks.threshold import topk_mask
from kernels.masks.wanda import as_sparsity

__all__ = ["sparsegpt_prune", "sparsegpt_prune_reference"]

ASYMMETRY = 1e-8  # of the largest entry: sums of products in another order differ by less


def sparsegpt_prune(
    w, gram, sparsity=None, *, n=None, m=None, block=128, damp=0.01, samples=1, together=1, num_threads=None
) -> tuple[np.ndarray, np.ndarray]:
    """Prune a weight matrix and adjust the weights that stay, so that its outputs on calibration data change little.

    Parameters
    ----------
    w : (rows, columns) float32 or float64, outputs by inputs, finite.
    gram : (columns, columns) float64, X^T X of the calibration inputs, symmetric and finite.
    sparsity : share of the weights that go, in [0, 1]: of every block of columns with N weights round(sparsity N) go.
    n, m : instead of sparsity, keep n of every m neighbours in a row; chosen when the first of them is reached, from
        the weights as adjusted so far. ``block`` and the number of columns must be multiples of m.
    block : columns that are pruned before the adjustment is carried to all columns behind them. Sparsity is met block
        by block; with n:m it changes nothing but the order of the sums.
    damp : share of the mean diagonal of H that is added to the diagonal; above 0 unless ``gram`` is positive definite.
    samples : number s of calibration samples that ``gram`` sums over. It matters only where an input is always zero.
    together : rows that are pruned together, as blocks of ``together`` x 1, by the sum of their scores; must divide the
        number of rows.
    num_threads : of the selection; 1 to 256; None means ``kernels.get_num_threads()``. No result depends on it.

    Returns
    -------
    The new weights, (rows, columns) of the dtype of w, zero where the mask is False, and the mask, bool, True where a
    weight stays. Of equal scores the ones of the lower index (in the block) stay.

    Raises
    ------
    TypeError : w is not float32 or float64, gram not float64, or numbers are of the wrong kind.
    ValueError : shapes do not fit, values out of range or not finite, gram is not symmetric or, damped, not positive
        definite; both or neither of sparsity and n:m.

    Cost
    ----
    columns^3 / 3 multiply-adds for U, twice, and rows columns^2 / 2 for the adjustments; computed in float64.

    Source
    ------
    Frantar and Alistarh 2023, "SparseGPT", Algorithm 1 and section 3.3 (n:m). An input that is always zero has its
    weights set to zero and H_jj to 1. *Differs from the released code:* exactly the number of weights that sparsity
    asks for goes (not one more), n is what stays and not what goes, and U comes from one Cholesky factorisation of H in
    reversed order, which loses fewer digits than factoring its inverse; ``together`` is ours.
    """
    name = "sparsegpt_prune"
    sparsity, n, m = as_sparsity(sparsity, n, m, function=name)
    block = as_int(block, function=name, name="block", low=1)
    damp = as_number(damp, function=name, name="damp", low=0)
    samples = as_int(samples, function=name, name="samples", low=1, high=2**62)
    together = as_int(together, function=name, name="together", low=1)
    check_threads(num_threads, function=name)
    _check_operands(w, gram, name)
    rows, columns = w.shape
    if rows % together:
        raise ValueError(f"{name}: together must divide the {rows} rows of w, got {together}")
    if m is not None and (columns % m or min(block, columns) % m):
        raise ValueError(f"{name}: block and the {columns} columns of w must be multiples of m={m}, got block {block}")
    if not w.size:
        return w.copy(), np.ones(w.shape, bool)

    new = w.T.astype(np.float64, order="C")  # (columns, rows): each step works on whole columns of w
    hessian = gram * (2.0 / samples)
    dead = np.diagonal(hessian) == 0
    hessian[dead, dead] = 1.0
    new[dead] = 0.0
    u = _upper_factor(hessian, damp, name)
    mask = np.empty(new.shape, bool)
    for first in range(0, columns, block):
        stop = min(columns, first + block)
        corner, errors = u[first:stop, first:stop], np.empty((stop - first, rows))
        some, keep = new[first:stop], mask[first:stop]
        if sparsity is not None:
            keep[:] = _chosen(some, np.diagonal(corner), sparsity, None, None, together, num_threads)
        for j in range(stop - first):
            if m is not None and j % m == 0:
                group = slice(j, j + m)
                keep[group] = _chosen(some[group], np.diagonal(corner)[group], None, n, m, together, num_threads)
            errors[j] = np.where(keep[j], 0.0, some[j]) / corner[j, j]
            some[j + 1 :] -= np.multiply.outer(corner[j, j + 1 :], errors[j])
            some[j] *= keep[j]
        new[stop:] -= u[first:stop, stop:].T @ errors
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(new.T).astype(w.dtype, copy=False), np.ascontiguousarray(mask.T)


def sparsegpt_prune_reference(w, gram, sparsity=None, n=None, m=None, block=128, damp=0.01, samples=1) -> tuple:
    """Prune one column after the other, with the inverse of H worked out anew for the inputs that are left."""
    new, columns = w.astype(np.float64), w.shape[1]
    h = 2.0 * gram / samples
    dead = np.diagonal(h) == 0
    h[dead, dead], new[:, dead] = 1.0, 0.0
    h = h + damp * np.mean(np.diagonal(h)) * np.eye(columns)
    inverses = [np.linalg.inv(h[j:, j:]) for j in range(columns)]
    costs = np.array([inverse[0, 0] for inverse in inverses])
    mask = np.ones(w.shape, bool)
    for j in range(columns):
        if sparsity is not None and j % block == 0:
            group = slice(j, j + block)
            scores = new[:, group] ** 2 / costs[group]
            order = np.argsort(-scores, axis=None, kind="stable")[scores.size - round(sparsity * scores.size) :]
            mask[:, group] = ~np.isin(np.arange(scores.size), order).reshape(scores.shape)
        if m is not None and j % m == 0:
            order = np.argsort(-(new[:, j : j + m] ** 2) / costs[j : j + m], axis=1, kind="stable")
            np.put_along_axis(mask[:, j : j + m], order[:, n:], False, axis=1)
        error = np.where(mask[:, j], 0.0, new[:, j])
        new[:, j:] -= np.outer(error, inverses[j][0] / inverses[j][0, 0])
        new[:, j] *= mask[:, j]
    return new, mask


def _chosen(some, diagonal, sparsity, n, m, together, threads):
    """Return which of the weights (columns, rows) stay."""
    scores = np.square(some / diagonal[:, None])
    scores = np.ascontiguousarray(scores.reshape(len(scores), -1, together).sum(axis=2).T)  # (rows / together, columns)
    if sparsity is None:
        keep = nm_mask(scores, n, m, num_threads=threads)
    else:
        keep = topk_mask(scores, scores.size - count_pruned(scores.size, sparsity), num_threads=threads)
    return keep.T.repeat(together, axis=1)


def _upper_factor(hessian, damp, function):
    """Return U, upper triangular, with U^T U = (H + damping)^-1; overwrites H.

    H in reversed order is L L^T; reversed back, L is an upper factor R with H = R R^T, and U is its inverse.
    """
    at = np.arange(len(hessian))
    hessian[at, at] += damp * np.mean(np.diagonal(hessian))
    try:
        lower = cholesky(hessian[::-1, ::-1], lower=True, overwrite_a=True, check_finite=False)
    except LinAlgError:
        lower = np.zeros((1, 1))
    inverse, fault = lapack.dtrtri(np.asfortranarray(lower[::-1, ::-1]), lower=0)
    if fault or not np.isfinite(inverse).all():
        raise ValueError(
            f"{function}: gram, damped by damp={damp}, must be positive definite; raise damp (0.01 is usual)"
        )
    return np.ascontiguousarray(inverse)


def _check_operands(w, gram, function):
    check_array(w, function=function, name="w")
    check_array(gram, function=function, name="gram", dtypes=(np.float64,))
    if w.ndim != 2 or gram.shape != (w.shape[1], w.shape[1]):
        raise ValueError(f"{function}: w must be (m, n) and gram (n, n), got {w.shape} and {gram.shape}")
    if not (np.isfinite(w).all() and np.isfinite(gram).all()):
        raise ValueError(f"{function}: w and gram must be finite")
    if np.abs(gram - gram.T).max(initial=0) > ASYMMETRY * np.abs(gram).max(initial=0):
        raise ValueError(f"{function}: gram must be symmetric; pass (gram + gram.T) / 2")
