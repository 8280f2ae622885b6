r"""Softmax attention restricted to kept blocks, exact and streaming.

.. math:: o_i = \sum_{j \in K(i)} \frac{e^{s_{ij}}}{\sum_{l \in K(i)} e^{s_{il}}} v_j,
          \qquad s_{ij} = \mathrm{scale}\; q_i \cdot k_j

K(i) holds the keys of the kept blocks in row block of i, under the token-level causal rule if asked.
Memory is O(t d): scores live in one block at a time (Dao 2023, "FlashAttention-2", Algorithms 1 and 2).
"""

import numpy as np

from kernels._native import core
from kernels.attention.cost import FLOAT_BYTES, pairs_in_blocks
from kernels.check import as_int, as_number, check_array, check_threads, check_unmasked
from kernels.work import Work


def block_sparse_attention(
    q, k, v, block_mask, *, block_size, causal=False, scale=None, key_positions=None, return_lse=False, num_threads=None
):
    """Compute exact softmax attention over the kept blocks.

    Parameters
    ----------
    q, k, v : (b, h, t, d) float32, or uint16 holding bfloat16 bits; C-contiguous, any t >= 0, 1 <= d <= 512.
    block_mask : (b or 1, h, t_blocks, t_blocks) bool, t_blocks = ceil(t / block_size); True keeps the block.
    block_size : tokens per block, a multiple of 16 from 16 to 128.
    causal : a query sees only keys at its own position or before.
    scale : factor on q . k, finite; 1 / sqrt(d) unless given.
    key_positions : (b, h, t) int32, the original position of each key slot if keys were permuted; used by ``causal``.
    return_lse : also return the log of each row's softmax denominator, which the backward pass needs.
    num_threads : threads for this call; the global setting unless given.

    Returns
    -------
    (b, h, t, d) float32; zero where a query sees no key. With ``return_lse`` also (b, h, t) float32, -inf there.

    Raises
    ------
    TypeError : q, k or v is not an array of one supported dtype, or block_mask is not bool.
    ValueError : shapes disagree, block_size or num_threads is out of range, key_positions is no permutation.

    Cost
    ----
    4 d flops for every pair that kept blocks hold, see `block_sparse_attention_work`; a block that causality cuts is
    computed whole.

    Source
    ------
    Dao 2023, "FlashAttention-2", Algorithm 1.
    """
    q, k, v, mask, position, block_size, scale, threads = _checked(
        "block_sparse_attention", q, k, v, block_mask, block_size, causal, scale, key_positions, num_threads
    )
    out = np.empty(q.shape, np.float32)
    lse = np.empty(q.shape[:3], np.float32)
    core.block_sparse_forward(q, k, v, mask, position, block_size, bool(causal), scale, out, lse, threads)
    return (out, lse) if return_lse else out


def block_sparse_attention_backward(
    q, k, v, block_mask, out, lse, grad, *, block_size, causal=False, scale=None, key_positions=None, num_threads=None
):
    """Compute the gradients of `block_sparse_attention` for a gradient of its output.

    Parameters
    ----------
    q, k, v, block_mask, block_size, causal, scale, key_positions, num_threads : as given to the forward call.
    out, lse : what the forward call returned with ``return_lse=True``.
    grad : (b, h, t, d) float32, gradient of ``out``.

    Returns
    -------
    dq, dk, dv : (b, h, t, d) float32.

    Raises
    ------
    TypeError, ValueError : as the forward call; also if out, lse or grad is not float32 of the right shape.

    Source
    ------
    Dao 2023, "FlashAttention-2", Algorithm 2.
    """
    name = "block_sparse_attention_backward"
    q, k, v, mask, position, block_size, scale, threads = _checked(
        name, q, k, v, block_mask, block_size, causal, scale, key_positions, num_threads
    )
    for label, array, shape in (("out", out, q.shape), ("lse", lse, q.shape[:3]), ("grad", grad, q.shape)):
        check_array(array, function=name, name=label, dtypes=(np.float32,))
        if array.shape != shape:
            raise ValueError(f"{name}: {label} must have shape {shape}, got {array.shape}")
    gradients = tuple(np.empty(q.shape, np.float32) for _ in range(3))
    core.block_sparse_backward(
        q,
        k,
        v,
        mask,
        position,
        block_size,
        bool(causal),
        scale,
        *map(np.ascontiguousarray, (out, lse, grad)),
        *gradients,
        threads,
    )
    return gradients


def block_sparse_attention_reference(q, k, v, block_mask, *, block_size, causal=False, scale=None, key_positions=None):
    """Compute the same with a dense mask in float64; what a learner reads."""
    t, d = q.shape[2:]
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    allowed = np.repeat(np.repeat(block_mask, block_size, axis=2), block_size, axis=3)[:, :, :t, :t]  # (b, h, t, t)
    if causal:
        position = np.arange(t) if key_positions is None else key_positions[:, :, None, :]
        allowed = allowed & (position <= np.arange(t)[:, None])
    scores = np.where(allowed, q @ k.swapaxes(2, 3) * (d**-0.5 if scale is None else scale), -np.inf)
    top = scores.max(axis=3, keepdims=True, initial=-np.inf)
    with np.errstate(invalid="ignore"):  # infinity less infinity is NaN here, as it is in the loop
        weights = np.exp(scores - np.where(np.isneginf(top), 0, top))
    total = weights.sum(axis=3, keepdims=True)
    return _weighted_sum(weights / np.where(total == 0, 1, total), v, allowed)


