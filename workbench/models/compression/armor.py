r"""ARMOR: a 2:4 core between two block-diagonal matrices, in place of a weight matrix that was pruned to 2:4 itself.

.. math:: \bar W \approx A (S \circ M) B, \qquad
          \ell = \sum_{ij} h_j \big(\bar W - A (S \circ M) B\big)_{ij}^2, \qquad
          W = \mathrm{diag}(r)\, \bar W\, \mathrm{diag}(c)

W is (m, n), outputs by inputs; M keeps N of every M neighbouring inputs of a row, A and B have b x b blocks on their
diagonals, and h is the mean square of the inputs. A, B and S take gradient steps; then every block of the core has a
group, drawn by the size of its gradient, chosen anew with its best values: the loss never rises. The search begins
with unit matrices as A and B, which is NoWag-P.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from kernels.check import as_int, as_number, as_rng, check_callable, check_choice
from kernels.formats.nm_packed import NMPacked
from kernels.formats.storage import block_diagonal_bits, nm_bits
from kernels.masks.nm import as_nm, nm_mask
from kernels.matmul.wrapped_nm_spmm import wrapped_nm_spmm
from workbench.models.compression.armor_steps import (
    Search,
    State,
    left_product,
    loss_of,
    right_product,
    supports_of,
    supports_tried,
)

__all__ = [
    "ArmorFactors",
    "NMResult",
    "armor_factorize",
    "group_losses",
    "nowag_normalize",
    "nowag_p",
    "proxy_loss",
    "sanitize_hessian_diag",
    "trace",
]

SELECT = ("l1", "greedy", "uniform")
OPTIMIZERS = ("adam", "sequential_gd")
MOST_CANDIDATES = 1000
RTOL, ATOL = 1e-6, 1e-8  # an improvement of the relative loss that counts


@dataclass(frozen=True, kw_only=True, eq=False)
class NMResult:
    """A matrix of which n of every m neighbours stay.

    Parameters
    ----------
    mask : bool (rows, columns).
    weight : the normalised weights that stay, zero elsewhere.
    loss : the relative proxy loss.
    """

    mask: np.ndarray
    weight: np.ndarray
    loss: float


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmorFactors:
    """The factors of one matrix, the normalisers folded in.

    Parameters
    ----------
    left : float32 (rows / b, b, b), the blocks of diag(r) A.
    right : float32 (columns / b, b, b), the blocks of B diag(c).
    core : NMPacked (rows, columns), S o M.
    history : float64, the relative loss before the first iteration and after each.
    best : which entry of the history these factors have.
    """

    left: np.ndarray
    right: np.ndarray
    core: NMPacked
    history: np.ndarray
    best: int

    @property
    def loss(self) -> float:
        """The relative loss of these factors."""
        return float(self.history[self.best])

    def to_dense(self) -> np.ndarray:
        """Return the matrix that the factors stand for, float32 (rows, columns)."""
        return right_product(left_product(self.left, self.core.to_dense()), self.right)

    def matmul(self, x: np.ndarray) -> np.ndarray:
        """Map float32 (..., columns) to (..., rows) on the kernel, which forms no dense matrix."""
        rows = x.reshape(-1, x.shape[-1])
        out = wrapped_nm_spmm(self.core, np.ascontiguousarray(rows.T), left=self.left, right=self.right)
        return out.T.reshape(*x.shape[:-1], self.core.shape[0])

    def bits(self, *, value_bits: int = 16) -> dict[str, int]:
        """Return what is stored, by kind: values and places of the core, and both wrappers."""
        (rows, columns), core = self.core.shape, self.core
        values = core.values.size * value_bits
        wrappers = block_diagonal_bits(rows, self.left.shape[1], value_bits=value_bits)
        wrappers += block_diagonal_bits(columns, self.right.shape[1], value_bits=value_bits)
        total = nm_bits((rows, columns), core.n, core.m, value_bits=value_bits)
        return {"values": values, "indices": total - values, "dense factors": wrappers}

    def nbytes(self, *, value_bits: int = 16) -> int:
        """Return the stored bytes."""
        return -(-sum(self.bits(value_bits=value_bits).values()) // 8)


# The problem --------------------------------------------------------------------------------------------------------
def sanitize_hessian_diag(h) -> np.ndarray:
    """Return the mean squares of the inputs with what is not finite or not above 0 set to the mean of the others.

    Parameters
    ----------
    h : (n,) float; ``2 * np.diag(gram) / tokens`` of an `InputStatistics`.

    Raises
    ------
    ValueError : not one-dimensional, or no entry that is finite and above 0.

    Source
    ------
    The released code of Liu et al. 2025.
    """
    h = np.asarray(h, np.float64)
    fine = np.isfinite(h) & (h > 0)
    if h.ndim != 1 or not fine.any():
        raise ValueError(
            f"sanitize_hessian_diag: h must be (n,) with an entry that is finite and above 0, got shape {h.shape}"
        )
    return np.where(fine, h, h[fine].mean())


def nowag_normalize(w, eps=1e-5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale the columns of a matrix to length 1, and then its rows.

    Parameters
    ----------
    w : (rows, columns) float32 or float64, finite.
    eps : added to every length.

    Returns
    -------
    (the normalised matrix, r (rows,), c (columns,)) with w = diag(r) normalised diag(c).

    Raises
    ------
    TypeError, ValueError : no finite float matrix.

    Source
    ------
    Liu et al. 2025 (NoWag), as ARMOR uses it.
    """
    _check_matrix(w, "nowag_normalize")
    eps = as_number(eps, function="nowag_normalize", name="eps", above=0)
    c = np.linalg.norm(w, axis=0) + w.dtype.type(eps)
    once = w / c
    r = np.linalg.norm(once, axis=1) + w.dtype.type(eps)
    return once / r[:, None], r, c


