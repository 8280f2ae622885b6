r"""Whitening by a Gram matrix: a change of weights, measured where it counts, in the outputs on calibration data.

.. math:: G = X^T X = R^T R, \qquad \|X (W - \hat W)\|_F = \|R (W - \hat W)\|_F

R is upper triangular, the transpose of the Cholesky factor of G: what is approximated is R W, and R^{-1} brings the
approximation back.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from kernels.check import as_number, check_array

__all__ = ["Whitening", "unwhiten", "whiten"]

ASYMMETRY = 1e-6  # of the largest entry
MOST_TRIES = 12


@dataclass(frozen=True, kw_only=True, eq=False)
class Whitening:
    """The factor of a Gram matrix.

    Parameters
    ----------
    factor : float64 (d, d), R, upper triangular with R^T R = G + jitter I.
    jitter : what was added to the diagonal of G, 0 where G is positive definite.
    """

    factor: np.ndarray
    jitter: float


def whiten(gram, jitter=7e-6) -> Whitening:
    """Factor the Gram matrix of a layer's inputs.

    Parameters
    ----------
    gram : (d, d) float32 or float64, X^T X of the inputs, symmetric up to rounding and finite; computed in float64.
    jitter : above 0. Where G is singular up to rounding, as with an input that is always 0 or with fewer samples than
        inputs, its smallest eigenvalue is raised to ``jitter`` times the mean diagonal, and a warning says so.

    Returns
    -------
    Whitening. Where G is all 0, R is the unit matrix.

    Raises
    ------
    TypeError : gram is no float array.
    ValueError : gram is not square, not finite, not symmetric, or has an eigenvalue that is clearly negative; or jitter
        is not above 0.

    Cost
    ----
    d^3 / 6 multiply-adds, and the eigenvalues of G where it is singular.

    Source
    ------
    Wang et al. 2024, "SVD-LLM" (truncation-aware whitening). *Differs from released code:* the jitter is a share of the
    mean diagonal, so that the scale of the inputs does not matter.
    """
    check_array(gram, function="whiten", name="gram")
    jitter = as_number(jitter, function="whiten", name="jitter", above=0)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1]:
        raise ValueError(f"whiten: gram must be square, X^T X of the inputs, got shape {gram.shape}")
    if not np.isfinite(gram).all():
        raise ValueError("whiten: gram must be finite; leave out batches with NaN or infinity")
    g = gram.astype(np.float64)
    if np.abs(g - g.T).max(initial=0) > ASYMMETRY * np.abs(g).max(initial=0):
        raise ValueError("whiten: gram must be symmetric; pass (gram + gram.T) / 2")
    factor = _upper(g)
    if factor is not None:
        return Whitening(factor=factor, jitter=0.0)
    mean, lowest = float(np.mean(np.diagonal(g))), float(linalg.eigvalsh(g, check_finite=False)[0])
    if mean < 0 or -lowest > ASYMMETRY * len(g) * mean:
        raise ValueError(f"whiten: gram must be X^T X of some inputs; it has the negative eigenvalue {lowest:.3g}")
    if mean == 0:
        return Whitening(factor=np.eye(len(g)), jitter=0.0)
    added = jitter * mean - min(lowest, 0.0)
    for _ in range(MOST_TRIES):
        factor = _upper(g + added * np.eye(len(g)))
        if factor is not None:
            warnings.warn(
                f"whiten: gram is singular; {added:.3g}, which is {added / mean:.1e} of its mean diagonal, was added "
                "to its diagonal. Calibrate with more samples, or drop inputs that are always 0.",
                stacklevel=2,
            )
            return Whitening(factor=factor, jitter=added)
        added *= 10
    raise ValueError("whiten: gram must be X^T X of some inputs; no jitter makes it positive definite")


def unwhiten(factor, whitened) -> np.ndarray:
    """Return R^{-1} times a matrix: what an approximation of R W is for W itself.

    Parameters
    ----------
    factor : float64 (d, d), R of a `Whitening`.
    whitened : (d, k) float32 or float64.

    Returns
    -------
    float64 (d, k).

    Raises
    ------
    TypeError, ValueError : no float arrays, or shapes that do not fit.

    Cost
    ----
    d^2 k / 2 multiply-adds.

    Source
    ------
    As `whiten`.
    """
    check_array(factor, function="unwhiten", name="factor", dtypes=(np.float64,))
    check_array(whitened, function="unwhiten", name="whitened")
    if factor.ndim != 2 or whitened.ndim != 2 or factor.shape != (len(whitened), len(whitened)):
        raise ValueError(
            f"unwhiten: factor must be (d, d) and whitened (d, k), got {factor.shape} and {whitened.shape}"
        )
    if not np.diagonal(factor).all():
        raise ValueError("unwhiten: factor must have no 0 on its diagonal; take that of whiten(gram)")
    return linalg.solve_triangular(factor, whitened.astype(np.float64), lower=False, check_finite=False)


def _upper(g):
    """Return the upper Cholesky factor, or None where a pivot is rounding."""
    try:
        factor = linalg.cholesky(g, lower=False, check_finite=False)
    except linalg.LinAlgError:
        return None
    least = len(g) * np.finfo(np.float64).eps * np.abs(np.diagonal(g)).max(initial=0)
    return factor if np.diagonal(factor).min(initial=np.inf) ** 2 > least else None
