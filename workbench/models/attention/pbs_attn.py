"""PBS-Attn: sort keys by heaviness inside segments, so that few blocks hold most of the attention.

Wang et al. 2025, "Sparser Block-Sparse Attention via Token Permutation", arXiv 2510.21270.
The order of (key, value) pairs does not change softmax attention; sorting inside segments keeps causality between
segments, and the segment on the diagonal is masked by original positions. The sort looks at the last queries, so the
method serves prefill only. Symbols: B block_size, M segment_size, L tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from kernels.masks.block_scores import pooled_block_scores
from kernels.masks.block_select import select_blocks
from workbench.models.attention.dense_attention import attention_weights, dense_attention
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

PERMUTATIONS = ("keys", "queries", "both", "none", "random")


@dataclass(frozen=True)
class PBSMask:
    """Blocks that PBS attention computes, in the order of the permuted keys.

    Parameters
    ----------
    perm : (b, h, L) int64, key slot -> original position.
    query_perm : (b, h, L) int64, the same for queries (the identity in the method itself).
    block_scores : (b, h, n, n) float32, softmax over eligible blocks of block means; zero rows where none is eligible.
    segment_mask : (n, n) bool, blocks of the diagonal segment.
    keep : (b, h, n, n) bool, selected, diagonal segment, and the block that holds token 0.
    block_size, segment_size, causal, force_first : as given.
    """

    perm: np.ndarray
    query_perm: np.ndarray
    block_scores: np.ndarray
    segment_mask: np.ndarray
    keep: np.ndarray
    block_size: int
    segment_size: int
    causal: bool
    force_first: bool = True


def permuted_block_selection(
    q,
    k_permuted,
    perm,
    *,
    block_size=128,
    segment_size=256,
    threshold=0.9,
    causal=True,
    force_first=True,
    query_pool="mean",
    key_pool="mean",
    query_perm=None,
) -> PBSMask:
    """Choose blocks of permuted keys by cumulative mass of block means.

    The diagonal segment takes no part in the softmax and is always computed; ``threshold`` is the share of the mass of
    the other segments. A threshold of 1 keeps all eligible blocks, also those whose estimate underflows to zero.

    Parameters
    ----------
    q, k_permuted : (b, h, L, d) float32.
    perm : (b, h, L) slot -> original position, valid for the segments.
    threshold : in [0, 1], one number or one per head.
    force_first : keep the block that holds token 0 in every row.
    query_pool, key_pool : "mean", or "max" for the largest entry of every channel, which the released code offers too.

    Raises
    ------
    ValueError : shapes or sizes do not fit, perm moves a key out of its segment, threshold out of range.

    Source
    ------
    Wang et al. 2025, section 3 (segmented permutation, block selection). *Differs from the released code:* where
    rounding leaves the sum of a row's mass just below the threshold, that keeps no block of the row, and this the
    blocks that reach it within one part in a million.
    """
    name = "permuted_block_selection"
    q, k_permuted = checked(name, q, k_permuted, block_size, segment_size, causal)
    perm = np.asarray(perm)
    identity = np.broadcast_to(np.arange(q.shape[2]), q.shape[:3])
    query_perm = identity if query_perm is None else np.asarray(query_perm)
    span = segment_size if causal else q.shape[2]
    for label, order in (("perm", perm), ("query_perm", query_perm)):
        if order.shape != q.shape[:3] or not segment_permutation_is_valid(order, span):
            raise ValueError(f"{name}: {label} must be (b, h, L) = {q.shape[:3]} and map every segment of {span} onto "
                             f"itself, got shape {order.shape}")  # fmt: skip
    blocks = -(-q.shape[2] // block_size)
    segment = np.arange(blocks) // (segment_size // block_size)
    same = segment[:, None] == segment if causal else np.zeros((blocks, blocks), bool)
    pools = {"query_pool": query_pool, "key_pool": key_pool}
    scores = pooled_block_scores(q, k_permuted, block_size=block_size, hidden=~_eligible(same, causal), **pools)
    unselected = np.zeros(scores.shape, bool)
    mask = PBSMask(perm, query_perm, scores, same, unselected, block_size, segment_size, causal, force_first)
    return select_again(mask, threshold)


def scored_mask(q, k, *, block_size=128, segment_size=256, permute="keys", causal=True, seed=0, **choose) -> PBSMask:
    """Order keys and score blocks, the whole cost of deciding; keep only what is forced until `select_again`.

    Parameters
    ----------
    q, k, block_size, segment_size, permute, causal : as `pbs_attention`.
    seed : of the "random" order.
    choose : force_first, query_pool, key_pool, as `permuted_block_selection`.
    """
    _check_permute("scored_mask", permute)
    q, k = checked("scored_mask", q, k, block_size, segment_size, causal)
    length = q.shape[2]
    identity = np.broadcast_to(np.arange(length), q.shape[:3]).copy()
    perm = query_perm = identity
    if permute == "random":
        perm = random_segment_permutation(q.shape, segment_size if causal else length, seed=seed)
    elif permute != "none":
        ordered = query_aware_permutation(q, k, block_size=block_size, segment_size=segment_size, causal=causal)
        perm = ordered if permute in ("keys", "both") else identity
        query_perm = ordered if permute in ("queries", "both") else identity
    return permuted_block_selection(
        rows_in_order(q, query_perm),
        rows_in_order(k, perm),
        perm,
        block_size=block_size,
        segment_size=segment_size,
        threshold=0.0,
        causal=causal,
        query_perm=query_perm,
        **choose,
    )


def select_again(mask: PBSMask, threshold) -> PBSMask:
    """Choose blocks at another threshold from the scores that a mask holds: nothing is scored twice.

    Parameters
    ----------
    threshold : in [0, 1], one number or one per head.
    """
    eligible = _eligible(mask.segment_mask, mask.causal)
    chosen = select_blocks(mask.block_scores, threshold, causal=False, eligible=eligible)
    keep = chosen | mask.segment_mask
    if mask.force_first and mask.perm.shape[2]:
        first = mask.perm.argmin(axis=2) // mask.block_size  # block of the slot that holds token 0
        holds_first = (np.arange(keep.shape[3]) == first[..., None])[:, :, None, :]
        keep |= holds_first & (eligible | mask.segment_mask)
    return replace(mask, keep=keep)


def _check_permute(name, permute):
    if permute not in PERMUTATIONS:
        raise ValueError(f"{name}: permute must be one of {', '.join(PERMUTATIONS)}; got {permute!r}")


def _eligible(same, causal) -> np.ndarray:
    """Blocks that the selection may choose: those of earlier segments, or all without causality."""
    blocks = len(same)
    return np.tri(blocks, k=-1, dtype=bool) & ~same if causal else np.ones((blocks, blocks), bool)


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
    **choose,
):
    """Attend over the blocks chosen after sorting keys inside segments.

    Parameters
    ----------
    q, k, v : (b, h, L, d) float32 tensors after position encoding, keys repeated to the query heads.
    permute : "keys" is the method; "none" and "random" are baselines; "queries" and "both" also sort queries inside
        segments (by the same scores) and un-permute the output, for teaching.
    mask : a `PBSMask` to use instead of choosing one.
    choose : force_first, query_pool, key_pool, as `permuted_block_selection` and the released code have them.

    Returns
    -------
    out : (b, h, L, d) float32 tensor in the original order of queries, and the `PBSMask` (None when L <= segment_size,
        where attention is dense).

    Raises
    ------
    TypeError, ValueError : dtypes, shapes, sizes or names that do not fit.

    Source
    ------
    Wang et al. 2025, Algorithm 1. *Extension:* ``causal=False`` with one segment of all tokens.
    """
    _check_permute("pbs_attention", permute)
    q, k = checked("pbs_attention", q, k, block_size, segment_size, causal)
    v = as_array(v)
    if v.shape != q.shape:
        raise ValueError(f"pbs_attention: v must have the shape of q and k, {q.shape}, got {v.shape}")
    length = q.shape[2]
    if causal and length <= segment_size:
        return dense_attention(*map(torch.as_tensor, (q, k, v))), None
    if mask is None:
        how = {"block_size": block_size, "segment_size": segment_size, "permute": permute, "causal": causal}
        mask = select_again(scored_mask(q, k, **how, seed=seed, **choose), threshold)
    k, v = (rows_in_order(x, mask.perm) for x in (k, v))
    if (mask.query_perm != np.arange(length)).any():
        rows = _attend_sorted_queries(rows_in_order(q, mask.query_perm), k, v, mask)
        out = rows_in_order(rows, np.argsort(mask.query_perm, axis=2))
    else:
        how = {"block_size": block_size, "causal": causal, "key_positions": mask.perm}
        out = block_sparse_attention(q, k, v, computed_blocks(mask), **how)
    return torch.from_numpy(out), mask


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
