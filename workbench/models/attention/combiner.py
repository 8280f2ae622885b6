r"""Combiner: every pair of positions keeps a positive weight, at sub-quadratic cost.

Ren et al. 2021, "Combiner: Full Attention Transformer with Sparse Computation Cost", arXiv 2107.05768.
Position i attends to a few keys directly and to the rest through regions: first a region, then a key inside it, by a
distribution that does not depend on i. With q already divided by sqrt(d) and, for a region r,

.. math:: q_r = \max_{j \in r} q_j,\quad k_r = \max_{j \in r} k_j,\quad
          p(j \mid r) = \mathrm{softmax}_{j \in r}(q_r \cdot k_j),\quad v_r = \sum_j p(j \mid r) v_j

one softmax over {q_i . k_j : j direct} and {q_i . k_r : r} weighs direct values and region values together. A region
counts once, whatever its size. Symbols: b h L d, s segment length, n = L / s segments (rows of the axial patterns).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from kernels.attention.cost import attention_cost
from kernels.attention.trace import AttentionTrace
from workbench.models.attention.dense_attention import attention_weights, weighted_sum

__all__ = [
    "PATTERNS",
    "combiner_attention",
    "effective_attention",
    "multiply_adds",
    "sparse_counterpart_mask",
    "support",
    "trace",
]

_NEVER = -torch.inf


def combiner_attention(
    q, k, v, *, pattern="fixed", seg_len=None, causal=True, summary="max", key_row="wsum", span_bias=None, dropout=0.0
):
    """Attend to everything through direct keys and region summaries.

    Parameters
    ----------
    q, k : (b, h, L, d) float tensors, q not yet scaled.
    v : (b, h, L, e); e may differ from d.
    pattern : one of `PATTERNS`.
    seg_len : segment length s, or row width of the axial patterns; ceil(sqrt(L)) unless given. Not used by "logsparse".
    causal : position i sees 0..i; False is not defined for "logsparse".
    summary : how q and k of a region are pooled: "max" (the paper's), "mean", "sum", or a module from (..., m, d) to
        (..., d).
    key_row : key of an earlier row in "axial_rowmajor": "none" (k of the same column), "wsum" (attention-weighted
        keys), or a module that maps the row's output (b, h, n, s, e) to keys (b, h, n, s, d).
    span_bias : "log_size" adds the log of a region's size to its logit (our extension); None is the paper's.
    dropout : rate, on the weights inside regions only; for training.

    Returns
    -------
    (b, h, L, e), dtype of v.

    Raises
    ------
    ValueError : shapes, pattern, seg_len or summary do not fit; or not causal where that is not defined, or where L is
        no multiple of seg_len (causal input is padded at the end, which no earlier position sees).

    Cost
    ----
    See `multiply_adds`; nothing of size L x L is built.

    Source
    ------
    Ren et al. 2021, sections 3 and 4 and the released JAX code's arithmetic. *Differs:* the number of levels of
    "logsparse" is the bit length of L - 1, so that the last position misses no block.
    """
    length, seg_len = _checked(q, k, v, pattern, seg_len, causal)
    pool = _POOLS.get(summary, summary) if isinstance(summary, str) else summary
    if isinstance(pool, str):
        raise ValueError(f"combiner_attention: summary must be one of {', '.join(_POOLS)} or a module; got {summary!r}")
    if span_bias not in (None, "log_size"):
        raise ValueError(f"combiner_attention: span_bias must be None or 'log_size', got {span_bias!r}")
    inside = _Inside(pool, summary, dropout, span_bias is not None)
    q = q * q.shape[3] ** -0.5
    if pattern == "logsparse":
        return _logsparse(q, k, v, inside)
    missing = -length % seg_len
    q, k, v = (F.pad(x, (0, 0, 0, missing)).unflatten(2, (-1, seg_len)) for x in (q, k, v))  # (b, h, n, s, d)
    if pattern == "fixed":
        out = _fixed(q, k, v, inside, causal)
    elif pattern == "axial_rowmajor":
        out = _rowmajor(q, k, v, inside, causal, key_row)
    else:
        out = _axial(q, k, v, inside, _FAMILIES[pattern], causal)
    return out.flatten(2, 3)[:, :, :length]


@dataclass(frozen=True)
class _Inside:
    """What happens inside regions: how q and k are pooled, what is dropped, whether size counts."""

    pool: Callable
    summary: str | nn.Module
    dropout: float
    by_size: bool

    def weights(self, logits):
        """Softmax over a region's keys, the last axis."""
        return F.dropout(torch.softmax(logits, -1), self.dropout)

    def summaries(self, q, k, v):
        """Region keys and values, for regions that fill the second last axis of (..., m, d)."""
        p = self.weights((self.pool(q).unsqueeze(-2) * k).sum(-1))  # (..., m)
        return self.pool(k), (p.unsqueeze(-1) * v).sum(-2)

    def prefixes(self, q, k, v):
        """Summaries of the prefixes 0..t of the second last axis, for every t: (..., m, d), (..., m, e)."""
        if self.summary not in ("max", "mean", "sum"):
            raise ValueError("combiner_attention: axial patterns pool prefixes; summary must be 'max', 'mean' or 'sum'")
        if self.summary == "max":
            pooled_q, pooled_k = q.cummax(-2).values, k.cummax(-2).values
        else:
            count = torch.arange(1, q.shape[-2] + 1, dtype=q.dtype)[:, None] if self.summary == "mean" else 1
            pooled_q, pooled_k = q.cumsum(-2) / count, k.cumsum(-2) / count
        seen = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool).tril()
        return pooled_k, weighted_sum(self.weights((pooled_q @ k.mT).masked_fill(~seen, _NEVER)), v, seen)

    def beside(self, q, k, v, side):
        """Summaries of all that stands strictly before (side 1) or after (side -1) each entry, zeros at the end."""
        if side == -1:
            return tuple(x.flip(-2) for x in self.beside(*(x.flip(-2) for x in (q, k, v)), 1))
        found = self.prefixes(q, k, v)
        return tuple(torch.cat([torch.zeros_like(x[..., :1, :]), x[..., :-1, :]], -2) for x in found)

    def bias(self, size, dtype):
        """What a region's size, an int or a tensor, adds to its logit."""
        return torch.as_tensor(size, dtype=dtype).clamp(min=1).log() if self.by_size else 0.0


