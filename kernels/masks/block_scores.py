r"""How much attention each block pair holds, estimated without the full q k^T.

Antidiagonal scoring (Xu et al. 2025, "XAttention", section 2.1): in every stride x stride tile of the logits only one
line is read. With rows regrouped,

.. math:: \hat q_i = [q_{iS+S-1}, \dots, q_{iS}],\quad \hat k_j = [k_{jS}, \dots, k_{jS+S-1}],\quad
          \hat q_i \cdot \hat k_j = \sum_t q_{iS+S-1-t} \cdot k_{jS+t}

so the map of all tiles is one product with S times fewer rows and columns: 1 / S of the multiply-adds of q k^T.
Symbols: b h t d as everywhere, S stride, B block_size, n = t / S tiles.
"""

import numpy as np

MODES = ("antidiagonal", "diagonal", "random")


def antidiagonal_reshape(q, k, stride, *, mode="antidiagonal", seed=0):
    """Regroup rows so that one dot product sums one line of a stride x stride tile of the logits.

    Parameters
    ----------
    q : (b, h, tq, d) float32 or float64, tq a multiple of ``stride``.
    k : (b, h, tk, d), tk a multiple of ``stride``.
    mode : which line is read: "antidiagonal" meets every vertical and every slash of width two; "diagonal" and
        "random" (one permutation per call, from ``seed``) are the ablations.

    Returns
    -------
    (b, h, tq / S, S d) and (b, h, tk / S, S d).

    Raises
    ------
    ValueError : unknown mode, or a length that is no multiple of the stride.

    Source
    ------
    Xu et al. 2025, "XAttention", section 2.1 and Table 5 (samplers).
    """
    if mode not in MODES:
        raise ValueError(f"antidiagonal_reshape: mode must be one of {', '.join(MODES)}; got {mode!r}")
    for name, x in (("q", q), ("k", k)):
        if stride < 1 or x.shape[2] % stride:
            raise ValueError(
                f"antidiagonal_reshape: {name} has {x.shape[2]} tokens, not a multiple of stride {stride}; pad it"
            )
    orders = {"antidiagonal": np.arange(stride)[::-1], "diagonal": np.arange(stride)}
    order = orders[mode] if mode in orders else np.random.default_rng(seed).permutation(stride)

    def groups(x, line):
        b, h, t, d = x.shape
        return x.reshape(b, h, t // stride, stride, d)[:, :, :, line].reshape(b, h, t // stride, stride * d)

    return groups(q, order), groups(k, np.arange(stride))


def xattn_block_scores(q, k, *, block_size, stride, causal=True, mode="antidiagonal", seed=0):
    """Estimate the attention mass of every block pair from one line per tile.

    Softmax runs over the reduced keys of each reduced query; a block's score is the sum of its tiles. Queries are the
    last tq positions of the keys. Lengths that are no multiple of the block are padded at the end; padded keys get no
    mass, padded queries none to give.

    Parameters
    ----------
    q : (b, h, tq, d) float32 or float64.
    k : (b, h, tk, d), dtype of q; with ``causal`` tk >= tq and tk - tq a multiple of ``block_size``.
    block_size, stride : block_size a multiple of stride.
    mode, seed : see `antidiagonal_reshape`.

    Returns
    -------
    (b, h, ceil(tq / B), ceil(tk / B)), dtype of q: every row of whole blocks sums to B / S.

    Raises
    ------
    TypeError : q or k is not float32 or float64, or their dtypes differ.
    ValueError : shapes or sizes do not fit, or q or k holds NaN.

    Cost
    ----
    b h tq tk d / S multiply-adds; memory n^2 of one head at a time.

    Source
    ------
    Xu et al. 2025, "XAttention", section 2.1. The logits are divided by sqrt(d) S, so that they are the mean of the
    line; the diagonal tile is read whole, so its upper half counts too.
    """
    name = "xattn_block_scores"
    _check(name, q, k, block_size)
    if stride < 1 or block_size % stride:
        raise ValueError(f"{name}: block_size {block_size} must be a multiple of stride {stride}")
    tq, tk, d = q.shape[2], k.shape[2], q.shape[3]
    offset = tk - tq
    if causal and (offset < 0 or offset % block_size):
        raise ValueError(
            f"{name}: causal scoring takes queries that are the last positions: tk - tq = {offset} must be a multiple "
            f"of block_size {block_size} and not negative"
        )
    q_groups, k_groups = antidiagonal_reshape(
        _padded(q, block_size), _padded(k, block_size), stride, mode=mode, seed=seed
    )
    rows, cols, per_block = q_groups.shape[2], k_groups.shape[2], block_size // stride
    valid_rows = (np.arange(rows) * stride < tq)[:, None]
    hidden = np.broadcast_to(np.arange(cols) * stride >= tk, (rows, cols))
    if causal:
        hidden = hidden | (np.arange(cols) > np.arange(rows)[:, None] + offset // stride)
    scores = np.empty((*q.shape[:2], rows // per_block, cols // per_block), q.dtype)
    scale = q.dtype.type(1 / (np.sqrt(d) * stride))
    for batch, head in np.ndindex(*q.shape[:2]):
        mass = _softmax(q_groups[batch, head] @ k_groups[batch, head].T * scale, hidden) * valid_rows  # (n_q, n_k)
        scores[batch, head] = mass.reshape(rows // per_block, per_block, -1, per_block).sum(axis=(1, 3))
    return scores


def mean_pool_block_scores(q, k, *, block_size, hidden=None):
    """Estimate the attention mass of every block pair from block means.

    softmax over blocks of mean(Q_I) . mean(K_J) / sqrt(d); the last block's mean includes its zero padding.

    Parameters
    ----------
    q, k : (b, h, t, d) float32 or float64, same dtype.
    hidden : bool, broadcastable to (b, h, blocks, blocks): pairs that take no part; a row without any other is zero.

    Returns
    -------
    (b, h, ceil(tq / B), ceil(tk / B)), dtype of q; rows sum to 1, or 0 where all is hidden.

    Raises
    ------
    TypeError, ValueError : as `xattn_block_scores`.

    Source
    ------
    Wang et al. 2025, "PBS-Attn", section 3 (block selection); baseline in Xu et al. 2025.
    """
    _check("mean_pool_block_scores", q, k, block_size)
    q_mean, k_mean = (
        x.reshape(*x.shape[:2], -1, block_size, x.shape[3]).mean(axis=3)
        for x in (_padded(q, block_size), _padded(k, block_size))
    )
    logits = q_mean @ k_mean.swapaxes(2, 3) * q.dtype.type(q.shape[3] ** -0.5)
    return _softmax(logits, np.zeros((), bool) if hidden is None else hidden)


def true_block_mass(q, k, *, block_size, causal=True):
    """Sum the true attention of every block pair: the oracle, at the full cost of q k^T, one head at a time.

    Returns
    -------
    (b, h, ceil(tq / B), ceil(tk / B)) float64; every row of whole blocks sums to B.
    """
    _check("true_block_mass", q, k, block_size)
    tq, tk = q.shape[2], k.shape[2]
    hidden = np.arange(tk) > np.arange(tq)[:, None] + (tk - tq) if causal else np.zeros((), bool)
    blocks = (-(-tq // block_size), -(-tk // block_size))
    mass = np.empty((*q.shape[:2], *blocks))
    for batch, head in np.ndindex(*q.shape[:2]):
        p = _softmax(q[batch, head] @ k[batch, head].T * q.dtype.type(q.shape[3] ** -0.5), hidden)
        p = np.pad(p, [(0, blocks[0] * block_size - tq), (0, blocks[1] * block_size - tk)])
        mass[batch, head] = p.reshape(blocks[0], block_size, blocks[1], block_size).sum(axis=(1, 3), dtype=np.float64)
    return mass


def _check(name, q, k, block_size):
    for label, x in (("q", q), ("k", k)):
        if not isinstance(x, np.ndarray) or x.dtype not in (np.float32, np.float64) or x.dtype != q.dtype:
            raise TypeError(
                f"{name}: {label} must be float32 or float64 like q, got {getattr(x, 'dtype', type(x).__name__)}"
            )
        if x.ndim != 4 or x.shape[:2] != q.shape[:2] or x.shape[3] != q.shape[3]:
            raise ValueError(
                f"{name}: q is {q.shape}, {label} is {x.shape}; both must be (b, h, t, d) with equal b, h, d"
            )
        if np.isnan(x).any():
            raise ValueError(f"{name}: {label} holds NaN; scores of NaN would drop blocks at random")
    if not isinstance(block_size, (int, np.integer)) or block_size < 1:
        raise ValueError(f"{name}: block_size must be an int of at least 1, got {block_size!r}")


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
