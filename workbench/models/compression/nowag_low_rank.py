r"""NoWag-P and a low-rank matrix that makes up for what it leaves out: ARMOR's rival of equally many bytes.

.. math:: \bar W \approx S \circ M + U V, \qquad \ell = \sum_{ij} h_j \big(\bar W - S \circ M - U V\big)_{ij}^2

In turns, the best n:m matrix of what the product leaves over, and the best product of what that matrix leaves over:
each is exact, so the loss never rises. With rank b it takes as many bytes as ARMOR with blocks of b.
"""

from dataclasses import dataclass

import numpy as np

from kernels.check import as_int
from kernels.factor.svd import svd_plain
from kernels.formats.nm_packed import NMPacked
from kernels.formats.storage import low_rank_bits, nm_bits
from kernels.masks.nm import nm_mask
from workbench.models.compression.armor import nowag_normalize, nowag_p

__all__ = ["NMLowRank", "nowag_low_rank"]


@dataclass(frozen=True, kw_only=True, eq=False)
class NMLowRank:
    """An n:m matrix plus a product of two thin ones, in the scale of the weights.

    Parameters
    ----------
    core : NMPacked (rows, columns).
    left, right : float32 (rows, rank) and (rank, columns).
    history : float64, the relative proxy loss after each turn; the first is that of NoWag-P alone.
    """

    core: NMPacked
    left: np.ndarray
    right: np.ndarray
    history: np.ndarray

    @property
    def loss(self) -> float:
        """The relative loss of these factors."""
        return float(self.history[-1])

    def to_dense(self) -> np.ndarray:
        """Return the sum, float32 (rows, columns)."""
        return self.core.to_dense() + self.left @ self.right

    def bits(self, *, value_bits: int = 16) -> dict[str, int]:
        """Return what is stored, by kind: values and places of the n:m matrix, and both thin ones."""
        core, values = self.core, self.core.values.size * value_bits
        total = nm_bits(core.shape, core.n, core.m, value_bits=value_bits)
        thin = low_rank_bits(core.shape, self.left.shape[1], value_bits=value_bits)
        return {"values": values, "indices": total - values, "dense factors": thin}


def nowag_low_rank(w, h, rank, n=2, m=4, *, turns=1) -> NMLowRank:
    """Prune a matrix to n:m and add a matrix of some rank.

    Parameters
    ----------
    w : (rows, columns) float32 or float64, finite; m divides the columns.
    h : (columns,) float, the mean squares of the inputs; see `hessian_diag`.
    rank : from 1 to the smaller side of w.
    n, m : n of every m neighbouring inputs stay, n below m.
    turns : how often both parts are sought. With 1 the product makes up for NoWag-P as it is.

    Returns
    -------
    NMLowRank; its loss never rises with the turns.

    Raises
    ------
    TypeError, ValueError : shapes that do not fit, or numbers out of range.

    Cost
    ----
    A singular value decomposition each turn.

    Source
    ------
    A rival of our own for Liu et al. 2025, "ARMOR"; the turns are those of robust principal component analysis.
    """
    name = "nowag_low_rank"
    begin = nowag_p(w, h, n, m)
    rank = as_int(rank, function=name, name="rank", low=1, high=min(w.shape))
    turns = as_int(turns, function=name, name="turns", low=1)
    normal, r, c = (each.astype(np.float64) for each in nowag_normalize(w))
    root = np.sqrt(np.asarray(h, np.float64))
    whole = np.square(normal * root).sum() or 1.0
    low, history = np.zeros_like(normal), [begin.loss]
    for _ in range(turns):
        core = np.where(nm_mask(np.square((normal - low) * root), n, m), normal - low, 0.0)
        thin = svd_plain((normal - core) * root, rank)
        left, right = thin.left, thin.right / root
        low = left @ right
        history.append(float(np.square((normal - core - low) * root).sum() / whole))
    return NMLowRank(
        core=NMPacked.from_dense((core * r[:, None] * c).astype(np.float32), n, m),
        left=np.ascontiguousarray(left * r[:, None], np.float32),
        right=np.ascontiguousarray(right * c, np.float32),
        history=np.array(history),
    )
