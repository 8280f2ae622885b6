r"""A step of decoding over a compressed cache: attention of one query token that forms no dense keys and values.

.. math:: o = p_D D_V + (p A_V) B_V^T + p S_V + p_r V_r, \qquad
    p = \mathrm{softmax}\big(s\,[\, q D_K^T + (q B_K) A_K^T + q S_K^T,\; q K_r^T \,]\big)

D codes in few bits, A B^T low-rank parts, S outliers (`CompressedBlocks`); K_r and V_r are the newest tokens, in half
precision. The scale of a group is multiplied with the query, or with the weight of a token, and not with the codes.

Source
------
Kang et al. 2024, "GEAR", section 3 and the released kernels. *Differs from them:* the forms of all blocks are one call,
the dense matrix of no block is formed, and codes are unpacked to float32.
"""

import numpy as np

from kernels._native import core
from kernels.attention.compressed_blocks import CompressedBlocks
from kernels.check import as_int, as_number, check_array, check_threads
from kernels.work import Work

__all__ = [
    "quantised_decode",
    "quantised_decode_reference",
    "quantised_decode_work",
    "quantised_scores",
    "quantised_weighted_sum",
]


def quantised_decode(
    q, keys, values, recent_keys, recent_values, *, recent=None, scale=None, mask=None, num_threads=None
) -> np.ndarray:
    """Attend with one query for each head to compressed and recent tokens.

    Parameters
    ----------
    q : (b, query heads, d) float32, contiguous; a multiple of the heads of the keys: each of these serves so many
        queries that follow each other.
    keys, values : sequences of CompressedBlocks of equal lengths, oldest first; they may be empty.
    recent_keys, recent_values : (b, heads, tokens, d) float16, contiguous; tokens may be 0.
    recent : how many of the recent tokens count, from the first on; None means all of them.
    scale : factor of the scores; 1 / sqrt(d) unless given.
    mask : bool (b, 1 or query heads, all tokens), True where a token may be seen; None means all.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    (b, query heads, d) float32; zeros where no token may be seen.

    Raises
    ------
    TypeError : a dtype or a type is another.
    ValueError : shapes do not fit, or an outlier lies outside its block.

    Cost
    ----
    4 query heads d flops for each token, and each byte of the cache is read once.

    Source
    ------
    As of the module.
    """
    name = "quantised_decode"
    check_array(q, function=name, name="q", dtypes=(np.float32,))
    if q.ndim != 3 or not q.flags.c_contiguous:
        raise ValueError(f"{name}: q must be a contiguous (b, query heads, d) array, got shape {q.shape}")
    shape = _recent(recent_keys, recent_values, q, name)
    recent = shape[2] if recent is None else as_int(recent, function=name, name="recent", low=0, high=shape[2])
    for label, blocks, kind in (("keys", keys, "key"), ("values", values, "value")):
        _check_blocks(blocks, kind, (q.shape[0], shape[1], q.shape[2]), label, name)
    if [(x.count, x.tokens) for x in keys] != [(x.count, x.tokens) for x in values]:
        raise ValueError(f"{name}: keys and values must have blocks of the same tokens, got {_lengths(keys, values)}")
    scale = q.shape[2] ** -0.5 if scale is None else as_number(scale, function=name, name="scale")
    total = sum(x.length for x in keys) + recent
    allowed = None if mask is None else _allowed(mask, q.shape, total, name)
    out = np.empty(q.shape, np.float32)
    threads = check_threads(num_threads, function=name)
    fine = core.quantised_decode(
        q, _handed(keys), _handed(values), recent_keys.view(np.uint16), recent_values.view(np.uint16), recent, allowed,
        scale, out, threads,
    )  # fmt: skip
    return _in_place(out, fine, name)


def quantised_scores(q, cache, *, num_threads=None) -> np.ndarray:
    """Return q X^T for compressed keys, without scale or softmax.

    Parameters
    ----------
    q : (b, query heads, d) float32, contiguous.
    cache : CompressedBlocks of kind "key".
    num_threads : as for `quantised_decode`.

    Returns
    -------
    (b, query heads, tokens) float32.

    Raises
    ------
    TypeError, ValueError : as `quantised_decode`.

    Source
    ------
    As of the module.
    """
    name = "quantised_scores"
    check_array(q, function=name, name="q", dtypes=(np.float32,))
    if q.ndim != 3 or not q.flags.c_contiguous:
        raise ValueError(f"{name}: q must be a contiguous (b, query heads, d) array, got shape {q.shape}")
    heads = _heads_of(cache, "key", q.shape[1], "q", name)
    _check_blocks((cache,), "key", (q.shape[0], heads, q.shape[2]), "cache", name)
    out = np.empty((*q.shape[:2], cache.length), np.float32)
    fine = core.quantised_scores(q, _handed((cache,)), heads, out, check_threads(num_threads, function=name))
    return _in_place(out, fine, name)


def quantised_weighted_sum(p, cache, *, num_threads=None) -> np.ndarray:
    """Return p X for compressed values.

    Parameters
    ----------
    p : (b, query heads, tokens) float32, contiguous, the weight of each token.
    cache : CompressedBlocks of kind "value".
    num_threads : as for `quantised_decode`.

    Returns
    -------
    (b, query heads, d) float32.

    Raises
    ------
    TypeError, ValueError : as `quantised_decode`.

    Source
    ------
    As of the module.
    """
    name = "quantised_weighted_sum"
    check_array(p, function=name, name="p", dtypes=(np.float32,))
    if p.ndim != 3 or not p.flags.c_contiguous:
        raise ValueError(f"{name}: p must be a contiguous (b, query heads, tokens) array, got shape {p.shape}")
    heads = _heads_of(cache, "value", p.shape[1], "p", name)
    if (cache.batch, cache.length) != (p.shape[0], p.shape[2]):
        raise ValueError(f"{name}: p must weigh {cache.length} tokens of {cache.batch} sequences, got shape {p.shape}")
    out = np.empty((*p.shape[:2], cache.d), np.float32)
    fine = core.quantised_sums(p, _handed((cache,)), heads, out, check_threads(num_threads, function=name))
    return _in_place(out, fine, name)