def nowag_p(w, h, n=2, m=4) -> NMResult:
    """Prune a matrix to n:m by h_j w_ij^2 of its normalised weights: ARMOR's beginning, and its rival.

    Parameters
    ----------
    w : (rows, columns) float32 or float64, finite; m divides the columns.
    h : (columns,) float, the mean squares of the inputs.
    n, m : n of every m neighbouring inputs stay, n below m.

    Returns
    -------
    NMResult of the normalised matrix; ``weight * r[:, None] * c`` is in the scale of w.

    Raises
    ------
    TypeError, ValueError : shapes that do not fit, or numbers out of range.

    Source
    ------
    Liu et al. 2025, "NoWag-P" with an n:m pattern.
    """
    h, n, m = _checked(w, h, n, m, "nowag_p")
    normal = nowag_normalize(w)[0]
    mask = nm_mask(np.ascontiguousarray(h * normal.astype(np.float64) ** 2), n, m)
    left_out = (h * np.where(mask, 0.0, normal.astype(np.float64)) ** 2).sum()
    whole = (h * normal.astype(np.float64) ** 2).sum()
    return NMResult(mask=mask, weight=normal * mask, loss=float(left_out / whole) if whole else 0.0)


def proxy_loss(normal, left, core, right, h, *, relative=True) -> float:
    """Return sum_ij h_j (W - A Z B)_ij^2, of the normalised matrix; over that of Z = 0 where it is relative.

    Parameters
    ----------
    normal : (rows, columns), the normalised matrix.
    left, right : (rows / b, b, b) and (columns / b, b, b), the blocks of A and B.
    core : (rows, columns), S o M.
    h : (columns,).
    relative : whether it is divided by sum_ij h_j W_ij^2.
    """
    loss = float((h * np.square(right_product(left_product(left, core), right) - normal)).sum())
    whole = float((h * np.square(normal)).sum())
    return loss / whole if relative and whole else loss


