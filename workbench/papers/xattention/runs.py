"""XAttention on generated lines, inside a language model, and against the clock."""

import statistics
import time
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

import kernels
from kernels.attention.block_sparse import block_sparse_attention
from kernels.masks.block_scores import true_block_mass
from kernels.masks.block_select import block_density, select_blocks
from workbench import paper
from workbench.data.attention_patterns import vertical_slash
from workbench.data.text import sample
from workbench.models.attention.xattention import block_scores, xattention
from workbench.models.language import tiny_lm

BLOCK, BATCH = 64, 8
GENERATED = {"tiny": (8, 512), "small": (32, 1024), "full": (128, 1024)}  # heads, tokens
SAMPLERS = ("antidiagonal", "random", "diagonal", "mean_pool", "oracle")
PIECES = {"tiny": (2, 400), "small": (2, 6000), "full": (6, 8000)}  # of text, and characters of each
CONTEXTS = {"tiny": 128, "small": 1024, "full": 2048}
LENGTHS = {"tiny": (512,), "small": (2048,), "full": (2048, 4096, 8192)}
RATIOS = tuple(np.arange(1, 101) / 100)
ROUNDS = {"tiny": 2, "small": 7, "full": 7}
TIMED_HEADS, WIDTH, TIMED_STRIDE, WANTED_DENSITY = 4, 64, 16, 0.2


row = partial(paper.row, kind="counted")


# Generated lines -----------------------------------------------------------------------------------------------------


def pattern(size, seed, report):
    """Ask every sampler for the blocks that hold a drawn slash and column, at the budget of exactly those blocks."""
    heads, tokens = GENERATED[size]
    rng = np.random.default_rng(seed)
    delta, column = rng.integers(3, 400, heads), rng.integers(0, 512, heads)
    rows = []
    for place, stride in enumerate((4, 8)):
        found = {sampler: [] for sampler in SAMPLERS}
        for first in range(0, heads, BATCH):
            report((place + first / heads) / 3, f"stride {stride}, head {first}")
            some = slice(first, first + BATCH)
            drawn = vertical_slash(tokens, heads=BATCH, seed=seed + first, delta=delta[some], column=column[some])
            for sampler, recall in _recalls(*drawn, stride, seed + first).items():
                found[sampler].append(recall)
        passed_by = ~np.isin(delta % stride, (0, stride - 1))  # offsets delta and delta + 1, none a multiple of S
        for sampler, parts in found.items():
            recall, mass = np.concatenate(parts, axis=1)
            for offsets, which in (("all drawn", slice(None)), ("not read by the diagonal", passed_by)):
                labels = {"sampler": sampler, "stride": stride, "offsets": offsets, "width": 2}
                rows.append(row("recall of the pattern's blocks", float(recall[which].mean()), "fraction", **labels))
                rows.append(row("mass kept", float(mass[which].mean()), "fraction", **labels))
    report(0.7, "thin slashes")
    return [{"heads": heads, "tokens": tokens, "block": BLOCK} | each for each in rows + _thin(heads, tokens, seed)]


def _blocks(pairs):
    n = pairs.shape[3] // BLOCK
    return pairs.reshape(*pairs.shape[:2], n, BLOCK, n, BLOCK).any(axis=(3, 5))


def _kept(q, k, needed, sampler, stride, seed):
    """Keep, in every row, as many blocks as the pattern needs."""
    scores = block_scores(q, k, block_size=BLOCK, stride=stride, mode=sampler, seed=seed)
    order = np.argsort(-scores, axis=-1, kind="stable")
    keep = np.zeros_like(needed)
    np.put_along_axis(keep, order, np.arange(needed.shape[3]) < needed.sum(-1, keepdims=True), axis=-1)
    return keep


def _recalls(q, k, true, stride, seed):
    """Return sampler -> recall of the pattern's blocks and mass kept, (2, heads)."""
    needed, mass, found = _blocks(true), true_block_mass(q, k, block_size=BLOCK), {}
    for sampler in SAMPLERS:
        keep = _kept(q, k, needed, sampler, stride, seed)
        recall = (keep & needed).sum(axis=(2, 3)) / needed.sum(axis=(2, 3))
        found[sampler] = np.concatenate((recall, (mass * keep).sum(axis=(2, 3)) / mass.sum(axis=(2, 3))))
    return found