def _fixed(q, k, v, inside, causal):
    region_k, region_v = inside.summaries(q, k, v)  # (b, h, n, d), (b, h, n, e)
    far = torch.einsum("bhnsd,bhmd->bhnsm", q, region_k) + inside.bias(q.shape[3], q.dtype)
    return _near_and_far(q, k, v, far, causal, region_v, "bhnsm,bhme->bhnse")


def _near_and_far(q, k, v, far, causal, far_v, rule):
    """One softmax over the own segment and one region per other segment."""
    n, s = q.shape[2:4]
    segment, seen = torch.arange(n), torch.ones(s, s, dtype=torch.bool)
    seen = seen.tril() if causal else seen
    others = (segment < segment[:, None] if causal else segment != segment[:, None])[:, None, :]  # (n, 1, n)
    direct = (q @ k.mT).masked_fill(~seen, _NEVER)  # (b, h, n, s, s)
    near, away = torch.softmax(torch.cat([direct, far.masked_fill(~others, _NEVER)], -1), -1).split([s, n], -1)
    return weighted_sum(near, v, seen) + weighted_sum(away, far_v, others, rule)


def _logsparse(q, k, v, inside):
    """Blocks of one level pair up: all of the right block sees the left one as a region, the left one sees none."""
    length = q.shape[2]
    levels = max(length - 1, 0).bit_length()
    q, k, v = (F.pad(x, (0, 0, 0, (1 << levels) - length)) for x in (q, k, v))
    logits, values = [(q * k).sum(-1)], []
    for level in range(levels):
        size = 1 << level
        left_q, left_k, left_v = (x.unflatten(2, (-1, 2, size))[:, :, :, 0] for x in (q, k, v))
        region_k, region_v = inside.summaries(left_q, left_k, left_v)  # (b, h, pairs, d)
        right_q = q.unflatten(2, (-1, 2, size))[:, :, :, 1]
        logit = (right_q @ region_k.unsqueeze(-1)).squeeze(-1) + inside.bias(size, q.dtype)  # (b, h, pairs, size)
        logits.append(torch.stack([torch.full_like(logit, _NEVER), logit], 3).flatten(2))
        values.append(region_v)
    weights = torch.softmax(torch.stack(logits, -1), -1)  # (b, h, L, levels + 1)
    out = weights[..., :1] * v
    for level, region_v in enumerate(values):
        weight = weights[..., level + 1].unflatten(2, (-1, 2, 1 << level))[:, :, :, 1]
        right = weight.unsqueeze(-1) * region_v.unsqueeze(-2)  # (b, h, pairs, size, e)
        out = out + torch.stack([torch.zeros_like(right), right], 3).flatten(2, 4)
    return out[:, :, :length]