# The search ---------------------------------------------------------------------------------------------------------
def armor_factorize(
    w,
    h,
    block: int | tuple[int, int] = 32,
    n=2,
    m=4,
    *,
    iters=300,
    lr=1e-3,
    optimizer: Literal["adam", "sequential_gd"] = "adam",
    core_updates=1,
    select: Literal["l1", "greedy", "uniform"] = "l1",
    wrappers=True,
    patience=100,
    seed=0,
    callback: Callable[[int, float], object] | None = None,
) -> ArmorFactors:
    """Find the factors of a weight matrix by block coordinate descent.

    Parameters
    ----------
    w : (rows, columns) float32 or float64, finite; the search is in its dtype.
    h : (columns,) float, ``2 * np.diag(gram) / tokens`` of the layer's inputs; see `sanitize_hessian_diag`.
    block : side of the blocks of A and B, or one for each; they divide rows and columns, and m divides that of B.
    n, m : pattern of the core; every choice of n among m is tried, at most 1,000.
    iters : rounds of a gradient step and core steps, from 0 on.
    lr : of Adam. The paper takes 1e-4 and 20,000 rounds; 1e-3 gets there in a tenth of them.
    optimizer : "adam", one joint step on A, B and S, or "sequential_gd", steps of the reciprocal smoothness constant on
        A, then B, then S, each of which lowers the loss by at least what theory says.
    core_updates : groups that are chosen anew in each round and pair of blocks; 0 keeps the mask.
    select : how a group is chosen: with a probability in proportion to the sum of its gradient's magnitudes ("l1"), the
        largest of them ("greedy"), or any ("uniform").
    wrappers : whether A and B move; without them nothing can, since NoWag-P is the best core of unit matrices.
    patience : rounds without an improvement after which the search ends.
    seed : int or Generator.
    callback : ``callback(round, relative loss)`` after each round; it may raise to end the call, or return True for the
        best factors so far.

    Returns
    -------
    ArmorFactors with the smallest loss of all rounds, never above that of NoWag-P. A search ends early where steps are
    so large that the loss overflows.

    Raises
    ------
    TypeError, ValueError : shapes that do not fit, weights that are not finite, or numbers out of range.

    Cost
    ----
    About 6 rows columns b multiply-adds a round.

    Source
    ------
    Liu et al. 2025, "ARMOR", Algorithm 1. *Differs from the paper:* the best factors are returned, not the last.
    """
    name = "armor_factorize"
    h, n, m = _checked(w, h, n, m, name)
    if math.comb(m, n) > MOST_CANDIDATES:
        raise ValueError(f"{name}: {n}:{m} has more than {MOST_CANDIDATES:,} supports; take a smaller m")
    ba, bb = _sides(block, w.shape, m)
    iters, core_updates = (as_int(v, function=name, name=k, low=0, high=10**7)
                           for k, v in (("iters", iters), ("core_updates", core_updates)))  # fmt: skip
    patience = as_int(patience, function=name, name="patience", low=1)
    lr = as_number(lr, function=name, name="lr", above=0)
    check_choice(optimizer, OPTIMIZERS, function=name, name="optimizer")
    check_choice(select, SELECT, function=name, name="select")
    if callback is not None:
        check_callable(callback, function=name, name="callback")
    normal, r, c = nowag_normalize(w)
    search = Search(normal, h, nowag_p(w, h, n, m), (ba, bb), n, m, optimizer=optimizer, lr=lr, wrappers=wrappers,
                    core_updates=core_updates, select=select, seed=as_rng(seed, function=name))  # fmt: skip
    history, best, kept, since = [search.loss()], 0, search.state.clone(), 0
    for i in range(1, iters + 1):
        found = search.round()
        if not math.isfinite(found):
            break
        history.append(found)
        since = 0 if history[-1] < history[best] * (1 - RTOL) - ATOL else since + 1
        if history[-1] < history[best]:
            best, kept = i, search.state.clone()
        if (callback is not None and callback(i, history[-1]) is True) or since >= patience:
            break
    core = NMPacked.from_dense(np.where(kept.mask, kept.s, 0).astype(np.float32), n, m)
    return ArmorFactors(
        left=np.ascontiguousarray(kept.a.numpy() * r.reshape(-1, ba, 1), dtype=np.float32),
        right=np.ascontiguousarray(kept.b.numpy() * c.reshape(-1, 1, bb), dtype=np.float32),
        core=core,
        history=np.array(history),
        best=best,
    )


# What happens on the way --------------------------------------------------------------------------------------------
def trace(w, h, block: int | tuple[int, int] = 32, n=2, m=4, *, iters=300, every=10, select="l1", seed=0) -> dict:
    """Return how wrappers and core change from round to round, for pictures: the search of `armor_factorize` with Adam.

    Parameters
    ----------
    w, h, block, n, m, iters, select, seed : as for `armor_factorize`.
    every : rounds between two pictures.

    Returns
    -------
    dict with

    - "history": float64 (iters + 1,), the relative loss;
    - "rounds": (pictures,), the rounds at which pictures are taken, 0 the first;
    - "masks": bool (pictures, rows, columns), M;
    - "changed": float64 (pictures,), the share of the groups in which other places stay than in NoWag-P;
    - "drift": float64 (pictures, 2), the Frobenius norms of A - I and B - I over those of I.

    Raises
    ------
    TypeError, ValueError : as `armor_factorize`.
    """
    name = "trace"
    h, n, m = _checked(w, h, n, m, name)
    sides = _sides(block, w.shape, m)
    iters = as_int(iters, function=name, name="iters", low=0, high=10**5)
    every = as_int(every, function=name, name="every", low=1)
    check_choice(select, SELECT, function=name, name="select")
    begin, normal = nowag_p(w, h, n, m), nowag_normalize(w)[0]
    search = Search(normal, h, begin, sides, n, m, select=select, seed=as_rng(seed, function=name))
    history, rounds, masks, drift = [search.loss()], [0], [search.state.mask.numpy().copy()], [(0.0, 0.0)]
    for i in range(1, iters + 1):
        history.append(search.round())
        if i % every == 0:
            rounds.append(i)
            masks.append(search.state.mask.numpy().copy())
            drift.append(tuple(float((x - torch.eye(x.shape[1])).norm() / math.sqrt(len(x) * x.shape[1]))
                               for x in (search.state.a, search.state.b)))  # fmt: skip
    shown = np.stack(masks)
    groups = (shown != shown[0]).reshape(len(shown), len(w), -1, m).any(-1)
    return {
        "history": np.array(history),
        "rounds": np.array(rounds),
        "masks": shown,
        "changed": groups.mean((1, 2)),
        "drift": np.array(drift),
    }


