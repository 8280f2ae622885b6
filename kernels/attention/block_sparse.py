r"""Softmax attention restricted to kept blocks, exact and streaming.

.. math:: o_i = \sum_{j \in K(i)} \frac{e^{s_{ij}}}{\sum_{l \in K(i)} e^{s_{il}}} v_j,
          \qquad s_{ij} = \mathrm{scale}\; q_i \cdot k_j + m_{ij}

K(i) holds the keys of the kept blocks in row block of i, under the token-level causal rule and the mask if given.
Memory is O(t d): scores live in one block at a time (Dao 2023, "FlashAttention-2", Algorithms 1 and 2).
"""

import numpy as np

from kernels._native import core
from kernels.attention.cost import FLOAT_BYTES, pairs_in_blocks
from kernels.check import as_int, as_number, check_array, check_threads, check_unmasked
from kernels.half_precision import as_float32, float_format
from kernels.work import Work

BLOCK_SIZES = (8, 256)
MOST_WIDTH = 512


def block_sparse_attention(
    q,
    k,
    v,
    block_mask,
    *,
    block_size,
    causal=False,
    scale=None,
    key_positions=None,
    attn_mask=None,
    return_lse=False,
    num_threads=None,
):
    """Compute exact softmax attention over the kept blocks.

    Parameters
    ----------
    q : (b, h, tq, d), 1 <= d <= 512, of float64, float32, float16 or bfloat16 (see `kernels.half_precision`).
    k, v : (b, hk, tk, d) and (b, hk, tk, dv) of the format of q. Each key head serves h / hk query heads in a row.
    block_mask : (b or 1, h or 1, rows, ceil(tk / block_size)) bool, True keeps the block. Without ``causal`` there are
        ceil(tq / block_size) rows. With it queries are the last tq positions of the keys, and block rows begin where
        blocks of keys do: one row per block of keys that holds a query.
    block_size : tokens per block, from 8 to 256; multiples of 16 waste no work.
    causal : a query sees only keys at its own position or before; needs tq <= tk.
    scale : factor on q . k, finite; 1 / sqrt(d) unless given.
    key_positions : (b, hk, tk) integers, the original position of each key slot if keys were permuted; used by
        ``causal`` and ``attn_mask``.
    attn_mask : mask on pairs of tokens by original position, any shape that broadcasts to (b, h, tq, tk): bool, True
        lets a query see a key (padded batches: (b, 1, 1, tk)), or float, added to the scaled scores.
    return_lse : also return the log of each row's softmax denominator, which the backward pass needs.
    num_threads : threads for this call; the global setting unless given.

    Returns
    -------
    (b, h, tq, dv) float32, or float64 for float64; zero where a query sees no key. With ``return_lse`` also (b, h, tq),
    -inf there. Sums are in that format too.

    Raises
    ------
    TypeError : q, k or v is not an array of one supported format, or block_mask is not bool.
    ValueError : shapes disagree, block_size or num_threads is out of range, key_positions is no permutation, or there
        are more queries than keys under ``causal``.

    Cost
    ----
    2 (d + dv) flops for every pair that kept blocks hold, see `block_sparse_attention_work`; a block that causality or
    a mask cuts is computed whole, one that they hide is not computed.

    Source
    ------
    Dao 2023, "FlashAttention-2", Algorithm 1.
    """
    given, stored, result = _checked(
        "block_sparse_attention",
        (q, k, v),
        block_mask,
        block_size,
        causal,
        scale,
        key_positions,
        attn_mask,
    )
    out = np.empty((*q.shape[:3], v.shape[3]), result)
    lse = np.empty(q.shape[:3], result)
    threads = check_threads(num_threads, function="block_sparse_attention")
    getattr(core, f"block_sparse_forward_{stored}")(*given, out, lse, threads)
    return (out, lse) if return_lse else out


