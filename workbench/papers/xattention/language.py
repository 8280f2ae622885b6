"""A language model with sparse attention in every layer: what its predictions cost."""

import numpy as np

from kernels.attention.cost import dense_pairs, kept_pairs, pair_share
from kernels.masks.block_select import select_blocks
from workbench.data.text import sample
from workbench.models.attention.xattention import block_scores, xattention
from workbench.models.language import tiny_lm
from workbench.paper import row

BLOCK = 64
PIECES = {"tiny": (2, 400), "small": (2, 6000), "full": (6, 8000)}  # of text, and characters of each
CONTEXTS = {"tiny": 128, "small": 1024, "full": 2048}
RATIOS = tuple(np.arange(1, 101) / 100)


def language(size, seed, report):
    """Let every layer of the embedded language model attend sparsely, and count what its predictions cost."""
    model, context = tiny_lm.load(), CONTEXTS[size]
    count, characters = PIECES[size]
    text = sample(count * characters)[0]
    pieces = [text[i * characters : (i + 1) * characters] for i in range(count)]
    block = min(BLOCK, context // 8)
    settings = _settings(size)
    rows = _cost(model, pieces, context, block, {"method": "dense"})
    for place, (labels, how) in enumerate(settings):
        report((place + 1) / (len(settings) + 3), ", ".join(map(str, labels.values())))
        rows += _cost(model, pieces, context, block, labels, _by_scores(block, seed, **how))
    matched = next(r["value"] for r in rows if r["quantity"] == "density" and r.get("threshold") == 0.9)
    for rule, method, budgets in (("top-k", "topk", range(1, context // block + 1)), ("ratio", "ratio", RATIOS)):
        report(0.9, rule)
        chooses = _at_density(block, seed, matched, method, budgets)
        rows += _cost(model, pieces, context, block, {"method": rule, "stride": 8}, chooses)
    return [{"context": context, "block": block} | each for each in rows]


def _settings(size):
    labels = [("antidiagonal", 8, tau) for tau in ((0.9,) if size == "tiny" else (0.9, 0.8, 0.7))]
    if size == "full":
        labels += [("antidiagonal", stride, 0.9) for stride in (4, 16)]
    if size != "tiny":
        labels += [(sampler, 8, 0.9) for sampler in ("diagonal", "random", "mean_pool", "oracle")]
    names = ("sampler", "stride", "threshold")
    return [
        ({"method": "threshold"} | dict(zip(names, x, strict=True)), {"mode": x[0], "stride": x[1], "threshold": x[2]})
        for x in labels
    ]


def _by_scores(block, seed, stride, mode="antidiagonal", **select):
    def keep(q, k):
        scores = block_scores(q, k, block_size=block, stride=stride, mode=mode, seed=seed)
        return select_blocks(scores, **select)

    return keep


def _at_density(block, seed, density, method, budgets):
    """Choose with the largest budget whose density is at most ``density`` at this length."""
    best = {}

    def keep(q, k):
        scores = block_scores(q, k, block_size=block, stride=8, seed=seed)
        n, t = scores.shape[2], q.shape[2]
        if t not in best:
            flat = np.ones((1, 1, n, n))
            how = {"block_size": block, "causal": True}
            kept = {x: pair_share(select_blocks(flat, method=method, k=x), t, **how) for x in budgets}
            best[t] = max((x for x in budgets if kept[x] <= density), default=budgets[0])
        return select_blocks(scores, method=method, k=best[t])

    return keep


def _cost(model, pieces, context, block, labels, chooses=None):
    kept = possible = 0

    def attention(q, k, v, layer):
        nonlocal kept, possible
        keep = chooses(np.ascontiguousarray(q), np.ascontiguousarray(k))
        kept += kept_pairs(keep, q.shape[2], block_size=block, causal=True)
        possible += keep.shape[0] * keep.shape[1] * dense_pairs(q.shape[2], causal=True)
        return xattention(q, k, v, block_size=block, keep=keep)[0]

    how = {"context": context, "attention": attention if chooses else None}
    costs = [model.bits_per_byte(piece, **how) for piece in pieces]
    sizes = [len(piece.encode()) for piece in pieces]
    rows = [row("cost of one piece", x, "bits per byte", "measured", piece=i, **labels) for i, x in enumerate(costs)]
    rows.append(row("cost of the text", float(np.average(costs, weights=sizes)), "bits per byte", "measured", **labels))
    rows.append(row("density", kept / possible if chooses else 1.0, "fraction", "measured", **labels))
    return rows
