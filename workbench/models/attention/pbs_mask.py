"""Which blocks PBS-Attn computes: keys in their order, scored by block, chosen by cumulative mass.

Wang et al. 2025, "Sparser Block-Sparse Attention via Token Permutation", arXiv 2510.21270. Symbols as in
`workbench.models.attention.pbs_attn`.
"""

from dataclasses import dataclass, replace

import numpy as np

from kernels.check import check_choice
from kernels.masks.block_scores import pooled_block_scores, visible_blocks
from kernels.masks.block_select import select_blocks
from workbench.models.attention.segment_order import (
    checked,
    query_aware_permutation,
    random_segment_permutation,
    rows_in_order,
    segment_permutation_is_valid,
)

__all__ = ["PERMUTATIONS", "PBSMask", "permuted_block_selection", "scored_mask", "select_again"]

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
    visible : (b, h, n, n) bool, blocks with a pair that a mask on pairs of tokens lets attend; None without a mask.
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
    visible: np.ndarray | None = None


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
    attn_mask=None,
) -> PBSMask:
    """Choose blocks of permuted keys by cumulative mass of block means.

    The diagonal segment takes no part in the softmax and is always computed; ``threshold`` is the share of the mass of
    the other segments. A threshold of 1 keeps all eligible blocks, also those whose estimate underflows to zero.

    Parameters
    ----------
    q, k_permuted : (b, h, L, d) float32 or float64.
    perm : (b, h, L) slot -> original position, valid for the segments.
    threshold : in [0, 1], one number or one per head.
    force_first : keep the block that holds token 0 in every row.
    query_pool, key_pool : "mean", or "max" for the largest entry of every channel, which the released code offers too.
    attn_mask : bool or float (-inf hides), (b or 1, h or 1, L or 1, L or 1) by original position: blocks without a pair
        that may attend take no part.

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
    hidden = ~_eligible(same, causal)
    visible = None if attn_mask is None else _visible_in_order(attn_mask, perm, query_perm, block_size)
    hidden = hidden if visible is None else hidden | ~visible
    scores = pooled_block_scores(q, k_permuted, block_size=block_size, hidden=hidden, **pools)
    unselected = np.zeros(scores.shape, bool)
    mask = PBSMask(perm, query_perm, scores, same, unselected, block_size, segment_size, causal, force_first, visible)
    return select_again(mask, threshold)


def _visible_in_order(attn_mask, perm, query_perm, block_size):
    """Return which blocks of sorted queries and keys hold a pair that may attend, (b, h, n, n) bool, head by head."""
    b, h, length = perm.shape
    blocks = -(-length // block_size)
    visible = np.empty((b, h, blocks, blocks), bool)
    for at in np.ndindex(b, h):
        mine = attn_mask[tuple(np.minimum(at, np.array(attn_mask.shape[:2]) - 1))]
        mine = mine[query_perm[at]] if len(mine) > 1 else mine
        mine = mine[:, perm[at]] if mine.shape[1] > 1 else mine
        visible[at] = visible_blocks(mine, tq=length, tk=length, block_size=block_size)
    return visible


def scored_mask(
    q, k, *, block_size=128, segment_size=256, permute="keys", causal=True, seed=0, attn_mask=None, **choose
) -> PBSMask:
    """Order keys and score blocks, the whole cost of deciding; keep only what is forced until `select_again`.

    Parameters
    ----------
    q, k : (b, h, L, d) float32 or float64, keys repeated to the query heads.
    block_size, segment_size, permute, causal : as `pbs_attention`.
    seed : of the "random" order.
    attn_mask : as `permuted_block_selection`.
    choose : force_first, query_pool, key_pool, as `permuted_block_selection`.
    """
    check_choice(permute, PERMUTATIONS, function="scored_mask", name="permute")
    q, k = checked("scored_mask", q, k, block_size, segment_size, causal)
    length = q.shape[2]
    identity = np.broadcast_to(np.arange(length), q.shape[:3]).copy()
    perm = query_perm = identity
    if permute == "random":
        perm = random_segment_permutation(q.shape, segment_size if causal else length, seed=seed)
    elif permute != "none":
        how = {"block_size": block_size, "segment_size": segment_size, "causal": causal}
        ordered = query_aware_permutation(q, k, attn_mask=attn_mask, **how)
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
        attn_mask=attn_mask,
        **choose,
    )


def select_again(mask: PBSMask, threshold) -> PBSMask:
    """Choose blocks at another threshold from the scores that a mask holds: nothing is scored twice.

    Parameters
    ----------
    threshold : in [0, 1], one number or one per head.
    """
    seen = np.ones((), bool) if mask.visible is None else mask.visible
    eligible = _eligible(mask.segment_mask, mask.causal) & seen
    chosen = select_blocks(mask.block_scores, threshold, causal=False, eligible=eligible)
    keep = chosen | (mask.segment_mask & seen)
    if mask.force_first and mask.perm.shape[2]:
        first = mask.perm.argmin(axis=2) // mask.block_size  # block of the slot that holds token 0
        holds_first = (np.arange(keep.shape[3]) == first[..., None])[:, :, None, :]
        keep |= holds_first & (eligible | (mask.segment_mask & seen))
    return replace(mask, keep=keep)


def _eligible(same, causal) -> np.ndarray:
    """Blocks that the selection may choose: those of earlier segments, or all without causality."""
    blocks = len(same)
    return np.tri(blocks, k=-1, dtype=bool) & ~same if causal else np.ones((blocks, blocks), bool)
