"""PBS-Attn: sort keys by heaviness inside segments, so that few blocks hold most of the attention.

Wang et al. 2025, "Sparser Block-Sparse Attention via Token Permutation", arXiv 2510.21270.
The order of (key, value) pairs does not change softmax attention; sorting inside segments keeps causality between
segments, and the segment on the diagonal is masked by original positions. The sort looks at the last queries, so the
method serves prefill only. Symbols: B block_size, M segment_size, L tokens.
"""

from collections.abc import Sequence

import numpy as np
import torch

from kernels.attention.block_sparse import block_sparse_attention
from kernels.attention.cost import (
    AttentionCost,
    attention_cost,
    block_share,
    blocks_with_pairs,
    pair_share,
    pairs_in_blocks,
)
from kernels.attention.trace import AttentionTrace
from kernels.check import check_choice
from workbench.models.attention.call import AttentionCall, attention_call
from workbench.models.attention.dense_attention import attention_weights
from workbench.models.attention.pbs_mask import (
    PERMUTATIONS,
    PBSMask,
    permuted_block_selection,
    scored_mask,
    select_again,
)
from workbench.models.attention.segment_order import (
    as_array,
    checked,
    key_scores,
    query_aware_permutation,
    random_segment_permutation,
    rows_in_order,
    segment_permutation_is_valid,
)

__all__ = [
    "PERMUTATIONS",
    "PBSMask",
    "block_coverage",
    "computed_block_share",
    "computed_blocks",
    "computed_density",
    "coverage_curve",
    "diagonal_share",
    "key_scores",
    "mask_cost",
    "pbs_attention",
    "permuted_block_mass",
    "permuted_block_selection",
    "query_aware_permutation",
    "random_segment_permutation",
    "scored_mask",
    "scoring_multiply_adds",
    "segment_permutation_is_valid",
    "select_again",
    "token_mask",
    "trace",
]


