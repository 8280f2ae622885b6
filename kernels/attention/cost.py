r"""What attention under a mask costs, in one vocabulary: pairs, blocks, multiply-adds, bytes.

Every method is counted in one kernel that goes over blocks of queries and keys, as `block_sparse` does, and beside it
stands the same kernel under the dense mask of the same input: all pairs, or those of the causal rule. With t tokens and
blocks of B:

- pairs: a query and a key whose score counts, exact at ragged ends and under the causal rule;
- blocks: those that hold at least one pair;
- multiply-adds: 2 d for every pair, one d for the score and one for the weighted sum of values;
- bytes: queries and output once, and the keys and values of a block once for every kept block, 4 bytes a number.

So a method that keeps every pair in place costs exactly what dense attention does. A kernel computes a block that the
mask cuts whole: how much that is, the blocks tell beside the pairs.
"""

import math
from dataclasses import dataclass

import numpy as np

from kernels.check import as_int, check_array

__all__ = [
    "AttentionCost",
    "Cost",
    "attention_cost",
    "block_share",
    "blocks_with_pairs",
    "dense_pairs",
    "kept_pairs",
    "pair_share",
    "pairs_in_blocks",
]

DENSE_BLOCK = 64  # of methods that have no blocks of their own
FLOAT_BYTES = 4
RUNNING_COUNTS = 2**22
MOST_BLOCKS = 2**28


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one head's attention costs: pairs, blocks that hold one, multiply-adds, and bytes moved.

    ``least_bytes`` are those that move where a cache keeps every key and value that was read once: what a lower bound
    of the time may count.
    """

    pairs: int
    blocks: int
    multiply_adds: int
    bytes: int
    least_bytes: int


@dataclass(frozen=True, kw_only=True)
class AttentionCost:
    """What a method costs on one head, and what the dense kernel costs under the same mask; see `attention_cost`.

    Parameters
    ----------
    block_size : tokens per block in which both are counted.
    kept : of the pairs that the method keeps, its summaries included in multiply-adds, blocks and bytes.
    dense : of all pairs, or of those of the causal rule.
    summaries : scores of a query with a key that stands for several, which is no pair.
    before : multiply-adds of the method's own steps before it attends: choosing, sorting, summarising keys.
    """

    block_size: int
    kept: Cost
    dense: Cost
    summaries: int = 0
    before: int = 0

    def __post_init__(self):
        if not 0 <= self.kept.pairs <= self.dense.pairs:
            raise ValueError(
                f"AttentionCost: the pairs kept must be from 0 to those of dense attention, {self.dense.pairs:,}, but "
                f"they are {self.kept.pairs:,}; count pairs that the causal rule forbids in neither"
            )

    @property
    def density(self) -> float:
        """Pairs kept over the pairs of dense attention under the same mask, in [0, 1]; 0 without tokens."""
        return self.kept.pairs / self.dense.pairs if self.dense.pairs else 0.0


def attention_cost(
    *,
    t,
    d,
    causal,
    keep=None,
    allowed=None,
    pairs=None,
    block_size=DENSE_BLOCK,
    key_positions=None,
    query_positions=None,
    summaries=None,
    before=0,
) -> AttentionCost:
    """Count what one head costs, from the blocks that it keeps or from its pairs.

    Parameters
    ----------
    t, d : tokens, and width of the head.
    causal : whether dense attention, too, sees only keys at a query's own position or before.
    keep : (n, n) bool, kept blocks of ``block_size`` tokens, n = ceil(t / block_size); under ``causal`` the pairs in
        them that look ahead do not count.
    allowed : (t, t) bool, the pairs themselves where there are no blocks, none of which looks ahead under ``causal``.
    pairs : (n, n) integers, how many pairs are kept in each block, where the pairs themselves are too many to hold.
    key_positions, query_positions : (t,) original position of each key and query slot, where ``keep`` is in the order
        of sorted keys or queries.
    summaries : (t,) int, how many keys that stand for several each query is scored with, beside its pairs.
    before : multiply-adds of the method's own steps before it attends.

    Raises
    ------
    ValueError : more pairs than dense attention has.
    """
    name = "attention_cost"
    t, block_size, *orders = _tokens(name, t, block_size, key_positions, query_positions)
    d, before = as_int(d, function=name, name="d", low=1), as_int(before, function=name, name="before", low=0)
    dense = _pairs(t, block_size, causal)
    own = np.zeros(t, np.int64) if summaries is None else np.asarray(summaries)
    if own.shape != (t,) or own.dtype.kind not in "iu" or (own.size and own.min() < 0):
        raise ValueError(f"{name}: summaries must be ({t},) integers of at least 0, got {own.dtype} {own.shape}")
    if keep is not None:
        kept = _pairs(t, block_size, causal, *orders)
        kept = np.where(keep, _of_mask(name, keep, kept), 0)
        if kept.ndim != 2:
            raise ValueError(f"{name}: keep and the positions must be of one head, got shape {kept.shape}")
    elif allowed is not None:
        check_array(allowed, function=name, name="allowed", dtypes=(np.bool_,))
        if allowed.shape != (t, t):
            raise ValueError(f"{name}: allowed must have shape ({t}, {t}), got {allowed.shape}")
        kept = _by_block(allowed, block_size)
    elif pairs is not None:
        check_array(pairs, function=name, name="pairs", dtypes=(np.int64, np.int32))
        if pairs.shape != dense.shape or (pairs < 0).any() or (pairs > dense).any():
            raise ValueError(
                f"{name}: pairs must have shape {dense.shape} and at most the pairs that dense attention has in each "
                f"block, got shape {pairs.shape}"
            )
        kept = pairs
    else:
        kept = np.zeros_like(dense)
    return AttentionCost(
        block_size=block_size,
        kept=_cost(kept, own.astype(np.int64), t, d, block_size),
        dense=_cost(dense, np.zeros(t, np.int64), t, d, block_size),
        summaries=int(own.sum()),
        before=before,
    )


def dense_pairs(t, *, causal) -> int:
    """Count the pairs of dense attention: t (t + 1) / 2 under the causal rule, else t^2."""
    t = as_int(t, function="dense_pairs", name="t", low=0)
    return t * (t + 1) // 2 if causal else t * t


def kept_pairs(keep, t, *, block_size, causal=False, key_positions=None, query_positions=None, queries=None) -> int:
    """Count the pairs in kept blocks, over all batches and heads; other arguments as `pairs_in_blocks`.

    Parameters
    ----------
    keep : (..., block rows, block columns) bool.
    """
    t, block_size, *order = _tokens("kept_pairs", t, block_size, key_positions, query_positions, queries)
    pairs = _of_mask("kept_pairs", keep, _pairs(t, block_size, causal, *order))
    return int(np.sum(pairs, where=keep, dtype=np.int64))


def pair_share(keep, t, *, block_size, causal=False, key_positions=None, query_positions=None) -> float:
    """Return the density of a block mask (..., rows, columns): its pairs over those of dense attention, in [0, 1]."""
    t, block_size, *order = _tokens("pair_share", t, block_size, key_positions, query_positions)
    pairs = _of_mask("pair_share", keep, _pairs(t, block_size, causal, *order))
    every = np.sum(pairs, dtype=np.int64)
    return float(np.sum(pairs, where=keep, dtype=np.int64) / every) if every else 0.0


def block_share(keep, t, *, block_size, causal=False, key_positions=None, query_positions=None) -> float:
    """Return the blocks of a mask (..., rows, columns) that hold a pair over those of dense attention with its keys in
    place: the work of a kernel that computes blocks whole. Above 1 where sorted keys bring pairs into more blocks."""
    t, block_size, *orders = _tokens("block_share", t, block_size, key_positions, query_positions)
    holds = _of_mask("block_share", keep, _holding(t, block_size, causal, *orders))
    dense = np.count_nonzero(_holding(t, block_size, causal)) * math.prod(keep.shape[:-2])
    return float(np.count_nonzero(keep & holds) / dense) if dense else 0.0


def blocks_with_pairs(t, *, block_size, causal=False, key_positions=None, query_positions=None) -> np.ndarray:
    """Tell which blocks (..., n, n) hold a pair of the dense mask, without counting them; arguments as
    `pairs_in_blocks`."""
    t, block_size, *orders = _tokens("blocks_with_pairs", t, block_size, key_positions, query_positions)
    return _holding(t, block_size, causal, *orders)


def pairs_in_blocks(
    t, *, block_size, causal=False, key_positions=None, query_positions=None, queries=None
) -> np.ndarray:
    """Count the pairs of the dense mask in every block: fewer at ragged ends, and where causality cuts.

    Parameters
    ----------
    t : keys, and queries unless ``queries`` says otherwise.
    causal : a query sees only keys at its own position or before.
    key_positions, query_positions : (..., t) original positions of the slots where they were permuted, else None; used
        by ``causal``.
    queries : under ``causal``, the last so many positions; block rows begin where blocks of keys do, as in
        `kernels.masks.block_scores`.

    Returns
    -------
    (rows, columns) integers, or (..., rows, columns) with positions.

    Raises
    ------
    TypeError, ValueError : t, block_size or queries is no integer of its range, positions are no permutations of the
        tokens, or there would be more than 2^28 blocks.
    """
    t, block_size, *order = _tokens("pairs_in_blocks", t, block_size, key_positions, query_positions, queries)
    return _pairs(t, block_size, causal, *order)


def _tokens(function, t, block_size, key_positions=None, query_positions=None, queries=None):
    """Return the arguments that say which pairs blocks hold, checked."""
    t = as_int(t, function=function, name="t", low=0)
    block_size = min(as_int(block_size, function=function, name="block_size", low=1), 2**31)
    if queries is not None:
        queries = as_int(queries, function=function, name="queries", low=0, high=2**31)
    most = max(t, queries or 0)
    if -(-most // block_size) * -(-t // block_size) > MOST_BLOCKS or t > 2**31:
        raise ValueError(
            f"{function}: {most:,} tokens in blocks of {block_size:,} make more than {MOST_BLOCKS:,} blocks; take "
            "larger blocks"
        )
    orders = [key_positions, query_positions]
    for at, (name, order) in enumerate(zip(("key_positions", "query_positions"), orders, strict=True)):
        if order is None:
            continue
        check_array(order, function=function, name=name, dtypes=(np.int64, np.int32))
        if order.ndim < 1 or order.shape[-1] != t or not (np.sort(order, axis=-1) == np.arange(t)).all():
            raise ValueError(f"{function}: {name} must hold every position from 0 to {t - 1} once, got {order.shape}")
        orders[at] = order
    return t, block_size, *orders, queries


def _pairs(t, block_size, causal, key_positions=None, query_positions=None, queries=None):
    first = t - (t if queries is None else queries) if causal else 0
    stop = t if causal or queries is None else queries
    edges = block_size * np.arange(first // block_size, -(-stop // block_size) + 1)
    borders = np.minimum(block_size * np.arange(-(-t // block_size) + 1), t)
    if t * block_size < 2**31:  # long masks have millions of blocks
        edges, borders = edges.astype(np.int32), borders.astype(np.int32)
    edges, columns = np.clip(edges, first, stop), np.diff(borders)
    if not causal:
        return np.multiply.outer(np.diff(edges), columns)
    if key_positions is None and query_positions is None:
        past = edges[:, None] - borders[:-1]  # queries before an edge that lie past the first key of a block
        cut = np.clip(past, 0, columns)
        before = cut * (cut + 1) // 2 + np.maximum(past - columns, 0) * columns
        return np.diff(before, axis=0)
    slots = np.arange(t)
    keys, asking = (slots if order is None else order for order in (key_positions, query_positions))
    shape = np.broadcast_shapes(keys.shape, asking.shape)
    found = np.empty((*shape[:-1], len(columns), len(columns)), np.int64)
    keys, asking = np.broadcast_to(keys, shape), np.broadcast_to(asking, shape)
    for at in np.ndindex(*shape[:-1]):
        found[at] = _permuted_pairs(keys[at], asking[at], block_size)
    return found


def _holding(t, block_size, causal, key_positions=None, query_positions=None, queries=None):
    if not causal:
        return np.ones((-(-t // block_size),) * 2, bool)
    slots = np.arange(t)
    starts = np.arange(0, t, block_size)
    keys, asking = (slots if order is None else order for order in (key_positions, query_positions))
    earliest = np.minimum.reduceat(keys, starts, axis=-1) if t else keys
    latest = np.maximum.reduceat(asking, starts, axis=-1) if t else asking
    return earliest[..., None, :] <= latest[..., :, None]


def _of_mask(function, keep, pairs):
    """Return what is known of every block in the shape of a mask, after checking that it is one of these tokens."""
    check_array(keep, function=function, name="keep", dtypes=(np.bool_,))
    if keep.shape[-2:] != pairs.shape[-2:]:
        raise ValueError(
            f"{function}: keep must have {' x '.join(map(str, pairs.shape[-2:]))} blocks for these tokens and this "
            f"block size, got shape {keep.shape}"
        )
    try:
        return np.broadcast_to(pairs, keep.shape)
    except ValueError:
        raise ValueError(
            f"{function}: keep has shape {keep.shape}, which does not fit positions for {pairs.shape[:-2]} heads"
        ) from None


def _permuted_pairs(keys, asking, block_size):
    """Count pairs with key position <= query position in every block: a running count of keys, read at every query."""
    t = len(keys)
    starts = np.arange(0, t, block_size)
    found = np.zeros((len(starts), len(starts)), np.int64)
    key_block, query_block = np.empty(t, np.int64), np.empty(t, np.int64)
    key_block[keys], query_block[asking] = np.arange(t) // block_size, np.arange(t) // block_size
    seen = np.zeros(len(starts), np.int64)  # keys of every block at positions so far
    step = max(1, RUNNING_COUNTS // max(1, len(starts)))
    for first in range(0, t, step):
        mine = key_block[first : first + step]
        running = np.zeros((len(mine), len(starts)), np.int64)
        running[np.arange(len(mine)), mine] = 1
        running = np.cumsum(running, axis=0) + seen
        rows = query_block[first : first + step]
        order = np.argsort(rows, kind="stable")
        heads = np.flatnonzero(np.diff(rows[order], prepend=-1))
        found[rows[order][heads]] += np.add.reduceat(running[order], heads, axis=0)
        seen = running[-1]
    return found


def _by_block(allowed, block_size):
    """Sum a mask (t, t) over blocks, (n, n) int64."""
    if not allowed.size:
        return np.zeros((0, 0), np.int64)
    starts = np.arange(0, len(allowed), block_size)
    return np.add.reduceat(np.add.reduceat(allowed, starts, axis=1, dtype=np.int64), starts, axis=0)


def _cost(kept, summaries, t, d, block_size):
    """Cost of pairs by block (n, n) and of summaries by query (t,), those of a block of queries lying together."""
    starts = np.arange(0, t, block_size)
    keys = np.diff(np.append(starts, t))  # tokens in every block
    together = np.maximum.reduceat(summaries, starts) if t else summaries
    pairs = int(kept.sum())
    holds = kept > 0
    read = int(np.count_nonzero(holds, axis=0) @ keys) + int(together.sum())
    once = int((holds.any(axis=0) @ keys).sum()) + int(summaries.max(initial=0))
    return Cost(
        pairs=pairs,
        blocks=int(np.count_nonzero(kept)) + int((-(-together // block_size)).sum()),
        multiply_adds=2 * d * (pairs + int(summaries.sum())),
        bytes=FLOAT_BYTES * d * (2 * t + 2 * read),
        least_bytes=FLOAT_BYTES * d * (2 * t + 2 * once),
    )