def _weighted_sum(weights, v, allowed):
    """Return weights @ v, without the 0 * NaN of values that are not finite and that a row may not see."""
    finite = np.isfinite(v)
    out = weights @ np.where(finite, v, 0)
    for j in np.flatnonzero(~finite.all(axis=(0, 1, 3))):
        odd = np.where(finite[:, :, j], 0, v[:, :, j])[:, :, None]  # (b, h, 1, d)
        with np.errstate(invalid="ignore"):
            out += np.where(allowed[..., j, None], weights[..., j, None] * odd, 0)
    return out


def block_sparse_attention_work(block_mask, *, t, d, block_size, causal=False, key_positions=None):
    """Count the work of the forward pass from the mask alone: what must be computed, see `kernels.attention.cost`.

    Parameters
    ----------
    block_mask : (b, h, t_blocks, t_blocks) bool.
    key_positions : (b, h, t), original position of each key slot where keys were permuted; used by ``causal``.
    """
    name = "block_sparse_attention_work"
    t, d, block_size = (
        as_int(value, function=name, name=label, low=low, high=2**31)
        for label, value, low in (("t", t, 0), ("d", d, 1), ("block_size", block_size, 1))
    )
    blocks, kept = -(-t // block_size), np.asarray(block_mask)
    if kept.dtype != np.bool_ or kept.ndim != 4 or kept.shape[2:] != (blocks, blocks):
        raise ValueError(
            f"{name}: block_mask must be bool of shape (b, h, {blocks}, {blocks}), got {kept.dtype} {kept.shape}"
        )
    pairs = pairs_in_blocks(t, block_size=block_size, causal=causal, key_positions=key_positions)
    pairs = np.broadcast_to(pairs, kept.shape)
    keys = np.minimum(block_size, t - block_size * np.arange(kept.shape[3]))
    read = int((np.count_nonzero(kept & (pairs > 0), axis=2) @ keys).sum())
    streamed = FLOAT_BYTES * d * (2 * t * kept.shape[0] * kept.shape[1] + 2 * read)
    return Work(flops=4 * d * int(pairs.sum(where=kept, dtype=np.int64)), bytes_streamed=streamed, gathers=0)


def _checked(name, q, k, v, block_mask, block_size, causal, scale, key_positions, num_threads):
    for label, array in (("q", q), ("k", k), ("v", v)):
        check_array(array, function=name, name=label, dtypes=(np.float32, np.uint16))
        if array.ndim != 4 or array.shape != q.shape or array.dtype != q.dtype:
            raise ValueError(
                f"{name}: q, k, v must have one shape (b, h, t, d) and dtype; q is {q.dtype} {q.shape}, "
                f"{label} is {array.dtype} {array.shape}"
            )
    b, h, t, d = q.shape
    if not 1 <= d <= 512:
        raise ValueError(f"{name}: d must be from 1 to 512, got {d}")
    block_size = as_int(block_size, function=name, name="block_size")
    if block_size not in range(16, 129, 16):
        raise ValueError(f"{name}: block_size must be a multiple of 16 from 16 to 128, got {block_size}")
    blocks = -(-t // block_size)
    check_array(block_mask, function=name, name="block_mask", dtypes=(np.bool_,))
    if block_mask.shape not in ((b, h, blocks, blocks), (1, h, blocks, blocks)):
        raise ValueError(
            f"{name}: block_mask must have shape ({b} or 1, {h}, {blocks}, {blocks}), got {block_mask.shape}"
        )
    if key_positions is not None:
        check_unmasked(key_positions, function=name, name="key_positions")
        key_positions = np.asarray(key_positions)
        if key_positions.shape != (b, h, t) or not np.issubdtype(key_positions.dtype, np.integer):
            raise ValueError(
                f"{name}: key_positions must be integers of shape ({b}, {h}, {t}), "
                f"got {key_positions.dtype} {key_positions.shape}"
            )
        if not (np.sort(key_positions, axis=2) == np.arange(t)).all():
            raise ValueError(f"{name}: key_positions must be a permutation of 0..{t - 1} in every head")
        key_positions = np.ascontiguousarray(key_positions, np.int32)
    scale = d**-0.5 if scale is None else as_number(scale, function=name, name="scale")
    threads = check_threads(num_threads, function=name)
    arrays = (np.ascontiguousarray(x) for x in (q, k, v))
    return *arrays, np.ascontiguousarray(block_mask).view(np.uint8), key_positions, block_size, scale, threads
