"""The steps of ARMOR's search: gradient steps on both wrappers and the core, and the exact choice of groups."""

import itertools
from dataclasses import dataclass
from functools import lru_cache

import torch

__all__ = [
    "Search",
    "State",
    "adam",
    "core_step",
    "descend",
    "gradients",
    "left_product",
    "loss_of",
    "right_product",
    "supports_of",
    "supports_tried",
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


class Search:
    """The state of a search, which begins with unit matrices and the mask of NoWag-P, and its rounds.

    Parameters
    ----------
    normal : (rows, columns) array, the normalised matrix. h : (columns,).
    begin : NMResult of both.
    block : sides of the blocks of A and of B.
    n, m : pattern.
    seed : Generator that all draws come from; the others as in `armor_factorize`.
    """

    def __init__(self, normal, h, begin, block, n, m, *, optimizer="adam", lr=1e-3, wrappers=True, core_updates=1,
                 select="l1", seed):  # fmt: skip
        (rows, columns), (ba, bb) = normal.shape, block
        self.target, self.weights = torch.from_numpy(normal), torch.from_numpy(h.astype(normal.dtype))
        self.state = State(
            a=torch.eye(ba, dtype=self.target.dtype).repeat(rows // ba, 1, 1),
            s=torch.from_numpy(begin.weight.copy()),
            b=torch.eye(bb, dtype=self.target.dtype).repeat(columns // bb, 1, 1),
            mask=torch.from_numpy(begin.mask.copy()),
        )
        self.whole = float((self.weights * self.target.double() ** 2).sum()) or 1.0
        self.step = adam(self.state, lr, wrappers) if optimizer == "adam" else descend
        self.draw = torch.Generator().manual_seed(int(seed.integers(2**62)))
        self.n, self.m, self.wrappers, self.core_updates, self.select = n, m, wrappers, core_updates, select

    def loss(self) -> float:
        """Return the relative loss."""
        return loss_of(self.state, self.target, self.weights) / self.whole

    def round(self) -> float:
        """Take a gradient step, choose groups anew, and return the relative loss."""
        self.step(self.state, self.target, self.weights, self.whole, self.wrappers)
        for _ in range(self.core_updates):
            core_step(self.state, self.target, self.weights, self.n, self.m, select=self.select, draw=self.draw)
        return self.loss()


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
    error = _product(state, state.core()) - target
    gradient = _right_t(_left_t(state.a, error * weights), state.b)  # of S o M, pruned places too, over 2
    score = gradient.abs().reshape(p, ba, q, bb // m, m).sum(-1).permute(0, 2, 1, 3).reshape(p * q, ba * (bb // m))
    if not torch.isfinite(score).all():
        return  # the gradient steps were so large that the loss has no value; the search ends
    chosen, block = _choose(score, select, draw), torch.arange(p * q)
    row = block // q * ba + chosen // (bb // m)
    group = block % q * (bb // m) + chosen % (bb // m)
    columns, gains, values = supports_tried(state, error, weights, row, group, n, m)
    best = gains.argmax(1)
    state.mask[row[:, None], columns] = False
    at = columns.gather(1, torch.tensor(supports_of(n, m))[best])
    state.mask[row[:, None], at] = True
    state.s[row[:, None], at] = values[block, best]


@torch.no_grad()
def supports_tried(state, error, weights, row, group, n, m):
    """Return what every support of some groups would give, each group alone, with all else as it is.

    Parameters
    ----------
    state, weights, n, m : as in `core_step`; nothing is changed.
    error : (rows, columns), A (S o M) B less the target.
    row, group : int64 (z,), which row of the core, and which m neighbours of it.

    Returns
    -------
    (columns (z, m), gains (z, choices), values (z, choices, n)): the places of every group, by how much each support
    with its best values lowers the loss of the group left out, and these values.
    """
    ba, (q, bb, _) = state.a.shape[1], state.b.shape
    root, columns = weights.sqrt(), group[:, None] * m + torch.arange(m)
    i, j = row // ba, columns[:, 0] // bb
    a = state.a[i, :, row % ba]  # (z, ba), the column of A that the row meets
    lines = state.b[j[:, None], columns % bb] * root.reshape(q, 1, bb)[j]  # (z, m, bb)
    old = state.core()[row[:, None], columns]  # (z, m)
    residual = (error * root).reshape(-1, ba, q, bb)[i, :, j]  # (z, ba, bb)
    norm = (a * a).sum(1)
    # R0^T a with the group taken out of R0
    pull = torch.einsum("zab,za->zb", residual, a) - norm[:, None] * torch.einsum("zm,zmb->zb", old, lines)
    f = torch.einsum("zmb,zb->zm", lines, pull)
    gram = lines @ lines.transpose(1, 2)  # (z, m, m)
    supports = torch.tensor(supports_of(n, m))  # (choices, n)
    small = gram[:, supports[:, :, None], supports[:, None, :]] + PAIR_DAMPING * torch.eye(n, dtype=gram.dtype)
    wanted = f[:, supports]  # (z, choices, n)
    solved = torch.linalg.solve(small, wanted[..., None])[..., 0]
    norm = norm[:, None] + NORM_DAMPING
    return columns, (wanted * solved).sum(-1) / norm, -solved / norm[..., None]


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
