"""Coverage of the true attention over density, in the forms that several methods share."""

import numpy as np

from kernels.attention.cost import dense_pairs
from widgets.figures.attention import CoverageCurve
from workbench.models.attention import combiner

__all__ = ["THRESHOLDS", "block_mass", "of_segments", "over_thresholds"]

THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
SEGMENTS = (2, 4, 8, 16, 32, 64, 128)


def block_mass(attention, block_size) -> np.ndarray:
    """Sum an attention matrix (t, t) over blocks, (n, n) float64."""
    t, missing = len(attention), -len(attention) % block_size
    padded = np.pad(attention, [(0, missing), (0, missing)]) if missing else attention
    n = len(padded) // block_size
    by_columns = padded.reshape(t + missing, n, block_size).sum(axis=2, dtype=np.float64)
    return by_columns.reshape(n, block_size, n).sum(axis=1)


def over_thresholds(label, density, keeps, mass) -> CoverageCurve:
    """Return a curve over `THRESHOLDS` from each one's kept blocks (1, 1, n, n) and the blocks' true mass (n, n)."""
    coverage = [float((mass * keep[0, 0]).sum() / mass.sum()) for keep in keeps]
    settings = tuple(f"threshold {tau:g}" for tau in THRESHOLDS)
    return CoverageCurve(label=label, settings=settings, density=np.array(density), coverage=np.array(coverage))


def of_segments(given, s, seen) -> list[CoverageCurve]:
    """Return what the sparse pattern under a Combiner holds by itself, over segment lengths; nothing if not causal."""
    if not given.causal:
        return []
    pattern, chosen = s["pattern"], s["segment_tokens"]
    lengths = [chosen] if pattern == "logsparse" else [each for each in SEGMENTS if each < seen.t]
    masks = [combiner.sparse_counterpart_mask(pattern, seen.t, each) for each in lengths]
    density = np.array([mask.sum() / dense_pairs(seen.t, causal=True) for mask in masks])
    coverage = np.array([(seen.attention * mask).sum() / seen.attention.sum() for mask in masks])
    label = f"the pattern alone, {pattern.replace('_', ' ')}"
    settings = tuple(f"segments of {each}" for each in lengths)
    return [CoverageCurve(label=label, settings=settings, density=density, coverage=coverage)]
