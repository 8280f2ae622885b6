"""Queries and keys drawn so that attention has a known pattern: slashes, a column, heavy keys."""

import numpy as np

__all__ = ["heavy_hitters", "slash", "vertical_slash"]


def slash(t, *, heads=1, width=2, d=128, seed=0, delta_up_to=400, column_up_to=512, delta=None, column=None):
    """Draw q and k of `vertical_slash`, and where the pattern lies, without the mask of all pairs.

    Returns
    -------
    q, k : (1, heads, t, d) float32; delta, column : (heads,) offsets and columns.
    """
    rng = np.random.default_rng(seed)
    codes = rng.choice(np.float32([-1, 1]), (heads, 1024 + t, d))
    common = rng.choice(np.float32([-1, 1]), (heads, d))
    drawn = rng.integers(3, max(4, min(delta_up_to, t)), heads)
    drawn_column = rng.integers(0, max(1, min(column_up_to, t)), heads)
    delta = np.broadcast_to(drawn if delta is None else delta, heads)
    column = np.broadcast_to(drawn_column if column is None else column, heads)
    if delta.max(initial=0) + width > 1024 or delta.min(initial=0) < 0 or width < 1:
        raise ValueError(f"slash: delta + width must be from 1 to 1,024 and delta not negative, got {delta}, {width}")
    if column.min(initial=0) < 0 or column.max(initial=0) >= max(t, 1):
        raise ValueError(f"slash: column must be from 0 to {t - 1}, got {column}")
    k, q = codes[:, 1024:].copy(), np.empty((heads, t, d), np.float32)
    for h in range(heads):
        k[h, column[h]] += common[h]
        first = 1024 - delta[h]
        q[h] = sum(codes[h, first - w : first - w + t] for w in range(width)) + common[h]
    return q[None], k[None], delta, column


def vertical_slash(t, *, heads=1, width=2, d=128, seed=0, delta_up_to=400, column_up_to=512, delta=None, column=None):
    """Draw the pattern that antidiagonal scoring is made for: slashes of ``width`` and one column per head.

    Key j carries the sign code u_j; query i looks for u_(i - delta), ..., and for the column's code.

    Parameters
    ----------
    delta, column : offset of the slash and place of the column, a number or one per head; drawn if None.

    Returns
    -------
    q, k : (1, heads, t, d) float32; true : (1, heads, t, t) bool, the pairs that belong to the pattern.

    Source
    ------
    Our generator for the picture in Xu et al. 2025, "XAttention", Figure 1.
    """
    how = {"delta_up_to": delta_up_to, "column_up_to": column_up_to, "delta": delta, "column": column}
    q, k, delta, column = slash(t, heads=heads, width=width, d=d, seed=seed, **how)
    true = np.zeros((heads, t, t), bool)
    for h in range(heads):
        for w in range(width):
            rows = np.arange(delta[h] + w, t)
            true[h, rows, rows - delta[h] - w] = True
        true[h, column[h] :, column[h]] = True
    return q, k, true[None]


def heavy_hitters(t, *, d=64, share=0.02, seed=0):
    """Draw one head in which every query looks for the same few keys, heavy with probability ``share``.

    Returns
    -------
    q, k : (1, 1, t, d) float32.

    Source
    ------
    Our generator for the setting of Wang et al. 2025, "PBS-Attn".
    """
    rng = np.random.default_rng(seed)
    u = np.zeros(d, np.float32)
    u[0] = 1
    q = (0.5 * rng.standard_normal((t, d)) + 3.4 * u).astype(np.float32)
    k = (0.5 * rng.standard_normal((t, d)) + 17 * u * (rng.random(t) < share)[:, None]).astype(np.float32)
    return q[None, None], k[None, None]