def _rowmajor(q, k, v, inside, causal, key_row):
    in_row = inside.weights(q @ k.mT)  # (b, h, n, s, s), never causal: an earlier row is complete
    row_v = in_row @ v
    if isinstance(key_row, str):
        if key_row not in ("none", "wsum"):
            raise ValueError(f"combiner_attention: key_row must be 'none', 'wsum' or a module; got {key_row!r}")
        row_k = k if key_row == "none" else in_row @ k
    else:
        row_k = key_row(row_v)
    far = torch.einsum("bhrcd,bhtcd->bhrct", q, row_k) + inside.bias(q.shape[3], q.dtype)
    return _near_and_far(q, k, v, far, causal, row_v, "bhrct,bhtce->bhrce")


def _axial(q, k, v, inside, families, causal):
    rows, width = q.shape[2:4]
    row, column = torch.arange(rows), torch.arange(width)
    others = (row < row[:, None] if causal else row != row[:, None])[:, None, :]  # (r, 1, t)
    later = (column > column[:, None]) & torch.tensor(causal)
    logits = [
        torch.einsum("bhrcd,bhtcd->bhrct", q, k).masked_fill(~others, _NEVER),
        (q @ k.mT).masked_fill(later, _NEVER),
    ]
    values = [(v, others, "bhrct,bhtce->bhrce"), (v, ~later, "bhrcu,bhrue->bhrce")]
    if "up" in families:
        turned = [x.transpose(2, 3) for x in (q, k, v)]  # columns as sequences over rows
        for side, size in ((1, row), (-1, rows - 1 - row))[: 1 if causal else 2]:
            up_k, up_v = (x.transpose(2, 3) for x in inside.beside(*turned, side))
            hidden = (column == column[:, None]) | (size == 0)[:, None, None]
            logits.append((q @ up_k.mT + inside.bias(size[:, None, None], q.dtype)).masked_fill(hidden, _NEVER))
            values.append((up_v, ~hidden, "bhrcu,bhrue->bhrce"))
    if "sides" in families:
        for side, size in ((1, column), (-1, width - 1 - column)):
            side_k, side_v = inside.beside(q, k, v, side)
            logit = torch.einsum("bhrcd,bhtcd->bhrct", q, side_k) + inside.bias(size[:, None], q.dtype)
            hidden = ~others | (size == 0)[:, None]
            logits.append(logit.masked_fill(hidden, _NEVER))
            values.append((side_v, ~hidden, "bhrct,bhtce->bhrce"))
    weights = torch.softmax(torch.cat(logits, -1), -1).split([x.shape[-1] for x in logits], -1)
    return sum(weighted_sum(w, *value) for w, value in zip(weights, values, strict=True))


_FAMILIES = {"axial_mixture": ("up", "sides"), "axial_vertical": ("up",), "axial_horizontal": ("sides",)}
PATTERNS = ("fixed", "logsparse", "axial_rowmajor", *_FAMILIES)
_POOLS: dict[str, Callable] = {"max": lambda x: x.amax(-2), "mean": lambda x: x.mean(-2), "sum": lambda x: x.sum(-2)}


