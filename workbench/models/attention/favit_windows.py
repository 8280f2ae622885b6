"""FaViT's windows: which pixels share a key, and the keys that are fused from them.

Qin et al. 2023, "Factorization Vision Transformer", arXiv 2312.08614, section 3.2.
Symbols: H x W map, M window, s = dilation (M - 1) + 1 span, n_w windows, r = a M + b place in a window.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse

__all__ = ["factorized_keys", "fusion_matrix", "window_source_index"]


def window_source_index(height, width, window=7, dilation=1) -> torch.Tensor:
    """Return which pixel each window reads at each place, (n_w, M*M) int64, after reflection at right and bottom.

    Windows do not overlap: their stride is the dilated span. Places are row-major, r = a M + b.

    Raises
    ------
    ValueError : the padding would be as large as the map; names the smallest map that works.

    Source
    ------
    Qin et al. 2023, section 3.2 (dilated windows).
    """
    sources = []
    for name, size in (("height", height), ("width", width)):
        span, padded = _padded(name, size, window, dilation)
        start = torch.arange(0, padded, span)[:, None] + dilation * torch.arange(window)  # (windows, M)
        sources.append(torch.where(start < size, start, 2 * (size - 1) - start))
    rows, columns = sources
    flat = rows[:, None, :, None] * width + columns[None, :, None, :]  # (windows down, windows across, M, M)
    return flat.reshape(-1, window * window)


def _padded(name, size, window, dilation):
    """Span of a window, and the side after padding to a multiple of it."""
    span = dilation * (window - 1) + 1
    padded = -(-size // span) * span
    if padded - size >= size:
        raise ValueError(
            f"window_source_index: {name} {size} is too small for window {window} with dilation {dilation}: "
            f"reflection would need {padded - size} more pixels; the smallest {name} that works is {span // 2 + 1}"
        )
    return span, padded


def fusion_matrix(height, width, window=7, dilation=1) -> sparse.csr_array:
    """Return S with z = S x: row r averages the pixels at place r of all windows, (M*M, H*W); rows sum to 1."""
    source = window_source_index(height, width, window, dilation).numpy()
    windows, places = source.shape
    rows = np.repeat(np.arange(places), windows)
    return sparse.csr_array(
        (np.full(source.size, 1 / windows), (rows, source.T.ravel())), shape=(places, height * width)
    )


def factorized_keys(x_map, *, window=7, dilation=1, pooling="window_mean", heads=1):
    """Fuse tokens at the same place of all windows into one key token each.

    Parameters
    ----------
    x_map : (B, c, H, W) float tensor, c a multiple of ``heads``.
    pooling : "window_mean" averages each channel over windows; "released" reproduces the released code, which averages
        runs of n_w entries of the (window, channel) array of each head: it matches published weights.

    Returns
    -------
    (B, h, M*M, c / h).

    Source
    ------
    Qin et al. 2023, section 3.2 (cross-window fusion).
    """
    if pooling not in ("window_mean", "released"):
        raise ValueError(f"factorized_keys: pooling must be 'window_mean' or 'released', got {pooling!r}")
    c, height, width = x_map.shape[1:]
    if c % heads:
        raise ValueError(f"factorized_keys: {c} channels do not divide among {heads} heads")
    span, tall = _padded("height", height, window, dilation)
    wide = _padded("width", width, window, dilation)[1]
    padded = F.pad(x_map, (0, wide - width, 0, tall - height), mode="reflect")
    cut = padded.unflatten(3, (-1, span)).unflatten(2, (-1, span))  # (B, c, down, s, across, s)
    taken = (
        cut[:, :, :, ::dilation, :, ::dilation].permute(0, 1, 2, 4, 3, 5).flatten(4).flatten(2, 3)
    )  # (B, c, n_w, M*M)
    taken = taken.unflatten(1, (heads, c // heads))
    if pooling == "window_mean":
        return taken.mean(3).mT
    by_window = taken.permute(0, 1, 4, 3, 2).flatten(3)  # (B, h, M*M, n_w * c/h), window major
    return by_window.unflatten(3, (c // heads, -1)).mean(4)
