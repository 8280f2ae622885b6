"""Heads of a sentence encoder on windows of text, their block scores, and what a choice of blocks covers of them."""

from dataclasses import dataclass, replace

import numpy as np

from workbench.data.text import documents
from workbench.models.attention.xattention import block_scores
from workbench.models.language import minilm

BLOCK = 32
PERMUTATIONS = 4


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