def effective_attention(q, k, v=None, *, key_row="wsum", **how):
    """Return the matrix A with out = A v, (b, h, L, L); same arguments as `combiner_attention`, for small L.

    Parameters
    ----------
    v : (b, h, L, e), wanted only where ``key_row`` is a module: what it makes of a row's values are keys, so A depends
        on the values as well.

    Raises
    ------
    ValueError : key_row is a module and there is no v; or as `combiner_attention`.
    """
    if not isinstance(key_row, str):
        if v is None:
            raise ValueError("effective_attention: key_row is a module, which reads a row's values; give v")
        made = []
        combiner_attention(q, k, v, key_row=lambda rows: made.append(key_row(rows)) or made[0], **how)
        key_row = lambda _: made[0]  # noqa: E731
    length = q.shape[2]
    eye = torch.eye(length, dtype=q.dtype).expand(*q.shape[:2], length, length)
    return combiner_attention(q, k, eye, key_row=key_row, **how)


def support(pattern, length, seg_len=None, *, causal=True) -> dict:
    """Return where the weights of each position come from.

    Returns
    -------
    {"direct": (L, L) bool, "regions": per position a list of index arrays}. Direct keys and regions together cover
    0..i (or everything); in "axial_mixture" every earlier key outside the direct set lies in two regions.
    """
    seg_len = _segment(pattern, length, seg_len)
    index = np.arange(length)
    segment, column = index // seg_len, index % seg_len
    visible = index <= index[:, None] if causal else np.ones((length, length), bool)
    same_segment = segment == segment[:, None]
    if pattern == "logsparse":
        regions = [
            [np.arange(((i >> b) - 1) << b, (i >> b) << b) for b in range(i.bit_length()) if i >> b & 1]
            for i in range(length)
        ]
        return {"direct": np.eye(length, dtype=bool), "regions": regions}
    if pattern in ("fixed", "axial_rowmajor"):
        last = segment.max(initial=-1) + 1
        regions = [
            [np.flatnonzero(segment == r) for r in range(segment[i] if causal else last) if r != segment[i]]
            for i in range(length)
        ]
        return {"direct": same_segment & visible, "regions": regions}
    direct = (same_segment | (column == column[:, None])) & visible
    regions = []
    for i in range(length):
        sides, mine = (segment < segment[i], (segment > segment[i]) & (not causal)), []
        if "up" in _FAMILIES[pattern]:
            mine += [np.flatnonzero(s & (column == u)) for s in sides for u in range(seg_len) if u != column[i]]
        if "sides" in _FAMILIES[pattern]:
            for r in np.unique(segment[sides[0] | sides[1]]):
                mine += [
                    np.flatnonzero((segment == r) & (column < column[i])),
                    np.flatnonzero((segment == r) & (column > column[i])),
                ]
        regions.append([r for r in mine if len(r)])
    return {"direct": direct, "regions": regions}


def sparse_counterpart_mask(pattern, length, seg_len=None) -> np.ndarray:
    """Return the causal sparse pattern that the Combiner variant starts from, (L, L) bool.

    "fixed": own segment and the last column of earlier ones; "logsparse": offsets 0 and 2^l; axial: row and column.
    """
    seg_len = _segment(pattern, length, seg_len)
    index = np.arange(length)
    offset = index[:, None] - index
    if pattern == "logsparse":
        return (offset >= 0) & ((offset & (offset - 1)) == 0)
    same = index // seg_len == index[:, None] // seg_len
    far = index % seg_len == seg_len - 1 if pattern == "fixed" else index % seg_len == index[:, None] % seg_len
    if pattern == "axial_rowmajor":
        far = np.zeros_like(same)
    return (same | far) & (offset >= 0)