def group_losses(w, h, factors: ArmorFactors, row: int, group: int) -> dict[tuple[int, ...], float]:
    """Return the relative loss with each choice of places in one group of the core, at that choice's best values.

    Parameters
    ----------
    w, h : the matrix that was factorised, and the mean squares of its inputs.
    factors : of `armor_factorize`; all but the group stays as it is.
    row, group : which row of the core, and which m neighbours of it, from 0.

    Returns
    -------
    places within the group -> relative loss, for every choice of n among m.

    Raises
    ------
    TypeError, ValueError : factors of another shape than w, or a row or group that the core does not have.
    """
    name, core = "group_losses", factors.core
    h, n, m = _checked(w, h, core.n, core.m, name)
    if w.shape != core.shape:
        raise ValueError(f"{name}: factors must be those of w, of shape {w.shape}, got {core.shape}")
    row = as_int(row, function=name, name="row", low=0, high=core.shape[0] - 1)
    group = as_int(group, function=name, name="group", low=0, high=core.shape[1] // m - 1)
    normal, r, c = nowag_normalize(w)
    dense = core.to_dense().astype(np.float64)
    state = State(
        a=torch.from_numpy(factors.left / r.reshape(len(factors.left), -1, 1)).double(),
        s=torch.from_numpy(dense),
        b=torch.from_numpy(factors.right / c.reshape(len(factors.right), 1, -1)).double(),
        mask=torch.from_numpy(dense != 0),
    )
    target, weights = torch.from_numpy(normal).double(), torch.from_numpy(h)
    state.s[row, group * m : (group + 1) * m] = 0.0
    whole = float((weights * target**2).sum()) or 1.0
    error = right_product(left_product(state.a, state.core()), state.b) - target
    _, gains, _ = supports_tried(state, error, weights, torch.tensor([row]), torch.tensor([group]), n, m)
    left_out = loss_of(state, target, weights)
    return {places: (left_out - float(gain)) / whole for places, gain in zip(supports_of(n, m), gains[0], strict=True)}


# Checks -------------------------------------------------------------------------------------------------------------
def _check_matrix(w, name):
    if not isinstance(w, np.ndarray) or w.dtype not in (np.float32, np.float64):
        got = w.dtype if isinstance(w, np.ndarray) else type(w).__name__
        raise TypeError(f"{name}: w must be a float32 or float64 array, got {got}")
    if w.ndim != 2 or not w.size or not np.isfinite(w).all():
        raise ValueError(f"{name}: w must be a finite matrix (outputs, inputs), got shape {w.shape}")


def _checked(w, h, n, m, name) -> tuple[np.ndarray, int, int]:
    _check_matrix(w, name)
    n, m = as_nm(n, m, function=name)
    h = np.asarray(h, np.float64)
    if h.shape != (w.shape[1],) or not np.isfinite(h).all() or (h <= 0).any():
        raise ValueError(
            f"{name}: h must be {w.shape[1]} finite numbers above 0, one for each input, got shape {h.shape}; "
            "see sanitize_hessian_diag"
        )
    if not 1 <= n < m or w.shape[1] % m:
        raise ValueError(f"{name}: n must be from 1 to m - 1 and m divide the {w.shape[1]} inputs, got {n}:{m}")
    return h, n, m


def _sides(block: Any, shape, m) -> tuple[int, int]:
    given = block if isinstance(block, (tuple, list)) else (block, block)
    if len(given) != 2:
        raise ValueError(f"armor_factorize: block must be one side or two, got {block!r}")
    ba, bb = (as_int(side, function="armor_factorize", name="block", low=1) for side in given)
    if shape[0] % ba or shape[1] % bb or bb % m:
        raise ValueError(
            f"armor_factorize: block must divide {shape[0]} outputs and {shape[1]} inputs, and m={m} divide that of "
            f"the inputs, got {ba} and {bb}"
        )
    return ba, bb
