r"""How much attention each block pair holds, estimated without the full q k^T.

Antidiagonal scoring (Xu et al. 2025, "XAttention", section 2.1): in every stride x stride tile of the logits only one
line is read. With rows regrouped,

.. math:: \hat q_i = [q_{iS+S-1}, \dots, q_{iS}],\quad \hat k_j = [k_{jS}, \dots, k_{jS+S-1}],\quad
          \hat q_i \cdot \hat k_j = \sum_t q_{iS+S-1-t} \cdot k_{jS+t}

so the map of all tiles is one product with S times fewer rows and columns: 1 / S of the multiply-adds of q k^T.
Symbols: b h t d as everywhere, S stride, B block_size, n = t / S tiles.
"""

from functools import reduce

import numpy as np

from kernels.check import as_int, as_number, as_rng, check_array, check_choice, check_unmasked

MOST_LANES = 2**16  # of a stride, and of query_every: groups are padded to whole ones, so memory follows them
MODES = ("antidiagonal", "diagonal", "random", "double", "triple")
ROWS_AT_ONCE = 256  # reduced queries: of the keys that all of them come before, causality reads none
POOLS = {"mean": np.mean, "max": np.max}
NEIGHBOURS = {"double": {0: 1, 1: 1}, "triple": {-1: 1, 0: 2, 1: 1}}  # how often key lane t + s counts in lane t


def antidiagonal_reshape(q, k, stride, *, mode="antidiagonal", seed=0, query_every=1):
    """Regroup rows so that one dot product sums one line of a stride x stride tile of the logits.

    Parameters
    ----------
    q : (b, h, tq, d) float32 or float64, tq a multiple of ``stride``.
    k : (b, h, tk, d), tk a multiple of ``stride``.
    mode : which line is read: "antidiagonal" meets every vertical and every slash of width two. Ablations: "diagonal";
        "random", one permutation per call from ``seed``, never one of those two if there is another; "double" and
        "triple", the antidiagonal with each key lane replaced by a sum over neighbours, round the end of the group.
    query_every : regroup only every so-manyth group of queries, the first of so many.

    Returns
    -------
    (b, h, tq / (S query_every), S d), rounded up, and (b, h, tk / S, S d).

    Raises
    ------
    ValueError : unknown mode, query_every below 1, or a length that is no multiple of the stride.

    Source
    ------
    Xu et al. 2025, "XAttention", section 2.1 and Table 5 (samplers). "double", "triple" (middle lane counted twice) and
    ``query_every`` ("kdb") are options of the released code.
    """
    function = "antidiagonal_reshape"
    check_choice(mode, MODES, function=function, name="mode")
    stride = as_int(stride, function=function, name="stride", low=1, high=MOST_LANES)
    query_every = as_int(query_every, function=function, name="query_every", low=1)
    rng = as_rng(seed, function=function)
    _check_pair(function, q, k)
    for name, x in (("q", q), ("k", k)):
        if x.shape[2] % stride:
            raise ValueError(f"{function}: {name} has {x.shape[2]} tokens, not a multiple of stride {stride}; pad it")
    return _regrouped(q, k, stride, mode, rng, query_every)


