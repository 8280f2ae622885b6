"""Orders of keys inside segments, the first half of PBS-Attn: by the last queries' attention, or at random.

Wang et al. 2025, "Sparser Block-Sparse Attention via Token Permutation", arXiv 2510.21270. An order is (b, h, L) int64,
slot -> original position. Symbols: B block_size, M segment_size, G = L // M complete segments.
"""

import numpy as np
import torch

from workbench.models.attention.dense_attention import attention_weights

__all__ = [
    "as_array",
    "checked",
    "key_scores",
    "query_aware_permutation",
    "random_segment_permutation",
    "rows_in_order",
    "segment_permutation_is_valid",
]


def query_aware_permutation(q, k, *, block_size=128, segment_size=256, causal=True, attn_mask=None) -> np.ndarray:
    """Order the keys of every complete segment by the mean attention that the last block of queries gives them.

    Parameters
    ----------
    q, k : (b, h, L, d) float32 or float64, heads equal.
    causal : without it all L keys form one segment.
    attn_mask : as `key_scores`.

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
    q, k = checked("query_aware_permutation", q, k, block_size, segment_size, causal)
    length = k.shape[2]
    segment = segment_size if causal else length
    scores = key_scores(q, k, block_size=block_size, segment_size=segment, attn_mask=attn_mask)
    return _sorted_in_segments(-scores, length, segment)


def key_scores(q, k, *, block_size=128, segment_size=256, attn_mask=None) -> np.ndarray:
    """Return the mean attention of the last ``block_size`` queries to every key of complete segments, (b, h, G M).

    No causal mask is applied: every key is scored by all of these queries.

    Parameters
    ----------
    attn_mask : bool or float (-inf hides), (b or 1, h or 1, L or 1, L or 1). The last queries are then those that see a
        key at all (if it has one row for all: whose own key is seen), and hidden pairs do not count; what is added to
        the others is left out.
    """
    complete = k.shape[2] // max(segment_size, 1) * segment_size
    queries, keys = torch.as_tensor(q), torch.as_tensor(k[:, :, :complete])
    if attn_mask is None:
        return attention_weights(queries[:, :, -block_size:], keys, causal=False).mean(dim=2).numpy()
    b, h, length = q.shape[:3]
    visible = torch.as_tensor(attn_mask if attn_mask.dtype == bool else attn_mask > -np.inf)
    one_row, visible = visible.shape[2] == 1, visible.expand(b, h, length, length)
    scores = np.zeros((b, h, complete), q.dtype)
    for at in np.ndindex(b, h):
        asks = visible[at][0] if one_row else visible[at].any(1)
        rows = torch.nonzero(asks)[-block_size:, 0]
        weights = attention_weights(
            queries[at][None, None, rows], keys[at][None, None], causal=False, allowed=visible[at][rows][:, :complete]
        )
        scores[at] = weights[0, 0].sum(dim=0).numpy() / max(len(rows), 1)
    return scores


def random_segment_permutation(q_shape, segment_size, *, seed=0) -> np.ndarray:
    """Return a random order inside every complete segment, (b, h, L) int64: the baseline of the sort."""
    b, h, length = q_shape[:3]
    complete = length // max(segment_size, 1) * segment_size
    return _sorted_in_segments(np.random.default_rng(seed).random((b, h, complete)), length, segment_size)


def rows_in_order(x, order) -> np.ndarray:
    """Return every head's rows in its own order: (b, h, L, d) by (b, h, L) -> (b, h, L, d), contiguous."""
    out = np.empty_like(x, order="C")
    for at in np.ndindex(x.shape[:2]):
        np.take(x[at], order[at], axis=0, out=out[at])
    return out


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


def _sorted_in_segments(key, length, segment_size) -> np.ndarray:
    """Stable order of ``key`` (b, h, G M) inside each segment, then the remainder in place."""
    b, h, complete = key.shape
    groups = complete // max(segment_size, 1)
    local = np.argsort(key.reshape(b, h, groups, segment_size), axis=3, kind="stable")
    order = np.empty((b, h, length), np.int64)
    order[..., :complete] = (local + segment_size * np.arange(groups)[:, None]).reshape(b, h, complete)
    order[..., complete:] = np.arange(complete, length)
    return order


def checked(name, q, k, block_size, segment_size, causal=True):
    """Return q and k as arrays, or raise what names the argument that does not fit."""
    q, k = as_array(q), as_array(k)
    for label, x in (("q", q), ("k", k)):
        if x.dtype not in (np.float32, np.float64) or x.dtype != q.dtype:
            raise TypeError(f"{name}: {label} must be float32 or float64 and both the same, got {x.dtype}")
        if x.ndim != 4 or x.shape != q.shape:
            raise ValueError(f"{name}: q and k must have one shape (b, h, L, d); q is {q.shape}, {label} is {x.shape}")
    if block_size < 1 or segment_size < 1 or segment_size % block_size:
        raise ValueError(f"{name}: segment_size {segment_size} must be a positive multiple of block_size {block_size}")
    if not causal and segment_size != -(-q.shape[2] // block_size) * block_size and segment_size != q.shape[2]:
        raise ValueError(
            f"{name}: without causality there is one segment; segment_size must be {q.shape[2]}, got {segment_size}"
        )
    return q, k


def as_array(x) -> np.ndarray:
    """Return a tensor's or an array's values, uncopied."""
    return x.detach().numpy() if isinstance(x, torch.Tensor) else np.asanyarray(x)
