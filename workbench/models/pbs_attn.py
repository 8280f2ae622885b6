"""PBS-Attn: sort keys by heaviness inside segments, so that few blocks hold most of the attention.

Wang et al. 2025, "Sparser Block-Sparse Attention via Token Permutation", arXiv 2510.21270.
The order of (key, value) pairs does not change softmax attention; sorting inside segments keeps causality between
segments, and the segment on the diagonal is masked by original positions. The sort looks at the last queries, so the
method serves prefill only. Symbols: B block_size, M segment_size, L tokens.
"""

from dataclasses import dataclass

import numpy as np
import torch

from kernels.attention.block_sparse import block_sparse_attention
from kernels.masks.block_scores import mean_pool_block_scores
from kernels.masks.block_select import select_blocks
from workbench.models.attention_trace import AttentionTrace
from workbench.models.dense_attention import attention_weights, dense_flops

__all__ = [
    "PERMUTATIONS",
    "PBSMask",
    "block_coverage",
    "computed_density",
    "pbs_attention",
    "permuted_block_selection",
    "query_aware_permutation",
    "random_segment_permutation",
    "segment_permutation_is_valid",
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
    block_size, segment_size, causal : as given.
    """

    perm: np.ndarray
    query_perm: np.ndarray
    block_scores: np.ndarray
    segment_mask: np.ndarray
    keep: np.ndarray
    block_size: int
    segment_size: int
    causal: bool


def query_aware_permutation(q, k, *, block_size=128, segment_size=256, causal=True) -> np.ndarray:
    """Order the keys of every complete segment by the mean attention that the last block of queries gives them.

    Parameters
    ----------
    q, k : (b, h, L, d) float32, heads equal.
    causal : without it all L keys form one segment.

    Returns
    -------
    (b, h, L) int64, slot -> original position; heaviest first, ties by lower position; a remainder keeps its order.

    Cost
    ----
    B L d multiply-adds and a sort of M keys per segment.

    Source
    ------
    Wang et al. 2025, section 3 (query-aware key permutation). *Differs from the released code:* one segment alone is
    sorted too; a causal call needs no permutation there, and `pbs_attention` makes none.
    """
    q, k = _checked("query_aware_permutation", q, k, block_size, segment_size, causal)
    length = k.shape[2]
    segment = segment_size if causal else length
    scores = key_scores(q, k, block_size=block_size, segment_size=segment)
    return _sorted_in_segments(-scores, length, segment)


def key_scores(q, k, *, block_size=128, segment_size=256) -> np.ndarray:
    """Return the mean attention of the last ``block_size`` queries to every key of complete segments, (b, h, G M).

    No causal mask is applied: every key is scored by all of these queries.
    """
    complete = k.shape[2] // max(segment_size, 1) * segment_size
    last, keys = torch.as_tensor(q[:, :, -block_size:]), torch.as_tensor(k[:, :, :complete])
    return attention_weights(last, keys, causal=False).mean(dim=2).numpy()


def random_segment_permutation(q_shape, segment_size, *, seed=0) -> np.ndarray:
    """Return a random order inside every complete segment, (b, h, L) int64: the baseline of the sort."""
    b, h, length = q_shape[:3]
    complete = length // max(segment_size, 1) * segment_size
    return _sorted_in_segments(np.random.default_rng(seed).random((b, h, complete)), length, segment_size)


def segment_permutation_is_valid(perm, segment_size) -> bool:
    """Tell whether every segment maps onto itself and a remainder keeps its order."""
    perm = np.asarray(perm)
    length = perm.shape[-1]
    complete = length // max(segment_size, 1) * segment_size
    slots = np.arange(length)
    if not length:
        return True
    inside = np.sort(perm[..., :complete].reshape(*perm.shape[:-1], -1, segment_size), axis=-1)
    return bool(
        (inside.reshape(*perm.shape[:-1], complete) == slots[:complete]).all()
        and (perm[..., complete:] == slots[complete:]).all()
    )


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

    Raises
    ------
    ValueError : shapes or sizes do not fit, perm moves a key out of its segment, threshold out of range.

    Source
    ------
    Wang et al. 2025, section 3 (segmented permutation, block selection).
    """
    name = "permuted_block_selection"
    q, k_permuted = _checked(name, q, k_permuted, block_size, segment_size, causal)
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
    eligible = (segment[:, None] > segment) if causal else np.ones((blocks, blocks), bool)
    scores = mean_pool_block_scores(q, k_permuted, block_size=block_size, hidden=~eligible)
    chosen = select_blocks(scores, threshold, causal=False, eligible=eligible)
    everything = np.asarray(threshold, np.float64).reshape(-1, 1, 1) >= 1
    keep = chosen | same | (eligible & everything)
    if force_first and q.shape[2]:
        first = perm.argmin(axis=2) // block_size  # block of the slot that holds token 0
        keep |= (np.arange(blocks) == first[..., None])[:, :, None, :] & (eligible | same)
    return PBSMask(perm, query_perm, scores, same, keep, block_size, segment_size, causal)


def pbs_attention(
    q, k, v, *, block_size=128, segment_size=256, threshold=0.9, permute="keys", causal=True, seed=0, mask=None
):
    """Attend over the blocks chosen after sorting keys inside segments.

    Parameters
    ----------
    q, k, v : (b, h, L, d) float32 tensors after position encoding, keys repeated to the query heads.
    permute : "keys" is the method; "none" and "random" are baselines; "queries" and "both" also sort queries inside
        segments (by the same scores) and un-permute the output, for teaching.
    mask : a `PBSMask` to use instead of choosing one.

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
    name = "pbs_attention"
    if permute not in PERMUTATIONS:
        raise ValueError(f"{name}: permute must be one of {', '.join(PERMUTATIONS)}; got {permute!r}")
    q, k = _checked(name, q, k, block_size, segment_size, causal)
    v = _array(v)
    length = q.shape[2]
    if causal and length <= segment_size:
        weights = attention_weights(torch.as_tensor(q), torch.as_tensor(k))
        return weights @ torch.as_tensor(v), None
    if mask is None:
        mask = _mask(q, k, block_size, segment_size, threshold, permute, causal, seed)
    if (mask.query_perm != np.arange(length)).any():  # the kernel masks by row position, so rows go back first
        allowed = torch.as_tensor(token_mask(mask, length))
        return attention_weights(
            torch.as_tensor(q), torch.as_tensor(k), causal=causal, allowed=allowed
        ) @ torch.as_tensor(v), mask
    take = mask.perm[..., None]
    out = block_sparse_attention(
        q,
        np.take_along_axis(k, take, axis=2),
        np.take_along_axis(v, take, axis=2),
        mask.keep,
        block_size=block_size,
        causal=causal,
        key_positions=mask.perm,
    )
    return torch.from_numpy(out), mask


def token_mask(mask: PBSMask, length: int) -> np.ndarray:
    """Return the pairs that are computed, in original order, (b, h, L, L) bool."""
    key_block = np.argsort(mask.perm, axis=2) // mask.block_size  # block of each original key
    query_block = np.argsort(mask.query_perm, axis=2) // mask.block_size
    allowed = np.empty((*mask.keep.shape[:2], length, length), bool)
    for b, h in np.ndindex(*mask.keep.shape[:2]):
        allowed[b, h] = mask.keep[b, h][np.ix_(query_block[b, h], key_block[b, h])]
    return allowed & np.tri(length, dtype=bool) if mask.causal else allowed


def block_coverage(q, k, mask: PBSMask) -> np.ndarray:
    """Return the share of the true attention mass that the computed pairs hold, (b, h) float64."""
    weights = attention_weights(torch.as_tensor(_array(q)), torch.as_tensor(_array(k)), causal=mask.causal).numpy()
    held = (weights * token_mask(mask, weights.shape[2])).sum(axis=(2, 3), dtype=np.float64)
    return held / weights.sum(axis=(2, 3), dtype=np.float64)


def computed_density(mask: PBSMask) -> float:
    """Return kept tiles with at least one allowed pair over the n (n + 1) / 2 causal tiles (all n^2 if not causal).

    Diagonal segments hold tiles right of the diagonal too, so this may pass the density of the selection.
    """
    keep, block = mask.keep, mask.block_size
    blocks = keep.shape[2]
    if not mask.causal:
        return float(keep.mean())
    length = mask.perm.shape[2]
    earliest_key = _per_block(mask.perm, blocks, block, fill=length).min(axis=3)  # (b, h, n)
    latest_query = _per_block(mask.query_perm, blocks, block, fill=-1).max(axis=3)
    alive = keep & (earliest_key[:, :, None, :] <= latest_query[..., None])
    return float(alive.sum() / (keep.shape[0] * keep.shape[1] * blocks * (blocks + 1) / 2))


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
    q, k = _checked("trace", q[:1, :1], k[:1, :1], block_size, segment_size, causal)
    length, d = q.shape[2:]
    mask = _mask(q, k, block_size, segment_size, threshold, permute, causal, seed)
    blocks = mask.keep.shape[2]
    density = computed_density(mask)
    attention = allowed = effective = None
    coverage = float("nan")
    if length <= dense_limit:
        q_t, k_t = torch.as_tensor(q), torch.as_tensor(k)
        attention = attention_weights(q_t, k_t, causal=causal)[0, 0].numpy()
        allowed = token_mask(mask, length)[0, 0]
        effective = attention_weights(q_t, k_t, causal=causal, allowed=allowed)[0, 0].numpy()
        coverage = float((attention * allowed).sum() / attention.sum())
    tiles = density * (blocks * (blocks + 1) / 2 if causal else blocks**2)
    off_diagonal = mask.keep & ~mask.segment_mask
    sorting = 2 * min(block_size, length) * length * d if permute in ("keys", "queries", "both") else 0
    return AttentionTrace(
        method=f"PBS-Attn ({permute})",
        t=length,
        causal=causal,
        block_size=block_size,
        density=density,
        coverage=coverage,
        score_flops=sorting + 2 * blocks**2 * d,
        attention_flops=int(4 * tiles * block_size**2 * d),
        dense_flops=dense_flops(length, d, causal=causal),
        attention=attention,
        effective=effective,
        allowed=allowed,
        keep=mask.keep[0, 0],
        estimate=mask.block_scores[0, 0],
        order=mask.perm[0, 0],
        key_scores=key_scores(q, k, block_size=block_size, segment_size=segment_size if causal else length)[0, 0],
        facts={
            "kept blocks outside the diagonal segment": int(off_diagonal.sum()),
            "share of the tiles in diagonal segments": float((mask.keep & mask.segment_mask).sum() / mask.keep.sum()),
        },
    )


def _mask(q, k, block_size, segment_size, threshold, permute, causal, seed) -> PBSMask:
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
        np.take_along_axis(q, query_perm[..., None], axis=2),
        np.take_along_axis(k, perm[..., None], axis=2),
        perm,
        block_size=block_size,
        segment_size=segment_size,
        threshold=threshold,
        causal=causal,
        query_perm=query_perm,
    )


def _sorted_in_segments(key, length, segment_size) -> np.ndarray:
    """Stable order of ``key`` (b, h, G M) inside each segment, then the remainder in place."""
    b, h, complete = key.shape
    groups = complete // max(segment_size, 1)
    local = np.argsort(key.reshape(b, h, groups, segment_size), axis=3, kind="stable")
    order = np.empty((b, h, length), np.int64)
    order[..., :complete] = (local + segment_size * np.arange(groups)[:, None]).reshape(b, h, complete)
    order[..., complete:] = np.arange(complete, length)
    return order


def _per_block(order, blocks, block, *, fill) -> np.ndarray:
    """Cut an order (b, h, L) into blocks, (b, h, n, B), the last one filled up."""
    padded = np.full((*order.shape[:2], blocks * block), fill)
    padded[..., : order.shape[2]] = order
    return padded.reshape(*order.shape[:2], blocks, block)


def _checked(name, q, k, block_size, segment_size, causal=True):
    q, k = _array(q), _array(k)
    for label, x in (("q", q), ("k", k)):
        if x.dtype != np.float32:
            raise TypeError(f"{name}: {label} must be float32, got {x.dtype}")
        if x.ndim != 4 or x.shape != q.shape:
            raise ValueError(f"{name}: q and k must have one shape (b, h, L, d); q is {q.shape}, {label} is {x.shape}")
    if block_size < 1 or segment_size < 1 or segment_size % block_size:
        raise ValueError(f"{name}: segment_size {segment_size} must be a positive multiple of block_size {block_size}")
    if not causal and segment_size != -(-q.shape[2] // block_size) * block_size and segment_size != q.shape[2]:
        raise ValueError(
            f"{name}: without causality there is one segment; segment_size must be {q.shape[2]}, got {segment_size}"
        )
    return q, k


def _array(x) -> np.ndarray:
    return x.detach().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