def _regrouped(q, k, stride, mode, rng, query_every):
    b, h, _, d = q.shape
    q_lanes, k_lanes = (x.reshape(b, h, x.shape[2] // stride, stride, d) for x in (q, k))
    q_lanes = q_lanes[:, :, ::query_every, _query_order(stride, mode, rng)]
    if mode in NEIGHBOURS:
        lanes = (count * np.roll(k_lanes, -step, axis=3) for step, count in NEIGHBOURS[mode].items())
        k_lanes = reduce(np.add, lanes)
    return tuple(x.reshape(b, h, x.shape[2], stride * d) for x in (q_lanes, k_lanes))


def lines_read(stride, *, mode="antidiagonal", seed=0):
    """Count how often each logit of a stride x stride tile enters the tile's score, (S, S) int64; rows are queries.

    Parameters
    ----------
    stride : from 1 to 4096.
    mode, seed : see `antidiagonal_reshape`.

    Source
    ------
    Xu et al. 2025, "XAttention", Figure 2.
    """
    stride = as_int(stride, function="lines_read", name="stride", low=1, high=4096)
    check_choice(mode, MODES, function="lines_read", name="mode")
    eye = np.eye(stride, dtype=np.int64)[None, None]
    q_lanes, k_lanes = _regrouped(eye, eye, stride, mode, as_rng(seed, function="lines_read"), 1)
    return q_lanes.reshape(stride, stride).T @ k_lanes.reshape(stride, stride)


def _query_order(stride, mode, rng):
    """Return which query of its group each lane takes."""
    straight = np.arange(stride)
    if mode == "diagonal":
        return straight
    if mode != "random":
        return straight[::-1]
    order = rng.permutation(stride)
    while stride > 2 and (np.array_equal(order, straight) or np.array_equal(order, straight[::-1])):
        order = rng.permutation(stride)
    return order


def visible_blocks(attn_mask, *, tq, tk, block_size, causal=False) -> np.ndarray:
    """Tell which blocks of a mask on pairs of tokens hold a pair that may attend, whatever causality says of it.

    Parameters
    ----------
    attn_mask : bool (True may attend) or float (-inf may not), of two to four dimensions that broadcast to
        (b, h, tq, tk).
    causal : queries are the last tq positions of the keys, and block rows begin where blocks of keys do.

    Returns
    -------
    bool (b or 1, h or 1, block rows or 1, block columns or 1), 1 where the mask has it.

    Raises
    ------
    TypeError, ValueError : the mask is neither bool nor float, or does not broadcast to tq x tk.
    """
    name = "visible_blocks"
    tq, tk = (as_int(value, function=name, name=label, low=0) for label, value in (("tq", tq), ("tk", tk)))
    block_size = min(as_int(block_size, function=name, name="block_size", low=1), max(tq, tk, 1))
    visible = _visible(name, attn_mask, tq, tk)
    before = max(tk - tq, 0) % block_size if causal else 0
    rows, columns = -(-(before + tq) // block_size), -(-tk // block_size)
    return _any_in_tiles(_any_in_tiles(visible, 2, block_size, rows, before), 3, block_size, columns)


def _visible(function, attn_mask, tq, tk):
    """Return a mask as bool of four dimensions, checked."""
    check_array(attn_mask, function=function, name="attn_mask", dtypes=(np.bool_, np.float32, np.float64, np.float16))
    shape = attn_mask.shape
    if not 2 <= len(shape) <= 4 or shape[-2] not in (1, tq) or shape[-1] not in (1, tk):
        raise ValueError(f"{function}: attn_mask must broadcast to (b, h, {tq}, {tk}), got {shape}")
    return (attn_mask if attn_mask.dtype == np.bool_ else attn_mask > -np.inf).reshape((1,) * (4 - len(shape)) + shape)


def _any_in_tiles(visible, axis, size, count, before=0):
    """Reduce an axis to ``count`` tiles of ``size``, the first of which begins ``before`` its first entry."""
    length = visible.shape[axis]
    if length <= 1:  # broadcast
        return (
            visible
            if length
            else np.zeros_like(visible, shape=(*visible.shape[:axis], count, *visible.shape[axis + 1 :]))
        )
    edges = np.clip(size * np.arange(count + 1) - before, 0, length)
    full = edges[1:] > edges[:-1]
    found = np.zeros_like(visible, shape=(*visible.shape[:axis], count, *visible.shape[axis + 1 :]))
    at = (slice(None),) * axis
    found[(*at, full)] = np.logical_or.reduceat(visible, edges[:-1][full], axis=axis)
    return found


def xattn_block_scores(
    q,
    k,
    *,
    block_size,
    stride,
    causal=True,
    mode="antidiagonal",
    seed=0,
    norm=1.0,
    query_every=1,
    attn_mask=None,
):
    """Estimate the attention mass of every block pair from one line per tile.

    Softmax runs over the reduced keys of each reduced query; a block's score is the sum of its tiles. With ``causal``
    queries are the last tq positions of the keys (a cache holds the keys before them), and block rows begin where key
    blocks do. Lengths that are no multiple of the block are padded; padded keys get no mass, padded queries none to
    give.

    Parameters
    ----------
    q : (b, h, tq, d) float32 or float64.
    k : (b, h, tk, d), dtype of q; with ``causal`` tk >= tq.
    block_size, stride : block_size a multiple of stride, and of stride * query_every.
    mode, seed, query_every : see `antidiagonal_reshape`; with ``causal``, a group of queries that stands for
        ``query_every`` of them sees the tiles that the last of them sees.
    norm : further divisor of the logits; 2 and 4 make means of what "double" and "triple" sum.
    attn_mask : as `visible_blocks`; tiles without a pair that may attend get no mass, the others are read whole.

    Returns
    -------
    (b, h, rows, ceil(tk / B)), dtype of q, one row per key block that holds a query, ceil(tq / B) if tq = tk: every row
    of whole blocks sums to B / (S query_every).

    Raises
    ------
    TypeError : q or k is not float32 or float64, or their dtypes differ.
    ValueError : shapes or sizes do not fit, or q or k holds NaN.

    Cost
    ----
    b h tq tk d / S multiply-adds, about half of it with ``causal`` where inputs are long; memory n^2 of one head at a
    time.

    Source
    ------
    Xu et al. 2025, "XAttention", section 2.1. The logits are divided by sqrt(d) S, so that they are the mean of the
    line; the diagonal tile is read whole, so its upper half counts too.
    """
    name = "xattn_block_scores"
    check_choice(mode, MODES, function=name, name="mode")
    stride, query_every = (
        as_int(value, function=name, name=label, low=1, high=MOST_LANES)
        for label, value in (("stride", stride), ("query_every", query_every))
    )
    norm, rng = as_number(norm, function=name, name="norm", above=0), as_rng(seed, function=name)
    block_size = _checked(name, q, k, block_size, causal, unit=stride * query_every)
    tk, d = k.shape[2], q.shape[3]
    q, first, last, start = _aligned(q, tk, block_size, causal)
    q_groups, k_groups = _regrouped(q, _padded(k, block_size), stride, mode, rng, query_every)
    rows, cols, per_block = q_groups.shape[2], k_groups.shape[2], block_size // stride
    tile = np.arange(rows)[:, None] * query_every  # of the reduced queries, counted from the first block row
    valid_rows = ((tile + 1) * stride > first) & (tile * stride < last)
    hidden = np.broadcast_to(np.arange(cols) * stride >= tk, (rows, cols))
    if causal:
        hidden = hidden | (np.arange(cols) > tile + query_every - 1 + start // stride)
    if attn_mask is not None:
        visible = _any_in_tiles(_visible(name, attn_mask, last - first, tk), 3, stride, cols)
        hidden = hidden | ~_any_in_tiles(visible, 2, stride * query_every, rows, first)
    hidden = np.broadcast_to(hidden, (*q.shape[:2], rows, cols))
    block_rows = q.shape[2] // block_size
    scores = np.empty((*q.shape[:2], block_rows, cols // per_block), q.dtype)
    scale = q.dtype.type(1 / (np.sqrt(d) * stride * norm))
    for batch, head in np.ndindex(*q.shape[:2]):
        mass = np.zeros((rows, cols), q.dtype)
        for first_row in range(0, rows, ROWS_AT_ONCE):
            some = slice(first_row, first_row + ROWS_AT_ONCE)
            reach = min(cols, (first_row + ROWS_AT_ONCE) * query_every + start // stride) if causal else cols
            logits = q_groups[batch, head, some] @ k_groups[batch, head, :reach].T * scale
            mass[some, :reach] = _softmax(logits, hidden[batch, head, some, :reach]) * valid_rows[some]
        scores[batch, head] = mass.reshape(block_rows, -1, cols // per_block, per_block).sum(axis=(1, 3))
    return scores


def pooled_block_scores(q, k, *, block_size, hidden=None, causal=False, query_pool="mean", key_pool="mean"):
    """Estimate the attention mass of every block pair from one query and one key that stand for each block.

    softmax over blocks of pool(Q_I) . pool(K_J) / sqrt(d); the last block is pooled with its zero padding.

    Parameters
    ----------
    q, k : (b, h, t, d) float32 or float64, same dtype.
    query_pool, key_pool : "mean" or, channel by channel, "max" over the queries and over the keys of a block.
    hidden : bool, broadcastable to (b, h, blocks, blocks): pairs that take no part; a row without any other is zero.
    causal : queries are the last positions of the keys, as in `xattn_block_scores`; blocks of the future are hidden.

    Returns
    -------
    (b, h, ceil(tq / B), ceil(tk / B)), dtype of q; rows sum to 1, or 0 where all is hidden.

    Raises
    ------
    TypeError, ValueError : as `xattn_block_scores`.

    Source
    ------
    Wang et al. 2025, "PBS-Attn", section 3 (block selection); baseline in Xu et al. 2025. "max" is an option of the
    code released for PBS-Attn.
    """
    for name, pool in (("query_pool", query_pool), ("key_pool", key_pool)):
        check_choice(pool, tuple(POOLS), function="pooled_block_scores", name=name)
    block_size = _checked("pooled_block_scores", q, k, block_size, causal)
    q, _, _, start = _aligned(q, k.shape[2], block_size, causal)
    pooled = (
        POOLS[pool](x.reshape(*x.shape[:2], -1, block_size, x.shape[3]), axis=3)
        for x, pool in ((q, query_pool), (_padded(k, block_size), key_pool))
    )
    q_blocks, k_blocks = pooled
    logits = q_blocks @ k_blocks.swapaxes(2, 3) * q.dtype.type(q.shape[3] ** -0.5)
    check_unmasked(hidden, function="pooled_block_scores", name="hidden")
    hidden = _hidden(hidden, logits.shape)
    if causal:
        rows, cols = logits.shape[2:]
        hidden = hidden | (np.arange(cols) > np.arange(rows)[:, None] + start // block_size)
    return _softmax(logits, hidden)


def true_block_mass(q, k, *, block_size, causal=True, attn_mask=None):
    """Sum the true attention of every block pair: the oracle, at the full cost of q k^T, one head at a time.

    Parameters
    ----------
    attn_mask : as `visible_blocks`, applied pair by pair.

    Returns
    -------
    (b, h, rows, ceil(tk / B)) float64, rows as in `xattn_block_scores`; every row of whole blocks sums to B, less the
    queries that see no key.
    """
    block_size = _checked("true_block_mass", q, k, block_size, causal)
    tq, tk = q.shape[2], k.shape[2]
    hidden = np.arange(tk) > np.arange(tq)[:, None] + (tk - tq) if causal else np.zeros((), bool)
    added = np.zeros((), q.dtype)
    if attn_mask is not None:
        hidden = hidden | ~_visible("true_block_mass", attn_mask, tq, tk)
        added = added if attn_mask.dtype == np.bool_ else np.maximum(attn_mask, np.finfo(q.dtype).min).astype(q.dtype)
    hidden, added = (np.broadcast_to(x, (*q.shape[:2], tq, tk)) for x in (hidden, added))
    first = (tk - tq) % block_size if causal else 0
    blocks = (-(-(first + tq) // block_size), -(-tk // block_size))
    mass = np.empty((*q.shape[:2], *blocks))
    for batch, head in np.ndindex(*q.shape[:2]):
        logits = q[batch, head] @ k[batch, head].T * q.dtype.type(q.shape[3] ** -0.5) + added[batch, head]
        p = _softmax(logits, hidden[batch, head])
        p = np.pad(p, [(first, blocks[0] * block_size - first - tq), (0, blocks[1] * block_size - tk)])
        mass[batch, head] = p.reshape(blocks[0], block_size, blocks[1], block_size).sum(axis=(1, 3), dtype=np.float64)
    return mass


def _check_pair(name, q, k):
    for label, x in (("q", q), ("k", k)):
        check_array(x, function=name, name=label)
        if x.dtype != q.dtype:
            raise TypeError(f"{name}: k is {x.dtype}, q is {q.dtype}; convert one, e.g. k.astype({q.dtype.name!r})")
        if x.ndim != 4 or x.shape[:2] != q.shape[:2] or x.shape[3] != q.shape[3] or x.shape[3] == 0:
            raise ValueError(
                f"{name}: q is {q.shape}, {label} is {x.shape}; both must be (b, h, t, d) with equal b, h, d and d "
                "at least 1"
            )


def _checked(name, q, k, block_size, causal, unit=1):
    """Return the block size, cut to what holds all tokens (a multiple of ``unit``): memory follows the tokens."""
    _check_pair(name, q, k)
    for label, x in (("q", q), ("k", k)):
        if np.isnan(x).any():
            raise ValueError(f"{name}: {label} holds NaN; scores of NaN would drop blocks at random")
    block_size = as_int(block_size, function=name, name="block_size", low=1)
    if block_size % unit:
        raise ValueError(f"{name}: block_size {block_size} must be a multiple of stride times query_every, {unit}")
    if causal and q.shape[2] > k.shape[2]:
        raise ValueError(
            f"{name}: causal queries are the last positions of the keys, so there cannot be more of them: "
            f"{q.shape[2]} queries, {k.shape[2]} keys"
        )
    return min(block_size, -(-max(q.shape[2], k.shape[2], 1) // unit) * unit)


def _hidden(hidden, shape):
    """Return the pairs that take no part as bool; none unless given."""
    hidden = np.zeros((), bool) if hidden is None else np.asarray(hidden)
    try:
        fits = hidden.dtype == np.bool_ and np.broadcast_shapes(hidden.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"pooled_block_scores: hidden must be bool and fit {shape}, got {hidden.dtype} {hidden.shape}")
    return hidden


def _aligned(q, tk, block_size, causal):
    """Pad queries so that block rows begin where key blocks do.

    Returns the queries, where the real ones begin and end in them, and the position of the first row.
    """
    tq = q.shape[2]
    offset = tk - tq if causal else 0
    first = offset % block_size
    padded = np.pad(q, [(0, 0), (0, 0), (first, -(first + tq) % block_size), (0, 0)])
    return padded, first, first + tq, offset - first


def _padded(x, multiple):
    missing = -x.shape[2] % multiple
    return np.pad(x, [(0, 0), (0, 0), (0, missing), (0, 0)]) if missing else x


def _softmax(logits, hidden):
    """Softmax over the last axis, zero where hidden and in rows where all is hidden."""
    logits = np.where(hidden, -np.inf, logits)
    top = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(logits - np.where(np.isneginf(top), 0, top).astype(logits.dtype))
    total = weights.sum(axis=-1, keepdims=True)
    return weights / np.where(total == 0, 1, total)
