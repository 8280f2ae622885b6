"""Pruned weights as points of the pruning explorer: quality and bytes, also after a short training, and all times."""

from functools import partial
from itertools import groupby

import torch

import kernels
from workbench.explorers.pruning import frontier
from workbench.explorers.pruning.measured import EMBEDDED, MODELS, judged_rows, shortened
from workbench.explorers.pruning.method import method, methods
from workbench.explorers.pruning.recorded import points, recorded_rows, rows_of_point, rows_of_times
from workbench.explorers.pruning.source import sources
from workbench.paper import row

METHODS = ("magnitude", "snip", "wanda", "sparsegpt", "nm_magnitude", "nm_wanda", "nm_sparsegpt", "blocks_4x1",
           "blocks_16")  # fmt: skip
LEVELS = {"tiny": 1, "small": 2}  # of each method; all at full size
TIMED = {"tiny": (1,), "small": (32,), "full": frontier.TOKENS}
ROUNDS = {"tiny": 1, "small": 3, "full": 7}
RECOVERED = {  # method -> levels
    "magnitude": ("0.7", "0.9"),
    "wanda": ("0.7", "0.9"),
    "sparsegpt": ("0.7", "0.9"),
    "movement": ("0.7", "0.9"),
    "nm_magnitude": ("2:4",),
    "nm_wanda": ("2:4",),
    "nm_sparsegpt": ("2:4",),
    "blocks_4x1": ("0.7", "0.9"),
    "blocks_16": ("0.7",),
}
RECOVERED_FIRST = {"tiny": ("magnitude", "movement")}
STEPS = {"tiny": 2, "small": 10, "full": 20}
RATE = 1e-3  # the same for all methods and both models
AT_ONCE = 6  # points whose packed weights are held in memory together


def tradeoffs(size, seed, report, keep, models=MODELS):
    """Prune every model by every method at every level and at equal bytes, right away, and judge it."""
    rows = judged_rows(METHODS, size, report, keep, models=models)
    for key in models[size]:
        of = shortened(sources()[key], size)
        rows += rows_of_point(frontier.dense_point(of), of)
    return rows


def tradeoffs_embedded(size, seed, report, keep):
    """Do the same with the sentence encoder that ships with the workbench."""
    return tradeoffs(size, seed, report, keep, EMBEDDED)


def tradeoffs_recovered(size, seed, report, keep):
    """Train pruned models for the same few steps on the same text, whatever pruned them, and judge them again."""
    rows = []
    chosen = [
        (of, methods()[key], level)
        for of in (shortened(sources()[key], size) for key in reversed(MODELS[size]))
        for key in RECOVERED_FIRST.get(size, RECOVERED)
        for level in RECOVERED[key][: LEVELS.get(size)]
    ]
    for i, (of, by, level) in enumerate(chosen):
        part = report.part(i, len(chosen), f"{of.title}, {by.title} {level}")
        labels = {"model": of.key, "method": by.key, "level": level}
        rows += keep(labels, partial(_recovered, of, by, level, STEPS[size], seed, part))
    return rows


def tradeoff_times(size, seed, report, keep):
    """Time the products of all points that the records of every paper hold, for 1, 32 and 512 tokens.

    The dense products are timed beside each few points, and told once. Points that no kernel multiplies have no time.
    """
    rows, told, work = [], set(), _timed_points(size)
    for i, (of, by, levels) in enumerate(work):
        report(i / len(work), f"{of.title}, {by.title} {', '.join(levels)}")
        labels = {"model": of.key, "method": by.key, "levels": " ".join(levels)}
        found = keep(labels, partial(_times, of, by, levels, TIMED[size], ROUNDS[size]))
        rows += [each for each in found if each["point"] != frontier.DENSE or of.key not in told]
        told.add(of.key)
    return rows


def _timed_points(size):
    """Return (source, method, up to `AT_ONCE` levels) of all recorded points with a kernel; of one at size "tiny"."""
    recorded, found = recorded_rows(), []
    for key in MODELS[size]:
        of = shortened(sources()[key], size)
        there = [p.key.split("@") for p in points(recorded, of)
                 if p.key != frontier.DENSE and p.stage == "one-shot" and "read" in p.cost]  # fmt: skip
        for by, pairs in groupby(sorted(there, key=lambda pair: pair[0]), lambda pair: pair[0]):
            levels = [level for _, level in pairs][: LEVELS.get(size)]
            found += [(of, method(by), levels[i : i + AT_ONCE]) for i in range(0, len(levels), AT_ONCE)]
    return found[:1] if size == "tiny" else found


def _times(of, by, levels, tokens, rounds):
    """Return the rows of some levels' times, those of the dense products first."""
    axes = {axis.key: axis for axis in frontier.COSTS}
    before, threads = torch.get_num_threads(), kernels.get_num_threads()
    torch.set_num_threads(threads)
    try:
        by_tokens = frontier.times(of, [(by, level) for level in levels], tokens, rounds=rounds)
    finally:
        torch.set_num_threads(before)
    return [
        each | {"tokens": count, "threads": threads}
        for count, found in by_tokens.items()
        for each in rows_of_times(found, of, axes[f"time_{count}"], {by.key: by.title})
    ]


def _recovered(of, by, level, steps, seed, part):
    """Return the rows of a point after the training, and of its quality before, where there is one."""
    how = {"steps": steps, "rate": RATE}
    point = frontier.recovered_point(of, by, level, part, seed=seed, **how)
    rows = [each | how for each in rows_of_point(point, of)]
    if by.one_shot:
        before = of.judge(frontier.with_weights(of, frontier.compress_layers(of, by, level)))
        labels = {"model": of.key, "method": by.title, "level": level, "stage": "one-shot"}
        rows += [row(axis.label, before[axis.key], axis.unit, axis.kind, **labels) for axis in of.qualities]
    return rows