def quantised_decode_reference(q, keys, values, recent_keys, recent_values, scale=None, mask=None) -> np.ndarray:
    """Make everything dense, in float64, and attend."""
    k = np.concatenate([*(x.dense() for x in keys), recent_keys], axis=2).astype(np.float64)  # (b, h, t, d)
    v = np.concatenate([*(x.dense() for x in values), recent_values], axis=2).astype(np.float64)
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    scores = np.einsum("bhd,bhtd->bht", q.astype(np.float64), k) * (q.shape[2] ** -0.5 if scale is None else scale)
    scores = scores if mask is None else np.where(mask, scores, -np.inf)
    top = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(top), 0, top))
    total = weights.sum(-1, keepdims=True)
    return np.einsum("bht,bhtd->bhd", weights / np.where(total == 0, 1, total), v)


def quantised_decode_work(query_heads, keys, values, recent_keys) -> Work:
    """Count the work of one step: a multiply-add for each query, token and channel in scores and in sums, two thin
    products for low-rank parts, one multiply-add for each outlier; the cache streamed once, outliers gathered.
    """
    name = "quantised_decode_work"
    check_array(recent_keys, function=name, name="recent_keys", dtypes=(np.float16,))
    if recent_keys.ndim != 4 or not recent_keys.shape[1]:
        raise ValueError(f"{name}: recent_keys must be (b, heads, tokens, d), got shape {recent_keys.shape}")
    b, heads, tokens, d = recent_keys.shape
    _check_blocks(keys, "key", (b, heads, d), "keys", name)
    _check_blocks(values, "value", (b, heads, d), "values", name)
    share = _whole_share(query_heads, heads, "query_heads", name)
    flops, streamed, gathers = 4 * b * share * heads * tokens * d, 2 * recent_keys.nbytes, 0
    for x in (*keys, *values):
        flops += 2 * b * share * heads * (x.length * d + x.rank * (x.length + x.count * d)) + 2 * share * x.places.size
        streamed, gathers = streamed + x.nbytes, gathers + share * x.places.size
    return Work(flops=flops, bytes_streamed=streamed + 8 * b * share * heads * d, gathers=gathers)


def _recent(keys, values, q, name):
    for label, x in (("recent_keys", keys), ("recent_values", values)):
        check_array(x, function=name, name=label, dtypes=(np.float16,))
        if x.ndim != 4 or not x.flags.c_contiguous:
            raise ValueError(f"{name}: {label} must be a contiguous (b, heads, tokens, d) array, got shape {x.shape}")
    if keys.shape != values.shape or (keys.shape[0], keys.shape[3]) != (q.shape[0], q.shape[2]):
        raise ValueError(
            f"{name}: recent_keys and recent_values must be (b, heads, tokens, d) with b and d of q {q.shape}, got "
            f"{keys.shape} and {values.shape}"
        )
    _whole_share(q.shape[1], keys.shape[1], "q", name)
    return keys.shape


def _whole_share(queries, heads, label, name):
    whole = isinstance(queries, int | np.integer) and not isinstance(queries, bool)
    if not whole or not heads or queries % heads or queries < 0:
        raise ValueError(f"{name}: {label} must have a multiple of the {heads} heads of the keys, got {queries!r:.40}")
    return int(queries) // heads


def _heads_of(blocks, kind, queries, label, name):
    if not isinstance(blocks, CompressedBlocks) or blocks.kind != kind:
        found = f"one of {blocks.kind}s" if isinstance(blocks, CompressedBlocks) else type(blocks).__name__
        raise TypeError(f"{name}: cache must be a CompressedBlocks of {kind}s, got {found}; see gear_compress")
    _whole_share(queries, blocks.heads, label, name)
    return blocks.heads


def _check_blocks(found, kind, shape, label, name):
    if not isinstance(found, tuple | list) or not all(isinstance(x, CompressedBlocks) for x in found):
        raise TypeError(f"{name}: {label} must be a list of CompressedBlocks, got {type(found).__name__}")
    for x in found:
        if x.kind != kind or (x.batch, x.heads, x.d) != shape:
            raise ValueError(
                f"{name}: {label} must be blocks of {kind}s with (b, heads, d) = {shape}, got {x.kind}s with "
                f"{(x.batch, x.heads, x.d)}"
            )


def _lengths(keys, values):
    return " and ".join(str([(x.count, x.tokens) for x in found]) for found in (keys, values))


def _allowed(mask, shape, total, name):
    check_array(mask, function=name, name="mask", dtypes=(np.bool_,))
    if mask.shape not in {(shape[0], 1, total), (shape[0], shape[1], total)}:
        raise ValueError(
            f"{name}: mask must have shape {(shape[0], 1, total)} or {(shape[0], shape[1], total)}, got {mask.shape}"
        )
    return np.ascontiguousarray(mask).view(np.uint8)


def _handed(blocks):
    return [x.handed_over() for x in blocks]


def _in_place(out, fine, name):
    if not fine:
        raise ValueError(f"{name}: an outlier lies outside its block; make the blocks with gear_compress")
    return out
