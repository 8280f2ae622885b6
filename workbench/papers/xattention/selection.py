"""A threshold against top-k and ratio on a sentence encoder's heads, and thresholds searched head by head."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from kernels.attention.block_sparse import block_sparse_attention
from kernels.attention.cost import pair_share
from kernels.masks.block_scores import true_block_mass
from kernels.masks.block_select import select_blocks
from workbench import paper
from workbench.models.attention.xattention import dp_thresholds, profile_thresholds
from workbench.papers.xattention.heads import BLOCK, PLANS, covered, encoder_heads, scores_of

START, FACTOR, FIXED = 0.9 / 0.97**3, 0.97, 3  # the fixed threshold 0.9 is three lowerings from the start
row = partial(paper.row, kind="measured")


def selection(size, seed, report):
    """Compare a threshold with top-k and ratio, and one threshold for all with one per head."""
    report(0.0, "true attention of every head")
    heads = encoder_heads(size, seed)
    mass = true_block_mass(heads.q, heads.k, block_size=BLOCK, causal=False)
    scores = scores_of(heads, "antidiagonal", 8, seed)[0]
    settings = [("threshold", tau, {"threshold": tau}) for tau in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)]
    settings += [("top-k", k, {"method": "topk", "k": k}) for k in (4, 6, 8, 10, 12)]
    settings += [("ratio", k, {"method": "ratio", "k": k}) for k in (0.25, 0.5, 0.75)]
    rows = []
    for rule, setting, how in settings:
        keep = select_blocks(scores, causal=False, **how)
        labels = {"rule": rule, "setting": setting, "stride": 8, "block": BLOCK}
        rows.append(row("mass kept", float(covered(mass, keep).mean()), "fraction", **labels))
        rows.append(row("density", pair_share(keep, heads.q.shape[2], block_size=BLOCK), "fraction", **labels))
    return rows + _thresholds(heads, PLANS[size].passes, report)


@dataclass(frozen=True)
class LayerCosts:
    """What each threshold of `grid` costs each head of a layer, (heads, grid), and the norm of the layer's output."""

    squared_error: np.ndarray
    density: np.ndarray
    squared_norm: float

    def error(self, thresholds) -> float:
        """Return the relative error of the layer's attention output, all heads side by side."""
        return float(np.sqrt(self._pick(self.squared_error, thresholds).sum() / self.squared_norm))

    def kept(self, thresholds) -> float:
        """Return the density, over all heads."""
        return float(self._pick(self.density, thresholds).mean())

    def _pick(self, table, thresholds):
        steps = np.rint(np.log(thresholds / START) / np.log(FACTOR)).astype(int)
        return table[np.arange(len(table)), steps]


def grid(passes) -> np.ndarray:
    """Return the thresholds that so many lowerings of one head can reach, from the start down."""
    return START * FACTOR ** np.arange(passes + 1)


def layer_costs(heads, passes) -> LayerCosts:
    """Attend with every threshold of `grid`, and compare with dense attention."""
    _, count, t, _ = heads.q.shape
    blocks = -(-t // BLOCK)
    scores = scores_of(heads, "antidiagonal", 8, 0)[0]
    dense = _attend(heads, np.ones((1, count, blocks, blocks), bool))
    squared, density = np.empty((2, count, passes + 1))
    for step, tau in enumerate(grid(passes)):
        keep = select_blocks(scores, tau, causal=False)
        squared[:, step] = np.square(_attend(heads, keep) - dense).sum(axis=(0, 2, 3))
        density[:, step] = [pair_share(keep[:, head], t, block_size=BLOCK) for head in range(count)]
    return LayerCosts(squared, density, float(np.square(dense).sum()))


def _attend(heads, keep):
    return block_sparse_attention(heads.q, heads.k, heads.v, keep, block_size=BLOCK).astype(np.float64)


def _thresholds(heads, passes, report):
    half = len(heads.q) // 2
    layers = np.unique(heads.layer)
    rows = []
    for place, layer in enumerate(layers):
        report(0.2 + 0.8 * place / len(layers), f"thresholds of layer {layer}")
        texts = {"calibration": heads.part(slice(0, half), layer), "held out": heads.part(slice(half, None), layer)}
        costs = {text: layer_costs(part, passes) for text, part in texts.items()}
        for method, tau in _chosen(texts["calibration"], costs["calibration"], passes).items():
            labels = {"layer": int(layer), "thresholds": method, "stride": 8, "block": BLOCK}
            rows.append(row("mean threshold", float(tau.mean()), "fraction", **labels))
            for text, part in texts.items():
                exact = _exact(part, tau) if method == "profiled" else (costs[text].error(tau), costs[text].kept(tau))
                rows.append(row("output error", exact[0], "relative", text=text, **labels))
                rows.append(row("density", exact[1], "fraction", text=text, **labels))
    return rows


def _chosen(calibration, costs, passes):
    """Return thresholds per head: fixed; the sparsest no worse than fixed in the search; by the released profiling."""
    count = len(costs.density)
    fixed = np.full(count, grid(passes)[FIXED])
    table = dp_thresholds(lambda tau: -costs.error(tau), count, start=START, factor=FACTOR, passes=passes)
    bar = -costs.error(fixed)
    good = [fixed, *(tau for value, tau in zip(table.performance, table.thresholds, strict=True) if value >= bar)]
    windows = [(calibration.q[i : i + 1], calibration.k[i : i + 1]) for i in range(len(calibration.q))]
    profiled = profile_thresholds(windows, block_size=BLOCK, stride=8, causal=False)
    return {"fixed 0.9": fixed, "minimum": min(good, key=costs.kept), "profiled": profiled}


def _exact(part, tau):
    keep = select_blocks(scores_of(part, "antidiagonal", 8, 0)[0], tau, causal=False)
    dense = _attend(part, np.ones(keep.shape, bool))
    return float(np.linalg.norm(_attend(part, keep) - dense) / np.linalg.norm(dense)), pair_share(
        keep, part.q.shape[2], block_size=BLOCK
    )
