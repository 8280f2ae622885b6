"""Coverage over density of a method's settings: one scoring pass per curve, then only selections."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

from kernels.masks.block_select import block_density, select_blocks
from workbench.models import pbs_attn, sea, xattention

__all__ = ["KEYS", "THRESHOLDS", "Curve", "block_mass", "of_keys", "of_samplers", "of_sorting", "sorted_selection"]

THRESHOLDS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
KEYS = (2, 4, 8, 16, 32, 64)
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
    starts = np.arange(0, len(attention), block_size)
    return np.add.reduceat(np.add.reduceat(attention, starts, axis=1, dtype=np.float64), starts, axis=0)


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
    """Return one curve per order of the keys, over thresholds; the true attention is sorted alike to see what is held."""
    if seen.attention is None:
        return []
    found = []
    for permute in dict.fromkeys((s["permute"], *SORTS)):
        mask = sorted_selection(given, permute, threshold=0.0, **sizes)
        rows, columns = mask.query_perm[0, 0], mask.perm[0, 0]
        mass = block_mass(seen.attention[rows][:, columns], mask.block_size)
        masks = [dataclasses.replace(mask, keep=_kept(mask, tau)) for tau in THRESHOLDS]
        density = [pbs_attn.computed_density(at) for at in masks]
        label = {"keys": "sorted keys", "none": "unsorted", "random": "random order"}.get(permute, f"sorted {permute}")
        found.append(_over_thresholds(f"PBS-Attn, {label}", density, [at.keep for at in masks], mass))
    return found


def sorted_selection(given, permute, *, threshold, **sizes) -> pbs_attn.PBSMask:
    """Sort as asked, score blocks, select: all that PBS-Attn does before it attends."""
    q, k = given.q.numpy(), given.k.numpy()
    identity = np.arange(q.shape[2])[None, None]
    keys = rows = identity
    if permute == "random":
        span = sizes["segment_size"] if sizes["causal"] else q.shape[2]
        keys = pbs_attn.random_segment_permutation(q.shape, span, seed=0)
    elif permute != "none":
        order = pbs_attn.query_aware_permutation(q, k, **sizes)
        keys = order if permute in ("keys", "both") else identity
        rows = order if permute in ("queries", "both") else identity
    q, k = (np.take_along_axis(x, at[..., None], axis=2) for x, at in ((q, rows), (k, keys)))
    return pbs_attn.permuted_block_selection(q, k, keys, query_perm=rows, threshold=threshold, **sizes)


def _kept(mask, threshold):
    """What `permuted_block_selection` keeps at a threshold, from the scores of the same selection at threshold 0."""
    n = len(mask.segment_mask)
    eligible = np.tri(n, dtype=bool) & ~mask.segment_mask if mask.causal else np.ones((n, n), bool)
    return select_blocks(mask.block_scores, threshold, causal=False, eligible=eligible) | mask.keep


def of_keys(given, s, seen) -> list[Curve]:
    """Return SEA's curve over keys per query, from the one estimate."""
    lengths = torch.tensor([seen.t])
    est = torch.from_numpy(seen.estimate)[None, None]
    attention = torch.from_numpy(seen.attention)
    pairs = seen.t * (seen.t + 1) / 2 if given.causal else seen.t**2
    density, coverage = [], []
    for keys in KEYS:
        cells = sea.grouped_topk(est, keys, lengths, "query", causal=given.causal)
        allowed = sea.expand_cells(cells, lengths, causal=given.causal)[0, 0]
        density.append(float(allowed.sum() / pairs))
        coverage.append(float((attention * allowed).sum() / attention.sum()))
    return [Curve("SEA, cells per query", tuple(f"{k} keys" for k in KEYS), np.array(density), np.array(coverage))]


def _over_thresholds(label, density, keeps, mass):
    coverage = [float((mass * keep[0, 0]).sum() / mass.sum()) for keep in keeps]
    return Curve(label, tuple(f"threshold {tau:g}" for tau in THRESHOLDS), np.array(density), np.array(coverage))