def multiply_adds(pattern, length, d, seg_len=None) -> int:
    """Count the multiply-adds of one causal head: 2 d per direct key and summary of a query, 3 d per key summarised.

    A kernel that works in whole segments, as ours does, computes later keys of a query's own segment on top of that.
    """
    seg_len = _segment(pattern, length, seg_len)
    row, column = np.divmod(np.arange(length), seg_len)
    slots = row + column + 1  # own segment so far; a summary, or a key of the same column, of each one before
    if pattern == "logsparse":
        slots = np.array([1 + i.bit_count() for i in range(length)])
    if "up" in _FAMILIES.get(pattern, ()):
        slots += (row > 0) * (seg_len - 1)
    if "sides" in _FAMILIES.get(pattern, ()):
        slots += row * (0 + (column > 0) + (column < seg_len - 1))
    return 2 * d * int(slots.sum()) + 3 * d * _summarised(pattern, length, seg_len)


def _summarised(pattern, length, seg_len) -> int:
    """Count how often a key enters a summary."""
    rows = -(-length // seg_len)
    return {
        "fixed": length,
        "logsparse": length * max(length - 1, 0).bit_length(),
        "axial_rowmajor": length * seg_len,
        "axial_vertical": length * rows,
        "axial_horizontal": 2 * length * seg_len,
        "axial_mixture": length * (rows + 2 * seg_len),
    }[pattern]


def trace(q, k, v=None, *, pattern="fixed", seg_len=None, causal=True, summary="max") -> AttentionTrace:
    """Return what the method does with the first head of (1, h, L, d) inputs, for views (L up to a few thousand)."""
    q, k = (torch.as_tensor(x)[:1, :1] for x in (q, k))
    length, d = q.shape[2:]
    attention = attention_weights(q, k, causal=causal)[0, 0]
    effective = effective_attention(q, k, pattern=pattern, seg_len=seg_len, causal=causal, summary=summary)[0, 0]
    where = support(pattern, length, seg_len, causal=causal)
    return AttentionTrace(
        method=f"Combiner ({pattern.replace('_', ' ')})",
        t=length,
        causal=causal,
        cost=attention_cost(
            t=length,
            d=d,
            causal=causal,
            allowed=where["direct"],
            summaries=list(map(len, where["regions"])),
            before=3 * d * _summarised(pattern, length, _segment(pattern, length, seg_len)),
        ),
        coverage=float((attention * torch.as_tensor(where["direct"])).sum() / attention.sum()),
        attention=attention.numpy(),
        effective=effective.numpy(),
        allowed=where["direct"],
        reached=np.tri(length, dtype=bool) if causal else np.ones((length, length), bool),
        facts={
            "segment length": _segment(pattern, length, seg_len),
            "regions of the last position": len(where["regions"][-1]) if length else 0,
            "mean L1 distance of a row to true attention": float((effective - attention).abs().sum(-1).mean()),
        },
    )


def _segment(pattern, length, seg_len) -> int:
    if pattern not in PATTERNS:
        raise ValueError(f"combiner: pattern must be one of {', '.join(PATTERNS)}; got {pattern!r}")
    seg_len = math.ceil(math.sqrt(max(length, 1))) if seg_len is None else seg_len
    if not isinstance(seg_len, int) or seg_len < 1:
        raise ValueError(f"combiner: seg_len must be an int of at least 1, got {seg_len!r}")
    return seg_len


def _checked(q, k, v, pattern, seg_len, causal):
    if q.ndim != 4 or q.shape != k.shape or v.shape[:3] != q.shape[:3]:
        raise ValueError(
            "combiner_attention: q and k must have one shape (b, h, L, d) and v (b, h, L, e); "
            f"got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    if q.shape[3] == 0:
        raise ValueError("combiner_attention: q and k must have a width d of at least 1, got 0")
    length = q.shape[2]
    seg_len = _segment(pattern, length, seg_len)
    if not causal and pattern == "logsparse":
        raise ValueError("combiner_attention: 'logsparse' is defined for causal attention only; use another pattern")
    if not causal and length % seg_len:
        told = f"L = {length} must be a multiple of seg_len = {seg_len}"
        raise ValueError(f"combiner_attention: without causality {told}")
    return length, seg_len
