"""Which cells of SEA's compressed estimate are kept, and which keys they stand for.

Lee et al. 2023, "SEA: Sparse Linear Attention with Estimated Attention Mask", arXiv 2310.01777, sections 3.2 and 3.3.
Symbols: N samples, H heads, T tokens, W cells per estimated row, k keys per query and head, L visible keys.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from kernels.attention.csr_softmax import csr_softmax, csr_softmax_gradient
from workbench.models import bridge

__all__ = [
    "GROUPS",
    "FlatCSR",
    "cells_to_flat_csr",
    "column_grid",
    "column_of_key",
    "expand_cells",
    "flat_attention",
    "flat_csr_to_dense",
    "grouped_topk",
]

GROUPS = ("query", "head", "batch", "causal_batch")


def column_of_key(length: int, width: int) -> torch.Tensor:
    """Return which cell key j of a row with L visible keys reads: floor((j + 1/2) W / L - 1e-4), (L,) int64."""
    j = torch.arange(length, dtype=torch.float64)
    return torch.floor((j + 0.5) / max(length, 1) * width - 1e-4).long().clamp(0, width - 1)


def column_grid(lengths, t, width, causal):
    """Cell of every (query, key) pair, and whether the key is visible, (N, 1 or T, T) each; one row if not causal."""
    j = torch.arange(t, dtype=torch.float64)
    visible = (j + 1)[:, None] if causal else lengths.to(torch.float64)[:, None, None]
    column = torch.floor((j + 0.5) / visible.clamp(min=1) * width - 1e-4).long().clamp(0, width - 1)
    seen = j < lengths[:, None, None]
    if causal:
        seen = seen & (j <= j[:, None])
    return column.expand_as(seen), seen


def grouped_topk(est, k, lengths, group="causal_batch", *, causal=False) -> torch.Tensor:
    """Choose the best cells of the estimate, ranked together inside a group.

    Parameters
    ----------
    est : (N, H, T, W) float, higher is better.
    k : keys per query and head to spend on average, > 0.
    lengths : (N,) real tokens of each sample.
    group : "query" ranks the cells of one query and head, "head" those of a head, "batch" those of a sample,
        "causal_batch" those of one query over all heads (the only one that causality allows).
    causal : query i sees i + 1 keys.

    Returns
    -------
    (N, H, T, W) bool; at least one cell per group, none in padded rows. Budget: k W / L cells per query and head.

    Raises
    ------
    ValueError : unknown group, k <= 0, or a group that looks ahead where causal.

    Source
    ------
    Lee et al. 2023, section 3.3 (grouped top-k).
    """
    if group not in GROUPS:
        raise ValueError(f"grouped_topk: group must be one of {', '.join(GROUPS)}; got {group!r}")
    if not k > 0:
        raise ValueError(f"grouped_topk: k must be positive, got {k}")
    if causal and group in ("head", "batch"):
        raise ValueError(
            f"grouped_topk: group {group!r} ranks later queries too; causal takes 'causal_batch' or 'query'"
        )
    n, h, t, w = est.shape
    lengths = torch.as_tensor(lengths)
    real = torch.arange(t) < lengths[:, None]  # (N, T)
    visible = (torch.arange(t) + 1).expand(n, t) if causal else lengths[:, None].expand(n, t)
    per_row = k * w / visible.clamp(min=1).double()  # (N, T) cells of one query and head
    ranked = est.masked_fill(~real[:, None, :, None], -torch.inf)
    if group == "query":
        cells, budget = ranked, per_row[:, None, :].expand(n, h, t)
    elif group == "causal_batch":
        cells, budget = ranked.transpose(1, 2).flatten(2), h * per_row
    elif group == "head":
        cells, budget = ranked.flatten(2), (k * w * torch.ones(n, dtype=torch.float64))[:, None].expand(n, h)
    else:
        cells, budget = ranked.flatten(1), h * k * w * torch.ones(n, dtype=torch.float64)
    count = budget.round().clamp(min=1, max=cells.shape[-1]).long().unsqueeze(-1).expand(*cells.shape[:-1], 1)
    least = cells.topk(int(count.max()), dim=-1).values.gather(-1, count - 1)  # the last value that is kept
    above, tied = cells > least, cells == least
    chosen = above | (tied & (tied.cumsum(-1) <= count - above.sum(-1, keepdim=True)))  # of ties the first ones
    if group == "causal_batch":
        chosen = chosen.unflatten(2, (h, w)).transpose(1, 2)
    return chosen.reshape(n, h, t, w) & real[:, None, :, None]


def expand_cells(cells, lengths, *, causal=False) -> torch.Tensor:
    """Stretch chosen cells (N, H, T, W) to the visible keys that they cover, (N, H, T, T) bool."""
    n, h, t, w = cells.shape
    column, seen = column_grid(torch.as_tensor(lengths), t, w, causal)
    return cells.gather(3, column[:, None].expand(n, h, t, t)) & seen[:, None]


@dataclass(frozen=True)
class FlatCSR:
    """One CSR matrix per sample with T rows and H T columns (column = head T + key): all heads of a query in one row.

    Parameters
    ----------
    indptr : (N T H + 1,) int64, start of the run of each (sample, query, head), in that order.
    keys : (nnz,) int64, key of each entry.
    shape : (N, H, T).
    """

    indptr: np.ndarray
    keys: np.ndarray
    shape: tuple[int, int, int]

    @property
    def row_nnz(self) -> np.ndarray:
        """Entries of each row (all heads of a query), (N, T) int64."""
        n, h, t = self.shape
        return np.diff(self.indptr).reshape(n, t, h).sum(2)

    def sample(self, index: int) -> sparse.csr_array:
        """Return the (T, H T) pattern of one sample, values 1."""
        h, t = self.shape[1:]
        runs = self.indptr[index * t * h : (index + 1) * t * h + 1]
        head = np.repeat(np.tile(np.arange(h), t), np.diff(runs))
        keys = self.keys[runs[0] : runs[-1]]
        return sparse.csr_array(
            (np.ones(len(keys), np.float32), head * t + keys, runs[::h] - runs[0]), shape=(t, h * t)
        )


def cells_to_flat_csr(cells, lengths, *, causal=False, cap=None) -> FlatCSR:
    """Turn chosen cells into a flat CSR pattern at a cost linear in its entries; nothing T x T is built.

    Parameters
    ----------
    cells : (N, H, T, W) bool.
    cap : at most this many keys per cell, spread evenly from the right end of its range; None keeps all.

    Source
    ------
    Lee et al. 2023, section 3.3 and appendix (FlatCSR).
    """
    n, h, t, w = cells.shape
    if cap is not None and cap < 1:
        raise ValueError(f"cells_to_flat_csr: cap must be at least 1, got {cap}")
    lengths = np.asarray(lengths)
    sample, query, head, cell = np.nonzero(np.asarray(cells).transpose(0, 2, 1, 3))
    visible = np.minimum(query + 1, lengths[sample]) if causal else lengths[sample]
    stretch = (query + 1 if causal else visible) / w

    def first_key(column):
        return np.where(column <= 0, 0, np.ceil((column + 1e-4) * stretch - 0.5)).astype(np.int64)

    start = np.minimum(first_key(cell), visible)
    end = np.where(cell == w - 1, visible, np.minimum(first_key(cell + 1), visible))
    span = end - start
    taken = span if cap is None else np.minimum(span, cap)
    runs = np.bincount((sample * t + query) * h + head, weights=taken, minlength=n * t * h).astype(np.int64)
    offset = np.arange(taken.sum()) - np.repeat(np.cumsum(taken) - taken, taken)
    back = (np.repeat(taken, taken) - 1 - offset) * np.repeat(span, taken) // np.maximum(np.repeat(taken, taken), 1)
    keys = np.repeat(end, taken) - 1 - back
    return FlatCSR(np.concatenate([[0], np.cumsum(runs)]), keys, (n, h, t))


def flat_csr_to_dense(flat: FlatCSR) -> np.ndarray:
    """Return the pattern as (N, H, T, T) bool."""
    n, h, t = flat.shape
    dense = np.zeros((n, t, h, t), bool)
    run = np.repeat(np.arange(n * t * h), np.diff(flat.indptr))
    dense.reshape(-1, t)[run, flat.keys] = True
    return dense.transpose(0, 2, 1, 3)


def flat_attention(flat: FlatCSR, q, k, v) -> tuple[sparse.csr_array, torch.Tensor]:
    """Attend over a flat pattern, differentiable in q, k and v: SDDMM, softmax per run, SpMM.

    Heads are diagonal blocks of one matrix, so that one call of each kernel does them all.

    Parameters
    ----------
    q, k, v : (N, H, T, d) float32, q not scaled.

    Returns
    -------
    attention, csr_array with a row per (sample, query, head), and the context, (N, H, T, d).
    """
    n, h, t = flat.shape
    d = q.shape[-1]
    run = np.repeat(np.arange(n * t * h), np.diff(flat.indptr))
    head, sample = run % h, run // (t * h)
    columns = (sample * h + head) * t + flat.keys
    pattern = torch.from_numpy(flat.indptr), torch.from_numpy(columns)
    rows = (q * d**-0.5).transpose(1, 2).reshape(-1, d)
    scores = bridge.sddmm(*pattern, rows, k.reshape(-1, d))
    weights = _RunSoftmax.apply(scores, columns, flat.indptr, n * h * t)
    found = bridge.spmm(*pattern, weights, v.reshape(-1, d))
    probs = sparse.csr_array((weights.detach().numpy(), columns, flat.indptr), shape=(n * t * h, n * h * t))
    return probs, found.reshape(n, t, h, d).transpose(1, 2)


class _RunSoftmax(torch.autograd.Function):
    """Softmax over each run of stored scores, with the kernel's own gradient."""

    @staticmethod
    def forward(ctx, scores, columns, row_starts, width):
        parts = scores.detach().numpy(), columns, row_starts
        ctx.probs = csr_softmax(sparse.csr_array(parts, shape=(len(row_starts) - 1, width)))
        return torch.from_numpy(ctx.probs.data)

    @staticmethod
    def backward(ctx, gradient):
        return torch.from_numpy(csr_softmax_gradient(ctx.probs, gradient.numpy())), None, None, None