def block_sparse_attention_backward(
    q,
    k,
    v,
    block_mask,
    out,
    lse,
    grad,
    *,
    block_size,
    causal=False,
    scale=None,
    key_positions=None,
    attn_mask=None,
    num_threads=None,
):
    """Compute the gradients of `block_sparse_attention` for a gradient of its output; none for a mask.

    Parameters
    ----------
    q, k, v, block_mask, block_size, causal, scale, key_positions, attn_mask, num_threads : as in the forward call.
    out, lse : what the forward call returned with ``return_lse=True``.
    grad : shape and dtype of ``out``, its gradient.

    Returns
    -------
    dq (b, h, tq, d), dk (b, hk, tk, d), dv (b, hk, tk, dv), in the dtype of ``out``.

    Raises
    ------
    TypeError, ValueError : as the forward call; also if out, lse or grad is not of the right dtype and shape.

    Source
    ------
    Dao 2023, "FlashAttention-2", Algorithm 2.
    """
    name = "block_sparse_attention_backward"
    given, stored, result = _checked(name, (q, k, v), block_mask, block_size, causal, scale, key_positions, attn_mask)
    b, h, tq, d = q.shape
    shape = (b, h, tq, v.shape[3])
    for label, array, wanted in (("out", out, shape), ("lse", lse, shape[:3]), ("grad", grad, shape)):
        check_array(array, function=name, name=label, dtypes=(result,))
        if array.shape != wanted:
            raise ValueError(f"{name}: {label} must have shape {wanted}, got {array.shape}")
    hk, tk = k.shape[1:3]
    dq, dk, dv = (np.empty(x, result) for x in ((b, h, tq, d), (b, h, tk, d), (b, h, tk, shape[3])))
    results = map(np.ascontiguousarray, (out, lse, grad))
    threads = check_threads(num_threads, function=name)
    getattr(core, f"block_sparse_backward_{stored}")(*given, *results, dq, dk, dv, threads)
    return dq, *(x.reshape(b, hk, h // max(hk, 1), *x.shape[2:]).sum(axis=2) if h != hk else x for x in (dk, dv))


def block_sparse_attention_reference(
    q, k, v, block_mask, *, block_size, causal=False, scale=None, key_positions=None, attn_mask=None
):
    """Compute the same with a dense mask in float64; what a learner reads."""
    (h, tq, d), (hk, tk) = q.shape[1:], k.shape[1:3]
    q, k, v = (np.asarray(as_float32(x), np.float64) for x in (q, k, v))
    k, v = (np.repeat(x, h // hk, axis=1) for x in (k, v))  # (b, h, tk, .)
    first = tk - tq if causal else 0  # position of the first query
    allowed = np.repeat(np.repeat(block_mask, block_size, axis=2), block_size, axis=3)
    allowed = allowed[:, :, first % block_size :][:, :, :tq, :tk]  # (b, h, tq, tk)
    place = np.broadcast_to(np.arange(tk), k.shape[:3])
    if key_positions is not None:
        place = np.repeat(key_positions, h // hk, axis=1)
    if causal:
        allowed = allowed & (place[:, :, None] <= first + np.arange(tq)[:, None])
    scores = q @ k.swapaxes(2, 3) * (d**-0.5 if scale is None else scale)
    if attn_mask is not None:
        mask = np.broadcast_to(attn_mask, scores.shape)
        mask = np.take_along_axis(mask, np.broadcast_to(place[:, :, None], scores.shape), axis=3)
        allowed = allowed & (mask if mask.dtype == bool else mask > -np.inf)
        scores = scores if mask.dtype == bool else scores + mask
    scores = np.where(allowed, scores, -np.inf)
    top = scores.max(axis=3, keepdims=True, initial=-np.inf)
    with np.errstate(invalid="ignore"):  # infinity less infinity is NaN here, as it is in the loop
        weights = np.exp(scores - np.where(np.isneginf(top), 0, top))
    total = weights.sum(axis=3, keepdims=True)
    return _weighted_sum(weights / np.where(total == 0, 1, total), v, np.broadcast_to(allowed, scores.shape))


def _weighted_sum(weights, v, allowed):
    """Return weights @ v, without the 0 * NaN of values that are not finite and that a row may not see."""
    finite = np.isfinite(v)
    out = weights @ np.where(finite, v, 0)
    for j in np.flatnonzero(~finite.all(axis=(0, 1, 3))):
        odd = np.where(finite[:, :, j], 0, v[:, :, j])[:, :, None]  # (b, h, 1, d)
        with np.errstate(invalid="ignore"):
            out += np.where(allowed[..., j, None], weights[..., j, None] * odd, 0)
    return out


def block_sparse_attention_work(block_mask, *, t, d, block_size, causal=False, key_positions=None, queries=None):
    """Count the work of the forward pass from the mask alone: what must be computed, see `kernels.attention.cost`.

    Parameters
    ----------
    block_mask : (b, h, rows, ceil(t / block_size)) bool.
    t, d : keys, and width of q, k and v.
    key_positions : (b, h, t), original position of each key slot where keys were permuted; used by ``causal``.
    queries : queries, if there are not as many as keys; under ``causal`` the last positions.
    """
    name = "block_sparse_attention_work"
    t, d, block_size = (
        as_int(value, function=name, name=label, low=low, high=2**31)
        for label, value, low in (("t", t, 0), ("d", d, 1), ("block_size", block_size, 1))
    )
    kept = np.asarray(block_mask)
    pairs = pairs_in_blocks(t, block_size=block_size, causal=causal, key_positions=key_positions, queries=queries)
    if kept.dtype != np.bool_ or kept.ndim != 4 or kept.shape[2:] != pairs.shape[-2:]:
        raise ValueError(
            f"{name}: block_mask must be bool of shape (b, h, {', '.join(map(str, pairs.shape[-2:]))}), got "
            f"{kept.dtype} {kept.shape}"
        )
    pairs = np.broadcast_to(pairs, kept.shape)
    keys = np.minimum(block_size, t - block_size * np.arange(kept.shape[3]))
    read = int((np.count_nonzero(kept & (pairs > 0), axis=2) @ keys).sum())
    own = t if queries is None else queries
    streamed = FLOAT_BYTES * d * (2 * own * kept.shape[0] * kept.shape[1] + 2 * read)
    return Work(flops=4 * d * int(pairs.sum(where=kept, dtype=np.int64)), bytes_streamed=streamed, gathers=0)


def _checked(name, qkv, block_mask, block_size, causal, scale, key_positions, attn_mask):
    """Return the core's arguments up to the scale, the name of the format, and the dtype of results."""
    q, k, v = qkv
    stored = _check_inputs(name, q, k, v, causal)
    (b, h, tq, d), (hk, tk) = q.shape, k.shape[1:3]
    result = np.float64 if stored == "float64" else np.float32
    block_size = as_int(block_size, function=name, name="block_size", low=BLOCK_SIZES[0], high=BLOCK_SIZES[1])
    blocks = _checked_blocks(name, block_mask, (b, h, *block_shape(tq, tk, block_size=block_size, causal=causal)))
    positions = None if key_positions is None else _checked_positions(name, key_positions, (b, hk, tk))
    mask = None if attn_mask is None else _checked_mask(name, attn_mask, (b, h, tq, tk), result)
    allowed, added = (mask, None) if mask is None or mask.dtype == np.uint8 else (None, mask)
    scale = d**-0.5 if scale is None else as_number(scale, function=name, name="scale")
    arrays = [np.ascontiguousarray(x) for x in qkv]
    if result == np.float32 and stored != "float32":
        arrays = [x.view(np.uint16) for x in arrays]
    return (*arrays, blocks, positions, allowed, added, block_size, bool(causal), scale), stored, result


def block_shape(tq, tk, *, block_size, causal=False) -> tuple[int, int]:
    """Return the block rows and block columns of a mask for tq queries and tk keys, see `block_sparse_attention`."""
    name = "block_shape"
    tq, tk = (as_int(value, function=name, name=label, low=0) for label, value in (("tq", tq), ("tk", tk)))
    block_size = as_int(block_size, function=name, name="block_size", low=1)
    if causal and tq > tk:
        raise ValueError(f"{name}: causal queries are the last positions of the keys: {tq} queries, {tk} keys")
    columns = -(-tk // block_size)
    if not causal:
        return -(-tq // block_size), columns
    return (columns - (tk - tq) // block_size if tq else 0), columns


def _check_inputs(name, q, k, v, causal):
    stored = float_format(q)
    for label, x in (("q", q), ("k", k), ("v", v)):
        if isinstance(x, np.ma.MaskedArray):
            check_array(x, function=name, name=label)
        found = float_format(x)
        if found is None or (found != stored and stored is not None):
            kind = x.dtype if isinstance(x, np.ndarray) else f"{type(x).__name__}; use np.asarray({label})"
            raise TypeError(
                f"{name}: {label} must be a NumPy array of {stored or 'float64, float32, float16 or bfloat16'}, got "
                f"{kind if found is None else found}; convert it with {label}.astype"
            )
        if x.ndim != 4:
            raise ValueError(f"{name}: {label} must have four dimensions, (b, h, t, d), got shape {x.shape}")
    b, h, tq, d = q.shape
    hk, tk = k.shape[1:3]
    if k.shape[0] != b or v.shape[:3] != k.shape[:3] or k.shape[3] != d or (hk == 0) != (h == 0) or (hk and h % hk):
        raise ValueError(
            f"{name}: q must be (b, h, tq, d), k (b, hk, tk, d) and v (b, hk, tk, dv) with h a multiple of hk; got "
            f"{q.shape}, {k.shape}, {v.shape}"
        )
    for label, width in (("d", d), ("dv", v.shape[3])):
        if not 1 <= width <= MOST_WIDTH:
            raise ValueError(f"{name}: {label} must be from 1 to {MOST_WIDTH}, got {width}")
    if causal and tq > tk:
        raise ValueError(
            f"{name}: causal queries are the last positions of the keys, so there cannot be more of them: {tq} "
            f"queries, {tk} keys"
        )
    return stored


def _checked_blocks(name, block_mask, shape):
    b, h = shape[:2]
    check_array(block_mask, function=name, name="block_mask", dtypes=(np.bool_,))
    if (
        block_mask.ndim != 4
        or block_mask.shape[0] not in (1, b)
        or block_mask.shape[1] not in (1, h)
        or (block_mask.shape[2:] != shape[2:])
    ):
        raise ValueError(
            f"{name}: block_mask must have shape ({b} or 1, {h} or 1, {shape[2]}, {shape[3]}), got {block_mask.shape}"
        )
    return np.broadcast_to(np.ascontiguousarray(block_mask).view(np.uint8), shape)


def _checked_positions(name, key_positions, shape):
    check_unmasked(key_positions, function=name, name="key_positions")
    key_positions = np.asarray(key_positions)
    if key_positions.shape != shape or not np.issubdtype(key_positions.dtype, np.integer):
        raise ValueError(
            f"{name}: key_positions must be integers of shape {shape}, got {key_positions.dtype} {key_positions.shape}"
        )
    if not (np.sort(key_positions, axis=2) == np.arange(shape[2])).all():
        raise ValueError(f"{name}: key_positions must be a permutation of 0..{shape[2] - 1} in every head")
    return np.ascontiguousarray(key_positions, np.int32)


def _checked_mask(name, attn_mask, shape, result):
    check_array(attn_mask, function=name, name="attn_mask", dtypes=(np.bool_, np.float32, np.float64, np.float16))
    try:
        fits = np.broadcast_shapes(attn_mask.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name}: attn_mask must broadcast to (b, h, tq, tk) = {shape}, got {attn_mask.shape}")
    mask = attn_mask.view(np.uint8) if attn_mask.dtype == np.bool_ else attn_mask.astype(result, copy=False)
    return np.broadcast_to(mask, shape)
