"""Coverage over density of a method's settings: one scoring pass per curve, then only selections."""

from dataclasses import dataclass

import numpy as np
import torch

from kernels.masks.block_select import block_density, select_blocks
from workbench.models.attention import combiner, pbs_attn, sea, xattention

__all__ = [
    "KEYS",
    "SEGMENTS",
    "THRESHOLDS",
    "Curve",
    "block_mass",
    "of_keys",
    "of_samplers",
    "of_segments",
    "of_sorting",
]

THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
KEYS = (2, 4, 8, 16, 32, 64)
SEGMENTS = (2, 4, 8, 16, 32, 64, 128)
SAMPLERS = ("antidiagonal", "diagonal", "random")
SORTS = ("keys", "random", "none")


@dataclass(frozen=True)
class Curve:
    """One line: a label, the settings' texts, and density and coverage of each."""

    label: str
    settings: tuple[str, ...]
    density: np.ndarray
    coverage: np.ndarray


def block_mass(attention, block_size) -> np.ndarray:
    """Sum an attention matrix (t, t) over blocks, (n, n) float64."""
    t, missing = len(attention), -len(attention) % block_size
    padded = np.pad(attention, [(0, missing), (0, missing)]) if missing else attention
    n = len(padded) // block_size
    by_columns = padded.reshape(t + missing, n, block_size).sum(axis=2, dtype=np.float64)
    return by_columns.reshape(n, block_size, n).sum(axis=1)


def of_samplers(given, s, seen) -> list[Curve]:
    """Return one curve per line that XAttention may read, over thresholds."""
    if seen.attention is None:
        return []
    mass = block_mass(seen.attention, s["block"])
    how = {"block_size": s["block"], "stride": s["stride"], "causal": given.causal}
    found = []
    for mode in dict.fromkeys((s["sampler"], *SAMPLERS)):
        scores = xattention.block_scores(given.q, given.k, mode=mode, **how)
        keeps = [select_blocks(scores, tau, causal=given.causal) for tau in THRESHOLDS]
        density = [block_density(keep, causal=given.causal) for keep in keeps]
        found.append(_over_thresholds(f"XAttention, {mode.replace('_', ' ')}", density, keeps, mass))
    return found


def of_sorting(given, s, seen, **sizes) -> list[Curve]:
    """Return one curve per order of the keys, over thresholds; the true attention is sorted alike."""
    if seen.attention is None:
        return []
    found = []
    for permute in dict.fromkeys((s["permute"], *SORTS)):
        scored = pbs_attn.scored_mask(given.q, given.k, permute=permute, **sizes)
        rows, columns = scored.query_perm[0, 0], scored.perm[0, 0]
        alike = seen.attention if permute not in ("queries", "both") else seen.attention[rows]
        mass = block_mass(alike[:, columns] if permute != "none" else alike, scored.block_size)
        masks = [pbs_attn.select_again(scored, tau) for tau in THRESHOLDS]
        density = [pbs_attn.computed_density(mask) for mask in masks]
        label = {"keys": "sorted keys", "none": "unsorted", "random": "random order"}.get(permute, f"sorted {permute}")
        found.append(_over_thresholds(f"PBS-Attn, {label}", density, [mask.keep for mask in masks], mass))
    return found


def of_keys(given, s, seen) -> list[Curve]:
    """Return SEA's curve over keys per query, from the one estimate, and beside an estimator's the oracle's."""
    lengths = torch.tensor([seen.t])
    estimates = {seen.method: torch.from_numpy(seen.estimate)[None, None]}
    if s["estimator"] != "oracle":
        best = sea.oracle_estimate(given.q, given.k, s["cells"], lengths, causal=given.causal)
        estimates["SEA (oracle estimate)"] = best
    attention = torch.from_numpy(seen.attention)
    pairs = seen.t * (seen.t + 1) / 2 if given.causal else seen.t**2
    found = []
    for name, est in estimates.items():
        density, coverage = [], []
        for keys in KEYS:
            cells = sea.grouped_topk(est, keys, lengths, "query", causal=given.causal)
            allowed = sea.expand_cells(cells, lengths, causal=given.causal)[0, 0]
            density.append(float(allowed.sum() / pairs))
            coverage.append(float((attention * allowed).sum() / attention.sum()))
        settings = tuple(f"{keys} keys" for keys in KEYS)
        found.append(Curve(f"{name}, cells per query", settings, np.array(density), np.array(coverage)))
    return found


def of_segments(given, s, seen, *, pattern, seg_len, causal) -> list[Curve]:
    """Return what the sparse pattern under a Combiner holds by itself, over segment lengths; nothing if not causal."""
    if not causal:
        return []
    lengths = [seg_len] if pattern == "logsparse" else [each for each in SEGMENTS if each < seen.t]
    masks = [combiner.sparse_counterpart_mask(pattern, seen.t, each) for each in lengths]
    density = np.array([mask.sum() / (seen.t * (seen.t + 1) / 2) for mask in masks])
    coverage = np.array([(seen.attention * mask).sum() / seen.attention.sum() for mask in masks])
    label = f"the pattern alone, {pattern.replace('_', ' ')}"
    return [Curve(label, tuple(f"segments of {each}" for each in lengths), density, coverage)]


def _over_thresholds(label, density, keeps, mass):
    coverage = [float((mass * keep[0, 0]).sum() / mass.sum()) for keep in keeps]
    return Curve(label, tuple(f"threshold {tau:g}" for tau in THRESHOLDS), np.array(density), np.array(coverage))