def pbs_attention(
    q,
    k,
    v,
    *,
    block_size=128,
    segment_size=256,
    threshold=0.9,
    permute="keys",
    causal=True,
    seed=0,
    mask=None,
    scale=None,
    attn_mask=None,
    **choose,
):
    """Attend over the blocks chosen after sorting keys inside segments.

    Parameters
    ----------
    q : (b, h, tq, d) tensor of floats after position encoding. With ``causal`` queries are the last positions of the
        keys; else there are as many.
    k, v : (b, hk, L, d) and (b, hk, L, dv), h a multiple of hk. Every query head sorts them in its own order, so they
        are repeated.
    permute : "keys" is the method; "none" and "random" are baselines; "queries" and "both" also sort queries inside
        segments (by the same scores) and un-permute the output, for teaching: on plain float32 inputs only.
    mask : a `PBSMask` to use instead of choosing one.
    scale : factor on q . k; 1 / sqrt(d) unless given.
    attn_mask : bool or float mask that broadcasts to (b, h, tq, L), by original position, as torch's
        scaled_dot_product_attention takes it. Blocks are chosen by q and k alone: what is added does not enter.
    choose : force_first, query_pool, key_pool, as `permuted_block_selection` and the released code have them.

    Returns
    -------
    out : (b, h, tq, dv) tensor in the dtype of q and the original order of queries, differentiable with order and
        blocks held fixed; and the `PBSMask` over all L positions (None where attention is dense: when L <=
        segment_size, and for a single query after a cache).

    Raises
    ------
    TypeError, ValueError : dtypes, shapes, sizes or names that do not fit.

    Source
    ------
    Wang et al. 2025, Algorithm 1. *Extension:* ``causal=False`` with one segment of all tokens.
    """
    name = "pbs_attention"
    check_choice(permute, PERMUTATIONS, function=name, name="permute")
    call = attention_call(name, q, k, v, causal=causal, scale=scale, attn_mask=attn_mask)
    tq, length = call.q.shape[2], call.k.shape[2]
    if not causal and tq != length:
        raise ValueError(f"{name}: without causality there must be as many queries as keys, got {tq} and {length}")
    q_scored, k_scored = call.for_scores()
    before = length - tq  # keys from a cache: rows of queries that came earlier are scored as zeros and left out
    q_scored = np.pad(q_scored, [(0, 0), (0, 0), (before, 0), (0, 0)]) if before else q_scored
    checked(name, q_scored, k_scored, block_size, segment_size, causal)
    if causal and (length <= segment_size or tq == 1):
        return call.dense(), None
    if mask is None:
        how = {"block_size": block_size, "segment_size": segment_size, "permute": permute, "causal": causal}
        scored = scored_mask(q_scored, k_scored, attn_mask=_whole_mask(call, before), seed=seed, **how, **choose)
        mask = select_again(scored, threshold)
    if (mask.query_perm != np.arange(length)).any():
        return _attend_in_sorted_rows(call, q_scored, k_scored, mask), mask
    order = torch.from_numpy(mask.perm)[..., None]
    groups = call.q.shape[1] // call.k.shape[1]
    k, v = (torch.take_along_dim(x.repeat_interleave(groups, dim=1), order, dim=2) for x in (call.k, call.v))
    rows = computed_blocks(mask)[:, :, before // block_size :]
    return call.over_blocks(rows, block_size=block_size, k=k, v=v, key_positions=mask.perm), mask


def _whole_mask(call: AttentionCall, before):
    """Return the mask with rows for the queries that came earlier, which see everything."""
    mask = call.mask_array
    if mask is None or mask.shape[2] == 1 or not before:
        return mask
    return np.pad(mask, [(0, 0), (0, 0), (before, 0), (0, 0)], constant_values=mask.dtype.type(mask.dtype == bool))


def _attend_in_sorted_rows(call: AttentionCall, q, k, mask: PBSMask) -> torch.Tensor:
    """Attend where queries are sorted too, and return them to their places."""
    if call.attn_mask is not None or q.dtype != np.float32 or call.q.shape != call.v.shape or _wants_gradient(call):
        raise ValueError(
            "pbs_attention: sorted queries are for teaching and take float32 tensors of one shape without a mask or "
            "gradients; choose permute='keys'"
        )
    q, k, v = (
        rows_in_order(x, order) for x, order in ((q, mask.query_perm), (k, mask.perm), (as_array(call.v), mask.perm))
    )
    rows = _attend_sorted_queries(q, k, v, mask)
    return torch.from_numpy(rows_in_order(rows, np.argsort(mask.query_perm, axis=2)))


def _wants_gradient(call: AttentionCall) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in (call.q, call.k, call.v))


def _attend_sorted_queries(q, k, v, mask: PBSMask) -> np.ndarray:
    """Attend where queries stand out of order too: the kernel's causal rule needs them in place.

    Earlier segments need no causal rule and go through the kernel; the diagonal segments are M x M each; the two parts
    meet by their log denominators. Memory O(L d + M^2) per head.
    """
    away = mask.keep & ~mask.segment_mask
    far, far_lse = block_sparse_attention(q, k, v, away, block_size=mask.block_size, return_lse=True)
    if not mask.causal:
        return far
    out = np.empty_like(far)
    for start in range(0, q.shape[2], mask.segment_size):
        part = slice(start, start + mask.segment_size)
        q_part, k_part, v_part = (torch.from_numpy(np.ascontiguousarray(x[:, :, part])) for x in (q, k, v))
        seen = mask.perm[:, :, None, part] <= mask.query_perm[:, :, part, None]
        logits = (q_part @ k_part.mT * q.shape[3] ** -0.5).masked_fill(~torch.from_numpy(seen), -torch.inf)
        lse = torch.logsumexp(logits, -1, keepdim=True)
        away_lse = torch.from_numpy(np.ascontiguousarray(far_lse[:, :, part, None]))
        near_share = torch.sigmoid(lse - away_lse)
        near = torch.softmax(logits, -1) @ v_part
        out[:, :, part] = near_share * near + (1 - near_share) * torch.from_numpy(far[:, :, part])
    return out


