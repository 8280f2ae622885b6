"""XAttention: block-sparse prefill attention whose blocks are chosen by antidiagonal sums.

Xu, Xiao, Huang, Guo, Han 2025, "XAttention: Block Sparse Attention with Antidiagonal Scoring", arXiv 2503.16428.
Only prefill is sparse (more than one query); the selection needs no training.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from kernels.attention.block_sparse import block_shape
from kernels.attention.cost import attention_cost
from kernels.attention.trace import AttentionTrace
from kernels.masks.block_scores import MODES as LINES
from kernels.masks.block_scores import (
    lines_read,
    pooled_block_scores,
    true_block_mass,
    visible_blocks,
    xattn_block_scores,
)
from kernels.masks.block_select import select_blocks
from workbench import judging
from workbench.models.attention.call import AttentionCall, attention_call
from workbench.models.attention.dense_attention import attention_weights

__all__ = [
    "MODES",
    "ThresholdTable",
    "block_scores",
    "coverage",
    "dp_thresholds",
    "profile_thresholds",
    "scoring_multiply_adds",
    "token_mask",
    "trace",
    "xattention",
]

MODES = (*LINES, "mean_pool", "oracle")


def block_scores(
    q,
    k,
    *,
    block_size=128,
    stride=16,
    causal=True,
    mode="antidiagonal",
    seed=0,
    norm=1.0,
    query_every=1,
    attn_mask=None,
) -> np.ndarray:
    """Score every block pair, (b, h, block rows, block columns), by one of `MODES`.

    "antidiagonal" is the paper's; "diagonal" and "random" read another line of each tile at the same cost; "double" and
    "triple" sum neighbouring keys first; "mean_pool" compares block means; "oracle" is the true mass at the cost of
    dense attention. ``norm``, ``query_every`` and ``attn_mask`` as in `kernels.masks.block_scores.xattn_block_scores`.
    """
    q, k = _array(q), _array(k)
    how = {"block_size": block_size, "causal": causal}
    if mode == "oracle":
        return true_block_mass(q, k, attn_mask=attn_mask, **how)
    if mode == "mean_pool":
        tokens = {"tq": q.shape[2], "tk": k.shape[2]}
        hidden = None if attn_mask is None else ~visible_blocks(attn_mask, **tokens, **how)
        return pooled_block_scores(q, k, hidden=hidden, **how)
    how |= {"stride": stride, "mode": mode, "seed": seed, "norm": norm, "query_every": query_every}
    return xattn_block_scores(q, k, attn_mask=attn_mask, **how)


def xattention(
    q,
    k,
    v,
    *,
    block_size=128,
    stride=16,
    threshold=0.9,
    causal=True,
    mode="antidiagonal",
    keep=None,
    scale=None,
    attn_mask=None,
):
    """Attend over the blocks that hold a share ``threshold`` of the estimated mass.

    Parameters
    ----------
    q : (b, h, tq, d) tensor of floats after position encoding. With ``causal`` queries are the last positions of the
        keys: earlier keys come from a cache. A single query (decoding) attends to everything.
    k, v : (b, hk, tk, d) and (b, hk, tk, dv), h a multiple of hk.
    block_size : from 8 to 256, a multiple of ``stride``.
    threshold : in [0, 1], one number or one per query head.
    keep : (b, h, block rows, block columns) bool block mask to use instead of choosing one.
    scale : factor on q . k; 1 / sqrt(d) unless given.
    attn_mask : bool or float mask that broadcasts to (b, h, tq, tk), as torch's scaled_dot_product_attention takes it.
        Blocks are chosen among those with a pair that may attend, by q and k alone: what is added does not enter.

    Returns
    -------
    out : (b, h, tq, dv) tensor in the dtype of q, differentiable with the chosen blocks held fixed; zero where a query
        sees no key. keep : bool array, one row per key block that holds a query.

    Raises
    ------
    TypeError, ValueError : as `workbench.models.attention.call.attention_call`, `kernels.masks.block_scores` and
        `kernels.attention.block_sparse`.

    Source
    ------
    Xu et al. 2025, Algorithm 1. *Differs from the released code:* the forced blocks are exactly the sink (the first
    block that a row may see) and the diagonal block of every row, in every chunk.
    """
    call = attention_call("xattention", q, k, v, causal=causal, scale=scale, attn_mask=attn_mask)
    if keep is None:
        keep = _chosen_blocks(call, block_size, stride, threshold, mode)
    return call.over_blocks(keep, block_size=block_size), keep


def _chosen_blocks(call: AttentionCall, block_size, stride, threshold, mode):
    tq, tk = call.q.shape[2], call.k.shape[2]
    how = {"block_size": block_size, "causal": call.causal}
    if call.causal and tq == 1 < tk:
        return np.ones((*call.q.shape[:2], *block_shape(tq, tk, **how)), bool)
    scores = block_scores(*call.for_scores(), stride=stride, mode=mode, attn_mask=call.mask_array, **how)
    eligible = None if call.attn_mask is None else visible_blocks(call.mask_array, tq=tq, tk=tk, **how)
    return select_blocks(scores, threshold, causal=call.causal, eligible=eligible)


def token_mask(keep, t, *, block_size, causal=True, queries=None) -> np.ndarray:
    """Expand a block mask to token pairs, (b, h, queries, t) bool; the queries are the last positions, all if None."""
    first = t - (t if queries is None else queries)
    start = (keep.shape[3] - keep.shape[2]) * block_size
    allowed = np.repeat(np.repeat(keep, block_size, axis=2), block_size, axis=3)[:, :, first - start : t - start, :t]
    return allowed & (np.arange(t) <= np.arange(first, t)[:, None]) if causal else allowed


def coverage(q, k, keep, *, block_size, causal=True) -> np.ndarray:
    """Return the share of the true attention mass that the kept blocks hold, (b, h) float64."""
    mass = true_block_mass(_array(q), _array(k), block_size=block_size, causal=causal)
    return (mass * keep).sum(axis=(2, 3)) / mass.sum(axis=(2, 3))


def scoring_multiply_adds(t, d, *, block_size, stride, mode="antidiagonal") -> int:
    """Count the multiply-adds of scoring one head: t^2 d / S by lines, n^2 d by block means, t^2 d by the oracle.

    The sums of neighbouring keys of "double" and "triple" are of order t d and not counted.
    """
    padded = -(-t // block_size) * block_size
    if mode == "mean_pool":
        return (padded // block_size) ** 2 * d
    return padded**2 * d // (1 if mode == "oracle" else stride)


@dataclass(frozen=True)
class ThresholdTable:
    """Best performance per number of lowered thresholds, and the thresholds that reach it.

    Parameters
    ----------
    performance : (m + 1,) float64, entry i with exactly i lowerings.
    thresholds : (m + 1, heads) float64.
    """

    performance: np.ndarray
    thresholds: np.ndarray

    def cheapest(self, at_least: float) -> np.ndarray:
        """Return the thresholds with the most lowerings whose performance is at least ``at_least``, (heads,).

        A performance that differs from it by rounding only is enough.
        """
        good = np.flatnonzero([judging.at_least(each, at_least) for each in self.performance])
        if not len(good):
            raise ValueError(f"ThresholdTable: no entry reaches {at_least}; the best is {self.performance.max()}")
        return self.thresholds[good[-1]]


def dp_thresholds(
    eval_fn: Callable[[np.ndarray], float], n_heads: int, *, start=0.9, factor=0.9, passes=1, max_steps=None
) -> ThresholdTable:
    """Lower thresholds head by head by dynamic programming ("minimum threshold prediction").

    D[h][m] = max(D[h-1][m], P(h, m)), where P(h, m) is the performance after one more step (times ``factor``) on head
    h from the state that realises D[h-1][m-1]. One pass lowers each head at most once; a further pass goes over the
    whole table again, so that a head may be lowered twice while another stays.

    Parameters
    ----------
    eval_fn : thresholds (heads,) -> performance, higher is better; pass i of p calls it about heads^2 (i - 1/2) times.
    start : a number, or one per head.
    max_steps : most lowerings in total; None for as many as the passes allow.

    Source
    ------
    Xu et al. 2025, section 2.3. The state from which P starts is our reading.
    """
    if n_heads < 1 or not 0 < factor < 1 or passes < 1:
        raise ValueError(
            f"dp_thresholds: needs heads >= 1, 0 < factor < 1, passes >= 1; got {n_heads}, {factor}, {passes}"
        )
    tau = np.full(n_heads, start, np.float64)
    best: list[tuple[float, np.ndarray]] = [(eval_fn(tau), tau)]
    for done in range(passes):
        for head in range(n_heads):
            before = list(best)
            most = done * n_heads + head + 1
            for m in range(1, (most if max_steps is None else min(most, max_steps)) + 1):
                lowered = before[m - 1][1].copy()
                lowered[head] *= factor
                value = eval_fn(lowered)
                if m == len(best):
                    best.append((value, lowered))
                elif value > best[m][0]:
                    best[m] = (value, lowered)
    return ThresholdTable(np.array([p for p, _ in best]), np.array([t for _, t in best]))


def profile_thresholds(samples, *, block_size=128, stride=16, causal=True, coverage=0.9, cap=0.96) -> np.ndarray:
    """Derive one threshold per head from the true block masses of calibration texts.

    Per head and text: take in every row the smallest set of blocks that holds ``coverage`` of the true mass; let the
    weakest estimate inside it be the bar; the threshold is the estimated mass above the bars over all. The largest
    over the texts counts, at most ``cap``.

    Parameters
    ----------
    samples : iterable of (q, k), each (1, h, t, d) float32.

    Returns
    -------
    (h,) float64.

    Source
    ------
    The authors' released profiling, described in our words.
    """
    per_text = []
    for q, k in samples:
        true = true_block_mass(_array(q), _array(k), block_size=block_size, causal=causal)
        estimate = block_scores(q, k, block_size=block_size, stride=stride, causal=causal).astype(np.float64)
        needed = select_blocks(true, coverage, causal=causal, keep_sink=False, keep_diagonal=False)
        bar = np.where(needed, estimate, np.inf).min(axis=-1, keepdims=True)
        per_text.append((estimate * (estimate >= bar)).sum(axis=(0, 2, 3)) / estimate.sum(axis=(0, 2, 3)))
    if not per_text:
        raise ValueError("profile_thresholds: samples is empty; give at least one (q, k) pair")
    return np.minimum(np.max(per_text, axis=0), cap)


def trace(
    q,
    k,
    v=None,
    *,
    block_size=128,
    stride=16,
    threshold=0.9,
    causal=True,
    mode="antidiagonal",
    seed=0,
    dense_limit=4096,
) -> AttentionTrace:
    """Return what the method does with the first head of (1, h, t, d) inputs, for views.

    Dense maps are made up to ``dense_limit`` tokens.
    """
    q, k = q[:1, :1], k[:1, :1]
    t, d = q.shape[2:]
    how = {"block_size": block_size, "causal": causal}
    scores = block_scores(q, k, stride=stride, mode=mode, seed=seed, **how)
    keep = select_blocks(scores, threshold, causal=causal)
    before = scoring_multiply_adds(t, d, block_size=block_size, stride=stride, mode=mode)
    small = t <= dense_limit
    attention = allowed = effective = read = None
    if small:
        q_t, k_t = torch.as_tensor(q), torch.as_tensor(k)
        attention = attention_weights(q_t, k_t, causal=causal)[0, 0].numpy()
        allowed = token_mask(keep, t, **how)[0, 0]
        effective = attention_weights(q_t, k_t, causal=causal, allowed=allowed)[0, 0].numpy()
        if mode in LINES:
            place = np.arange(t) % stride
            read = lines_read(stride, mode=mode, seed=seed)[place[:, None], place] > 0
    row_sum = scores.sum(-1, keepdims=True)
    return AttentionTrace(
        method=f"XAttention ({mode.replace('_', ' ')})",
        t=t,
        causal=causal,
        block_size=block_size,
        cost=attention_cost(t=t, d=d, keep=keep[0, 0], before=before, **how),
        coverage=float((attention * allowed).sum() / attention.sum()) if small else float("nan"),
        attention=attention,
        effective=effective,
        allowed=allowed,
        keep=keep[0, 0],
        estimate=(scores / np.where(row_sum == 0, 1, row_sum))[0, 0].astype(np.float32),
        read=read,
    )


def _array(x) -> np.ndarray:
    return np.ascontiguousarray(x.detach().numpy() if isinstance(x, torch.Tensor) else x)
