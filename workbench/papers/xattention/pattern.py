"""Samplers on generated slashes and columns: which of them find the blocks that hold the lines?"""

from functools import partial

import numpy as np

from kernels.masks.block_scores import true_block_mass
from workbench import paper
from workbench.data.attention_patterns import vertical_slash
from workbench.models.attention.xattention import block_scores

BLOCK, BATCH = 64, 8
GENERATED = {"tiny": (8, 512), "small": (32, 1024), "full": (128, 1024)}  # heads, tokens
SAMPLERS = ("antidiagonal", "random", "diagonal", "mean_pool", "oracle")
row = partial(paper.row, kind="counted")


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
