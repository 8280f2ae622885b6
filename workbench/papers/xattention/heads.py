"""XAttention on a sentence encoder's heads: samplers at equal budgets, selection rules, thresholds per head."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from kernels.attention.block_sparse import block_sparse_attention
from kernels.masks.block_scores import true_block_mass
from kernels.masks.block_select import select_blocks
from workbench import paper
from workbench.data.text import documents
from workbench.models.attention.xattention import block_scores, dp_thresholds, profile_thresholds
from workbench.models.language import minilm

BLOCK = 32
STRIDES = (4, 8, 16, 32)
WIDE_BLOCK = 64  # for strides up to 64
PERMUTATIONS = 4
SAMPLERS = ("antidiagonal", "random", "diagonal", "double", "triple", "every second query group", "mean_pool")
START, FACTOR, FIXED = 0.9 / 0.97**3, 0.97, 3  # the fixed threshold 0.9 is three lowerings from the start


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much one size does: windows of ``tokens`` tokens, layers, passes of the search for thresholds per head.

    ``documents`` of text are cut into windows, of which the seed draws some; None takes all.
    """

    windows: int
    tokens: int = 512
    layers: tuple[int, ...] = tuple(range(6))
    passes: int = 14
    documents: int | None = None


PLANS = {
    "tiny": Plan(windows=2, tokens=256, layers=(3,), passes=4, documents=8),
    "small": Plan(windows=4),
    "full": Plan(windows=12),
}


@dataclass(frozen=True)
class Heads:
    """Inputs of many heads on windows of text: q, k, v (windows, heads, t, d), and their layers (heads,)."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    layer: np.ndarray

    def part(self, windows=slice(None), layer=None):
        """Return some windows, and one layer's heads."""
        heads = slice(None) if layer is None else self.layer == layer
        cut = {name: np.ascontiguousarray(getattr(self, name)[windows][:, heads]) for name in "qkv"}
        return replace(self, **cut, layer=self.layer[heads])


def encoder_heads(size, seed) -> Heads:
    """Return heads of the MiniLM encoder on windows that are drawn from the Python documentation."""
    plan, model = PLANS[size], minilm.load()
    cut = model.windows("\n\n".join(d.text for d in documents("documentation")[: plan.documents]), plan.tokens)
    taken = np.sort(np.random.default_rng(seed).choice(len(cut), plan.windows, replace=False))
    found = [model.qkv(cut[taken], layer) for layer in plan.layers]
    q, k, v = (np.concatenate([each[i].numpy() for each in found], axis=1) for i in range(3))
    return Heads(q, k, v, np.repeat(plan.layers, model.config.heads))


row = partial(paper.row, kind="measured")


def scores_of(heads, sampler, stride, seed, block=BLOCK):
    """Return the block scores of a sampler: a list, since "random" is several permutations that are averaged later."""
    how = {"block_size": block, "stride": stride, "causal": False}
    if sampler == "random":
        return [block_scores(heads.q, heads.k, mode=sampler, seed=seed + i, **how) for i in range(PERMUTATIONS)]
    if sampler == "every second query group":
        if block % (2 * stride):
            return []
        return [block_scores(heads.q, heads.k, query_every=2, **how)]
    return [block_scores(heads.q, heads.k, mode=sampler, **how)]


def covered(mass, keep) -> np.ndarray:
    """Return the share of the true mass on kept blocks, (windows, heads)."""
    return (mass * keep).sum(axis=(2, 3)) / mass.sum(axis=(2, 3))


def _quarter(mass, scores):
    return covered(mass, select_blocks(scores, causal=False, method="topk", k=scores.shape[3] // 4))


def samplers(size, seed, report):
    """Compare what each sampler keeps: a quarter of the blocks, and a threshold of 0.9."""
    report(0.0, "true attention of every head")
    heads = encoder_heads(size, seed)
    mass = true_block_mass(heads.q, heads.k, block_size=BLOCK, causal=False)
    facts = {"windows": len(mass), "heads": mass.shape[1], "block": BLOCK}
    rows = [row("mass kept, a quarter of the blocks", float(_quarter(mass, mass).mean()), "fraction", sampler="oracle")]
    for place, stride in enumerate(STRIDES):
        report(0.3 + 0.6 * place / len(STRIDES), f"stride {stride}")
        rows += _at_stride(heads, mass, stride, seed)
    wide = true_block_mass(heads.q, heads.k, block_size=WIDE_BLOCK, causal=False)
    for stride in (4, 8, 16, 64):
        kept = _quarter(wide, scores_of(heads, "antidiagonal", stride, seed, WIDE_BLOCK)[0]).mean()
        labels = {"sampler": "antidiagonal", "stride": stride, "block": WIDE_BLOCK}
        rows.append(row("mass kept, a quarter of the blocks", float(kept), "fraction", **labels))
    return [facts | each for each in rows]


def _at_stride(heads, mass, stride, seed):
    rows, per_head = [], {}
    for sampler in SAMPLERS:
        found = scores_of(heads, sampler, stride, seed)
        if not found:
            continue
        kept = np.mean([_quarter(mass, scores) for scores in found], axis=0)
        keeps = [select_blocks(scores, 0.9, causal=False) for scores in found]
        per_head[sampler] = kept.mean(axis=0)
        values = {
            "mass kept, a quarter of the blocks": kept.mean(),
            "mass kept, threshold 0.9": np.mean([covered(mass, keep).mean() for keep in keeps]),
            "density, threshold 0.9": np.mean([keep.mean() for keep in keeps]),
        }
        rows += [row(name, float(x), "fraction", sampler=sampler, stride=stride) for name, x in values.items()]
    ours = per_head.pop("antidiagonal")
    for sampler, theirs in per_head.items():
        lead = ours - theirs
        labels = {"sampler": "antidiagonal", "against": sampler, "stride": stride}
        error = lead.std(ddof=1) / np.sqrt(len(lead))
        rows.append(row("lead in mass kept, a quarter of the blocks", float(lead.mean()), "fraction", **labels))
        rows.append(row("standard error of the lead over heads", float(error), "fraction", **labels))
        rows.append(row("heads on which the antidiagonal is ahead", float((lead > 0).mean()), "fraction", **labels))
        if stride == 8 and sampler in ("diagonal", "random"):
            rows += [
                row("lead of one head", float(x), "fraction", layer=int(heads.layer[i]), head=i % 12, **labels)
                for i, x in enumerate(lead)
            ]
    return rows


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
        rows.append(row("density", float(keep.mean()), "fraction", **labels))
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
        """Return the share of kept blocks."""
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
        density[:, step] = keep.mean(axis=(0, 2, 3))
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
    return float(np.linalg.norm(_attend(part, keep) - dense) / np.linalg.norm(dense)), float(keep.mean())
