r"""Truncated singular value decomposition of a weight matrix, plain and weighted by what its inputs are.

.. math:: W \approx U_r \Sigma_r V_r^T \quad \text{(plain)}, \qquad
          R W^T = U \Sigma V^T, \quad W \approx V_r \Sigma_r (R^{-1} U_r)^T \quad \text{(SVD-LLM)}

W is (m, n), outputs by inputs, and R^T R = X^T X. The first makes the weights' error least, the second that of the
outputs: ||X (W - W_r)^T||_F is the root of the sum of the squares of the singular values of R W^T that are left out.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy import linalg

from kernels.check import as_int, as_ints, as_number, check_array
from kernels.factor.whitening import unwhiten, whiten
from kernels.work import Work

__all__ = ["LowRank", "rank_for_ratio", "svd_llm", "svd_llm_reference", "svd_plain", "svd_plain_reference",
           "truncated_svd_work"]  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class LowRank:
    """A product of two thin matrices in place of a weight matrix.

    Parameters
    ----------
    left : (m, r).
    right : (r, n); the matrix is ``left @ right``.
    values : float64, all singular values of what was decomposed, the largest first.
    jitter : what was added to the diagonal of the Gram matrix.
    """

    left: np.ndarray
    right: np.ndarray
    values: np.ndarray
    jitter: float = 0.0

    @property
    def left_out(self) -> float:
        """The Frobenius norm of what the product leaves out of the decomposed matrix."""
        return float(np.sqrt(np.square(self.values[self.left.shape[1] :]).sum()))


def rank_for_ratio(cr, shape) -> int:
    """Return the largest rank whose factors take at most the share 1 - cr of the values: floor((1 - cr) m n / (m + n)).

    Parameters
    ----------
    cr : compression ratio, the share of the values that goes, in (0, 1).
    shape : (m, n).

    Returns
    -------
    At least 1.

    Raises
    ------
    TypeError, ValueError : numbers out of range, or a ratio at which not even rank 1 fits.

    Source
    ------
    The usual count of values; plain arithmetic.
    """
    m, n = as_ints(shape, 2, function="rank_for_ratio", name="shape (m, n)", low=1)
    cr = as_ratio(cr, function="rank_for_ratio")
    rank = int((1 - Fraction(str(cr))) * m * n / (m + n))  # of the decimal that was written
    if rank < 1:
        raise ValueError(f"rank_for_ratio: cr must be at most {1 - (m + n) / (m * n):.4g} for {m} x {n}, got {cr}")
    return min(rank, m, n)


def as_ratio(cr, *, function: str) -> float:
    """Return a compression ratio; ValueError unless it lies between 0 and 1, both excluded."""
    cr = as_number(cr, function=function, name="cr", above=0)
    if cr >= 1:
        raise ValueError(f"{function}: cr must be a number above 0 and below 1, the share that goes, got {cr}")
    return cr


def svd_plain(w, rank) -> LowRank:
    """Return the matrix of a rank that is nearest to the weights.

    Parameters
    ----------
    w : (m, n) float32 or float64, finite.
    rank : from 1 to min(m, n).

    Returns
    -------
    LowRank with factors of the dtype of w; computed in float64. The singular values are with the left one.

    Raises
    ------
    TypeError, ValueError : w is no float matrix, not finite, or rank is out of range.

    Cost
    ----
    That of LAPACK's gesdd, some 10 m n min(m, n) multiply-adds.

    Source
    ------
    Eckart and Young 1936.
    """
    rank = _checked(w, rank, "svd_plain")
    u, values, vt = linalg.svd(w.astype(np.float64), full_matrices=False, check_finite=False)
    left, right = u[:, :rank] * values[:rank], vt[:rank]
    return LowRank(left=_as(left, w), right=_as(right, w), values=values)


def svd_llm(w, gram, rank, *, jitter=7e-6) -> LowRank:
    """Return the matrix of a rank whose outputs on calibration data are nearest to those of the weights.

    Parameters
    ----------
    w : (m, n) float32 or float64, outputs by inputs, finite.
    gram : (n, n) float32 or float64, X^T X of the inputs.
    rank : from 1 to min(m, n).
    jitter : of `kernels.factor.whitening.whiten`, where gram is singular.

    Returns
    -------
    LowRank with factors of the dtype of w; computed in float64. ``values`` are those of R W^T.

    Raises
    ------
    TypeError, ValueError : as for `svd_plain`, or gram does not fit or is none.

    Cost
    ----
    As `svd_plain`, and n^3 / 6 + n^2 (m + rank) / 2 multiply-adds.

    Source
    ------
    Wang et al. 2024, "SVD-LLM", truncation-aware data whitening, without its update of the factors.
    """
    rank = _checked(w, rank, "svd_llm")
    check_gram(w, gram, function="svd_llm")
    whitening = whiten(gram, jitter)
    u, values, vt = linalg.svd(whitening.factor @ w.T.astype(np.float64), full_matrices=False, check_finite=False)
    left, right = vt[:rank].T * values[:rank], unwhiten(whitening.factor, u[:, :rank]).T
    return LowRank(left=_as(left, w), right=_as(right, w), values=values, jitter=whitening.jitter)


def svd_plain_reference(w, rank) -> np.ndarray:
    """Return the projection of the weights onto the leading eigenvectors of W^T W."""
    vectors = np.linalg.eigh(w.astype(np.float64).T @ w.astype(np.float64))[1][:, ::-1][:, :rank]
    return w @ vectors @ vectors.T


def svd_llm_reference(w, gram, rank) -> np.ndarray:
    """Return W S_r, truncated in the basis that whitens the inputs by the symmetric root of the Gram matrix."""
    values, vectors = np.linalg.eigh(gram)
    root = vectors * np.sqrt(values) @ vectors.T
    return svd_plain_reference(w @ root, rank) @ np.linalg.inv(root)


def truncated_svd_work(shape, rank: int, itemsize: int = 4) -> Work:
    """Count a product with the two factors, for one token: both read once, input and output streamed."""
    m, n = as_ints(shape, 2, function="truncated_svd_work", name="shape (m, n)", low=0)
    rank = as_int(rank, function="truncated_svd_work", name="rank", low=0, high=min(m, n))
    itemsize = as_int(itemsize, function="truncated_svd_work", name="itemsize", low=1)
    return Work(flops=2 * rank * (m + n), bytes_streamed=itemsize * (rank * (m + n) + m + n), gathers=0)


def check_gram(w, gram, *, function: str) -> None:
    """Raise unless ``gram`` is a float matrix as wide as w (m, n)."""
    check_array(gram, function=function, name="gram")
    if gram.shape != (w.shape[1], w.shape[1]):
        raise ValueError(f"{function}: gram must be {w.shape[1]} x {w.shape[1]}, as wide as w {w.shape}, got "
                         f"{gram.shape}")  # fmt: skip


def _checked(w, rank, function):
    check_matrix(w, function=function)
    return as_int(rank, function=function, name="rank", low=1, high=min(w.shape))


def check_matrix(w, *, function: str) -> None:
    """Raise unless ``w`` is a finite float matrix of at least one row and column."""
    check_array(w, function=function, name="w")
    if w.ndim != 2 or not w.size:
        raise ValueError(f"{function}: w must be (m, n), outputs by inputs, both at least 1, got shape {w.shape}")
    if not np.isfinite(w).all():
        raise ValueError(f"{function}: w must be finite")


def _as(x, w):
    return np.ascontiguousarray(x.astype(w.dtype, copy=False))
