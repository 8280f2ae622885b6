"""What one pixel reads under windows, fused keys, a strided summary and full attention: pictures to look at."""

from dataclasses import dataclass

import numpy as np

from workbench.models.attention.favit_windows import fusion_matrix

__all__ = ["Reading", "pixel_readings"]


@dataclass(frozen=True)
class Reading:
    """The attention of one query under one kind of keys.

    Parameters
    ----------
    name : kind of keys, for readers.
    weights : (rows, columns) float32, attention to the keys on their own grid; adds up to 1.
    heat : (H, W) float32, how much of every pixel is read; adds up to 1.
    reached : (H, W) bool, pixels that any key is made of.
    products : multiply-adds of this query: two per key and channel.
    """

    name: str
    weights: np.ndarray
    heat: np.ndarray
    reached: np.ndarray
    products: int

    @property
    def keys(self) -> int:
        """Keys that the query meets."""
        return self.weights.size


def pixel_readings(tokens, height, width, query, *, window=7, dilation=8, sr=8) -> tuple[Reading, ...]:
    """Return what one query reads: full attention, a Swin window, both FaSA window groups, and the global group.

    Keys are averages of tokens (FaSA's learnt maps and convolutions are left out, the strided convolution is drawn as
    an average), queries and keys are the tokens themselves.

    Parameters
    ----------
    tokens : (H * W, d) float, in raster order.
    query : index of the query.
    window, dilation, sr : M, distance of the coarse group's pixels, stride of the global group.

    Raises
    ------
    ValueError : shapes, a query outside, a map that is no multiple of sr, or windows that do not fit.

    Source
    ------
    Qin et al. 2023, "Factorization Vision Transformer", section 3.2.
    """
    tokens = np.asarray(tokens, np.float32)
    n, d = tokens.shape
    if n != height * width or not 0 <= query < n:
        raise ValueError(f"pixel_readings: {n} tokens and query {query} do not fit a map of {height} x {width}")
    if height % sr or width % sr:
        raise ValueError(
            f"pixel_readings: the map, {height} x {width}, must be a multiple of the stride {sr} on both sides"
        )
    everything = np.ones((height, width), bool)
    full = _softmax(tokens @ tokens[query] / np.sqrt(d)).reshape(height, width)
    found = [Reading("full attention", full, full, everything, 2 * n * d)]
    found.append(_window(tokens, height, width, query, window))
    for name, each in (("FaSA, dilation 1", 1), (f"FaSA, dilation {dilation}", dilation)):
        fusion = fusion_matrix(height, width, window, each)
        found.append(_fused(name, tokens, fusion, query, (window, window), (height, width)))
    rows, columns = height // sr, width // sr
    cell = (np.arange(height)[:, None] // sr * columns + np.arange(width) // sr).ravel()
    summary = np.equal.outer(np.arange(rows * columns), cell).astype(np.float32) / sr**2
    found.append(_fused(f"FaSA, global, stride {sr}", tokens, summary, query, (rows, columns), (height, width)))
    return tuple(found)


def _fused(name, tokens, fusion, query, grid, shape):
    """Keys are the rows of ``fusion`` times the tokens; a pixel is read through every key that it is part of."""
    d = tokens.shape[1]
    weights = _softmax((fusion @ tokens) @ tokens[query] / np.sqrt(d))
    heat = np.asarray(fusion.T @ weights, np.float32).reshape(shape)
    reached = (np.asarray(fusion.sum(0)).ravel() > 0).reshape(shape)
    return Reading(name, weights.reshape(grid).astype(np.float32), heat, reached, 2 * weights.size * d)


def _window(tokens, height, width, query, window):
    """Attention inside the query's own window; windows at the edge may be cut."""
    row, column = query // width // window * window, query % width // window * window
    rows, columns = slice(row, min(row + window, height)), slice(column, min(column + window, width))
    reached = np.zeros((height, width), bool)
    reached[rows, columns] = True
    inside = tokens.reshape(height, width, -1)[rows, columns]
    weights = _softmax((inside @ tokens[query] / np.sqrt(tokens.shape[1])).ravel()).reshape(inside.shape[:2])
    heat = np.zeros((height, width), np.float32)
    heat[rows, columns] = weights
    return Reading("Swin window", weights, heat, reached, 2 * weights.size * tokens.shape[1])


def _softmax(logits):
    e = np.exp(logits - logits.max())
    return (e / e.sum()).astype(np.float32)