def _thin(heads, tokens, seed):
    """Slashes of one and two offsets, at even and odd places: which ones do antidiagonals meet?"""
    rows = []
    rng = np.random.default_rng(seed + 1)
    heads = min(heads, 4 * BATCH)
    start = 2 * rng.integers(2, 200, heads)
    for width in (1, 2):
        for name, shift in (("even", 0), ("odd", 1)):
            given = {"heads": heads, "seed": seed, "delta": start + shift, "width": width, "column": 0}
            q, k, true = vertical_slash(tokens, **given)
            needed = _blocks(true)
            true[..., 0] = False  # the column's own blocks would hide what happens to the slash
            slash = _blocks(true)
            for stride in (4, 8):
                keep = _kept(q, k, needed, "antidiagonal", stride, seed)
                recall = float((keep & slash).sum() / slash.sum())
                labels = {"sampler": "antidiagonal", "stride": stride, "offset": name, "width": width}
                rows.append(row("recall of the slash's blocks", recall, "fraction", **labels))
    return rows


# A language model ----------------------------------------------------------------------------------------------------


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
        n = scores.shape[2]
        if n not in best:
            flat = np.ones((1, 1, n, n))
            kept = {x: block_density(select_blocks(flat, method=method, k=x)) for x in budgets}
            best[n] = max((x for x in budgets if kept[x] <= density), default=budgets[0])
        return select_blocks(scores, method=method, k=best[n])

    return keep


def _cost(model, pieces, context, block, labels, chooses=None):
    kept = possible = 0

    def attention(q, k, v, layer):
        nonlocal kept, possible
        keep = chooses(np.ascontiguousarray(q), np.ascontiguousarray(k))
        kept += int(keep.sum())
        possible += keep.shape[0] * keep.shape[1] * keep.shape[2] * (keep.shape[2] + 1) // 2
        return xattention(q, k, v, block_size=block, keep=keep)[0]

    how = {"context": context, "attention": attention if chooses else None}
    costs = [model.bits_per_byte(piece, **how) for piece in pieces]
    sizes = [len(piece.encode()) for piece in pieces]
    labels = labels | {"kind": "measured"}
    rows = [row("cost of one piece", x, "bits per byte", piece=i, **labels) for i, x in enumerate(costs)]
    rows.append(row("cost of the text", float(np.average(costs, weights=sizes)), "bits per byte", **labels))
    rows.append(row("density", kept / possible if chooses else 1.0, "fraction", **labels))
    return rows


# Time ----------------------------------------------------------------------------------------------------------------


def timing(size, seed, report):
    """Time scoring, selecting and attending against dense attention, interleaved; medians over the rounds."""
    rows, before = [], torch.get_num_threads()
    torch.set_num_threads(kernels.get_num_threads())
    try:
        for place, t in enumerate(LENGTHS[size]):
            report(place / len(LENGTHS[size]), f"{t} tokens")
            rows += _timed(t, ROUNDS[size], seed)
    finally:
        torch.set_num_threads(before)
    return rows


def _timed(t, rounds, seed):
    q, k = vertical_slash(t, heads=TIMED_HEADS, d=WIDTH, seed=seed)[:2]
    v = np.random.default_rng(seed).standard_normal(q.shape, np.float32)
    tensors = [torch.from_numpy(x) for x in (q, k, v)]

    def score():
        return block_scores(q, k, block_size=BLOCK, stride=TIMED_STRIDE)

    scores = score()

    def choose():
        return select_blocks(scores, method="ratio", k=WANTED_DENSITY)

    keep = choose()
    steps = {
        "score the blocks": score,
        "select the blocks": choose,
        "attend over the kept blocks": lambda: block_sparse_attention(q, k, v, keep, block_size=BLOCK, causal=True),
        "dense attention (torch)": lambda: F.scaled_dot_product_attention(*tensors, is_causal=True),
    }
    times = {name: [] for name in steps}
    for turn in range(rounds + 1):  # the first round warms up
        for name, step in steps.items():
            time.sleep(0.02)  # threads of the library before go to sleep
            start = time.perf_counter()
            step()
            if turn:
                times[name].append(1e3 * (time.perf_counter() - start))
    labels = {"tokens": t, "heads": TIMED_HEADS, "width": WIDTH, "block": BLOCK, "stride": TIMED_STRIDE}
    labels |= {"threads": kernels.get_num_threads(), "rounds": rounds, "density": round(block_density(keep), 4)}
    rows = []
    for name, each in times.items():
        low, high = np.percentile(each, (25, 75))
        spread = {"step": name, "spread_ms": round(float(high - low), 4)}
        rows.append(row("time, median", statistics.median(each), "ms", kind="measured", **spread, **labels))
    *ours, dense = (r["value"] for r in rows)
    rows.append(row("dense over scoring, selecting and attending", dense / sum(ours), "x", kind="measured", **labels))
    rows.append(row("dense over attending", dense / ours[2], "x", kind="measured", **labels))
    return rows
