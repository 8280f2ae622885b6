"""The steps of ARMOR's search: gradient steps on both wrappers and the core, and the exact choice of groups."""

import itertools
from dataclasses import dataclass
from functools import lru_cache

import torch

__all__ = [
    "State",
    "adam",
    "core_step",
    "descend",
    "gradients",
    "left_product",
    "loss_of",
    "right_product",
    "supports_of",
]

PAIR_DAMPING, NORM_DAMPING = 1e-9, 1e-8


@dataclass
class State:
    """What the search turns: tensors of one dtype, S dense, the mask beside it."""

    a: torch.Tensor  # (rows / ba, ba, ba)
    s: torch.Tensor  # (rows, columns)
    b: torch.Tensor  # (columns / bb, bb, bb)
    mask: torch.Tensor  # bool (rows, columns)

    def core(self) -> torch.Tensor:
        return self.s * self.mask

    def clone(self) -> "State":
        return State(self.a.clone(), self.s.clone(), self.b.clone(), self.mask.clone())


@torch.no_grad()
def core_step(state, target, weights, n, m, *, select="l1", draw=None) -> None:
    """Choose one group of every pair of blocks anew, with the best of all supports and its best values.

    Parameters
    ----------
    state : a, b, s and mask, changed in place; left as they are where the gradient is not finite.
    target : (rows, columns), the normalised matrix. weights : (columns,), h.
    n, m : pattern.
    select, draw : of `armor_factorize`; the generator that draws.
    """
    (p, ba, _), (q, bb, _) = state.a.shape, state.b.shape
    root = weights.sqrt()
    core = state.core()
    left = _product(state, core) - target
    gradient = _right_t(_left_t(state.a, left * weights), state.b)  # of S o M, pruned places too, over 2
    score = gradient.abs().reshape(p, ba, q, bb // m, m).sum(-1).permute(0, 2, 1, 3).reshape(p * q, ba * (bb // m))
    if not torch.isfinite(score).all():
        return  # the gradient steps were so large that the loss has no value; the search ends
    chosen = _choose(score, select, draw)
    rows, groups = chosen // (bb // m), chosen % (bb // m)  # within the blocks
    block = torch.arange(p * q)
    i, j = block // q, block % q
    row = i * ba + rows
    columns = (j * bb + groups * m)[:, None] + torch.arange(m)  # (pq, m)
    a = state.a[i, :, rows]  # (pq, ba), the column of A that the row meets
    lines = state.b[j[:, None], groups[:, None] * m + torch.arange(m)] * root.reshape(q, 1, bb)[j]  # (pq, m, bb)
    old = core[row[:, None], columns]  # (pq, m)
    residual = (left * root).reshape(p, ba, q, bb).permute(0, 2, 1, 3).reshape(p * q, ba, bb)
    norm = (a * a).sum(1)
    # R0^T a with the group taken out of R0
    pull = torch.einsum("zab,za->zb", residual, a) - norm[:, None] * torch.einsum("zm,zmb->zb", old, lines)
    f = torch.einsum("zmb,zb->zm", lines, pull)
    gram = lines @ lines.transpose(1, 2)  # (pq, m, m)
    supports = torch.tensor(supports_of(n, m))  # (choices, n)
    small = gram[:, supports[:, :, None], supports[:, None, :]] + PAIR_DAMPING * torch.eye(n, dtype=gram.dtype)
    wanted = f[:, supports]  # (pq, choices, n)
    solved = torch.linalg.solve(small, wanted[..., None])[..., 0]
    best = (wanted * solved).sum(-1).argmax(1)
    places = supports[best]  # (pq, n)
    values = -solved[block, best] / (norm[:, None] + NORM_DAMPING)
    state.mask[row[:, None], columns] = False
    at = columns.gather(1, places)
    state.mask[row[:, None], at] = True
    state.s[row[:, None], at] = values


def _choose(score, select, draw):
    if select == "greedy":
        return score.argmax(1)
    if select == "uniform":
        return torch.randint(score.shape[1], (len(score),), generator=draw)
    empty = score.sum(1, keepdim=True) <= 0  # the block is exact: any group
    return torch.multinomial(torch.where(empty, torch.ones_like(score), score), 1, generator=draw)[:, 0]


def adam(state, lr, wrappers):
    """Return a joint step of Adam on what moves; S is dense, so its moments outlast changes of the mask."""
    moving = [state.a, state.b, state.s] if wrappers else [state.s]
    optimizer = torch.optim.Adam(moving, lr=lr)

    def step(state, target, weights, whole, wrappers):
        for tensor, gradient in zip((state.a, state.b, state.s), gradients(state, target, weights), strict=True):
            tensor.grad = gradient / whole
        optimizer.step()

    return step


@torch.no_grad()
def gradients(state, target, weights):
    """Return the gradients of the loss by A, B and S."""
    core, (p, ba, _), (q, bb, _) = state.core(), state.a.shape, state.b.shape
    wide = right_product(core, state.b)
    error = 2 * weights * (left_product(state.a, wide) - target)
    back = _left_t(state.a, error)
    by_a = error.reshape(p, ba, -1) @ wide.reshape(p, ba, -1).transpose(1, 2)
    by_b = torch.einsum("rqi,rqj->qij", core.reshape(-1, q, bb), back.reshape(-1, q, bb))
    return by_a, by_b, _right_t(back, state.b) * state.mask


@torch.no_grad()
def descend(state, target, weights, whole=1.0, wrappers=True, *, only=""):
    """Take a step of the reciprocal smoothness constant on A, then B, then S, or on one of them alone.

    Returns the smoothness constants of the last that moved, in a shape that goes with its gradient.
    """
    (p, ba, _), (q, bb, _) = state.a.shape, state.b.shape
    smooth = torch.ones(())
    if only == "a" or (wrappers and not only):
        wide = (right_product(state.core(), state.b) * weights.sqrt()).reshape(p, ba, -1)
        smooth = _above_0(2 * _largest(wide @ wide.transpose(1, 2)))[:, None, None]
        state.a -= gradients(state, target, weights)[0] / smooth
    if only == "b" or (wrappers and not only):
        tall = left_product(state.a, state.core()).reshape(-1, q, bb)
        smooth = 2 * _largest(torch.einsum("rqi,rqj->qij", tall, tall)) * weights.reshape(q, bb).amax(1)
        smooth = _above_0(smooth)[:, None, None]
        state.b -= gradients(state, target, weights)[1] / smooth
    if only in ("", "s"):
        lines = state.b * weights.sqrt().reshape(q, 1, bb)
        smooth = 2 * _largest(state.a.transpose(1, 2) @ state.a)[:, None] * _largest(lines @ lines.transpose(1, 2))
        smooth = _above_0(smooth).repeat_interleave(ba, 0).repeat_interleave(bb, 1)
        state.s -= gradients(state, target, weights)[2] / smooth
    return smooth


def _largest(matrices):
    """Return the largest eigenvalue of each symmetric matrix."""
    return torch.linalg.eigvalsh(matrices)[..., -1]


def _above_0(smooth):
    return smooth.clamp_min(torch.finfo(smooth.dtype).tiny)


# Block-diagonal products, of arrays and of tensors --------------------------------------------------------------------
def left_product(a, z):
    """Return blockdiag(a) z."""
    return (a @ z.reshape(a.shape[0], a.shape[1], -1)).reshape(z.shape)


def _left_t(a, z):
    return left_product(a.transpose(1, 2), z)


def right_product(z, b):
    """Return z blockdiag(b)."""
    q, side, _ = b.shape
    parts = z.reshape(-1, q, side)
    turned = parts.permute(1, 0, 2) if isinstance(z, torch.Tensor) else parts.transpose(1, 0, 2)
    out = turned @ b
    return (out.permute(1, 0, 2) if isinstance(z, torch.Tensor) else out.transpose(1, 0, 2)).reshape(z.shape)


def _right_t(z, b):
    return right_product(z, b.transpose(1, 2))


def _product(state, core):
    return right_product(left_product(state.a, core), state.b)


@torch.no_grad()
def loss_of(state, target, weights) -> float:
    return float((weights * (_product(state, state.core()) - target).double() ** 2).sum())


# Supports -----------------------------------------------------------------------------------------------------------
@lru_cache
def supports_of(n, m):
    return list(itertools.combinations(range(m), n))