def token_mask(mask: PBSMask, length: int) -> np.ndarray:
    """Return the pairs that are computed, in original order, (b, h, L, L) bool."""
    key_block = np.argsort(mask.perm, axis=2) // mask.block_size  # block of each original key
    query_block = np.argsort(mask.query_perm, axis=2) // mask.block_size
    allowed = np.empty((*mask.keep.shape[:2], length, length), bool)
    for b, h in np.ndindex(*mask.keep.shape[:2]):
        allowed[b, h] = mask.keep[b, h][np.ix_(query_block[b, h], key_block[b, h])]
    return allowed & np.tri(length, dtype=bool) if mask.causal else allowed


def permuted_block_mass(q, k, mask: PBSMask) -> np.ndarray:
    """Sum the true attention of every tile in the order of the mask, (b, h, n, n) float64.

    The oracle of block choices, at the cost of dense attention; rows go by in chunks, so memory stays O(L).
    """
    q, k = as_array(q), as_array(k)
    b, h, length = q.shape[:3]
    block, blocks = mask.block_size, mask.keep.shape[2]
    chunk = max(1, 512 // block)  # block rows at a time
    mass = np.empty((b, h, blocks, blocks))
    for at in np.ndindex(b, h):
        keys = torch.as_tensor(np.ascontiguousarray(k[at][mask.perm[at]]))
        for start in range(0, blocks, chunk):
            rows = mask.query_perm[at][start * block : (start + chunk) * block]
            logits = torch.as_tensor(np.ascontiguousarray(q[at][rows])) @ keys.T * q.shape[3] ** -0.5
            if mask.causal:
                logits.masked_fill_(torch.as_tensor(mask.perm[at] > rows[:, None]), -torch.inf)
            weights = torch.softmax(logits, -1).numpy()
            columns = np.add.reduceat(weights, np.arange(0, length, block), axis=1, dtype=np.float64)
            mass[at][start : start + chunk] = np.add.reduceat(columns, np.arange(0, len(rows), block), axis=0)
    return mass


def block_coverage(q, k, mask: PBSMask) -> np.ndarray:
    """Return the share of the true attention mass that the computed pairs hold, (b, h) float64."""
    mass = permuted_block_mass(q, k, mask)
    return (mass * mask.keep).sum(axis=(2, 3)) / mass.sum(axis=(2, 3))


def coverage_curve(q, k, thresholds: Sequence[float], **how) -> tuple[np.ndarray, np.ndarray]:
    """Return density and coverage at many thresholds from one scoring pass and one pass over the true attention.

    Parameters
    ----------
    q, k : (b, h, L, d) float32.
    how : as `scored_mask`.

    Returns
    -------
    density : (n,) over all heads. coverage : (n,), the mean over heads.
    """
    scored = scored_mask(q, k, **how)
    mass = permuted_block_mass(q, k, scored)
    total = mass.sum(axis=(2, 3))
    masks = [select_again(scored, threshold) for threshold in thresholds]
    coverage = [float(((mass * mask.keep).sum(axis=(2, 3)) / total).mean()) for mask in masks]
    pairs = pairs_in_blocks(scored.perm.shape[2], **_order(scored))  # the same for every threshold
    pairs = np.broadcast_to(pairs, scored.keep.shape)
    density = [float(np.sum(pairs, where=mask.keep) / pairs.sum()) for mask in masks]
    return np.array(density), np.array(coverage)


def computed_blocks(mask: PBSMask) -> np.ndarray:
    """Return the kept blocks that hold a pair, (b, h, n, n) bool: where keys are sorted, also right of the diagonal."""
    return mask.keep & blocks_with_pairs(mask.perm.shape[2], **_order(mask))


def computed_density(mask: PBSMask) -> float:
    """Return the pairs that are computed over those of dense attention under the same causal rule, in [0, 1]."""
    return pair_share(mask.keep, mask.perm.shape[2], **_order(mask))


def computed_block_share(mask: PBSMask) -> float:
    """Return the computed blocks over those of dense attention: above 1 where sorting makes more of them necessary."""
    return block_share(mask.keep, mask.perm.shape[2], **_order(mask))


def diagonal_share(mask: PBSMask) -> float:
    """Return how many of the computed blocks lie in diagonal segments, in [0, 1]."""
    blocks = computed_blocks(mask)
    return float((blocks & mask.segment_mask).sum() / blocks.sum()) if blocks.any() else 0.0


def mask_cost(mask: PBSMask, d: int, *, permute) -> AttentionCost:
    """Count what the first head of a mask costs, in the order of its sorted keys and queries."""
    order = _order(mask) | {"key_positions": mask.perm[0, 0], "query_positions": mask.query_perm[0, 0]}
    t = mask.perm.shape[2]
    span = mask.segment_size if mask.causal else t
    before = scoring_multiply_adds(t, d, block_size=mask.block_size, segment_size=span, permute=permute)
    return attention_cost(t=t, d=d, keep=mask.keep[0, 0], before=before, **order)


def _order(mask: PBSMask):
    """Return what tells `kernels.attention.cost` which pairs a block holds."""
    return {
        "block_size": mask.block_size,
        "causal": mask.causal,
        "key_positions": mask.perm,
        "query_positions": mask.query_perm,
    }


def trace(
    q,
    k,
    v=None,
    *,
    block_size=128,
    segment_size=256,
    threshold=0.9,
    permute="keys",
    causal=True,
    seed=0,
    dense_limit=4096,
) -> AttentionTrace:
    """Return what the method does with the first head of (1, h, L, d) inputs, for views.

    Dense maps are made up to ``dense_limit`` tokens.
    """
    q, k = as_array(q)[:1, :1], as_array(k)[:1, :1]
    how = {"block_size": block_size, "segment_size": segment_size, "permute": permute, "causal": causal}
    mask = select_again(scored_mask(q, k, **how, seed=seed), threshold)
    length, d = q.shape[2:]
    attention = allowed = effective = None
    coverage = float("nan")
    if length <= dense_limit:
        q_t, k_t = torch.as_tensor(q), torch.as_tensor(k)
        attention = attention_weights(q_t, k_t, causal=causal)[0, 0].numpy()
        allowed = token_mask(mask, length)[0, 0]
        effective = attention_weights(q_t, k_t, causal=causal, allowed=allowed)[0, 0].numpy()
        coverage = float((attention * allowed).sum() / attention.sum())
    off_diagonal = mask.keep & ~mask.segment_mask
    span = segment_size if causal else length
    return AttentionTrace(
        method=f"PBS-Attn ({permute})",
        t=length,
        causal=causal,
        block_size=block_size,
        cost=mask_cost(mask, d, permute=permute),
        coverage=coverage,
        attention=attention,
        effective=effective,
        allowed=allowed,
        keep=computed_blocks(mask)[0, 0],
        estimate=mask.block_scores[0, 0],
        order=mask.perm[0, 0],
        key_scores=key_scores(q, k, block_size=block_size, segment_size=span)[0, 0],
        facts={
            "kept blocks outside the diagonal segment": int(off_diagonal.sum()),
            "share of the kept blocks that lie in diagonal segments": diagonal_share(mask),
        },
    )


def scoring_multiply_adds(length, d, *, block_size, segment_size, permute="keys") -> int:
    """Count the multiply-adds of deciding what to skip, one head: one block of queries against all keys of complete
    segments (if anything is sorted by score), and block means against block means."""
    scored = length // segment_size * segment_size if permute in ("keys", "queries", "both") else 0
    return min(block_size, length) * scored * d + (-(-length // block_size)) ** 2 * d
