"""Every method of the pruning explorer on its models: quality and bytes, and the times of the pruned layers."""

from dataclasses import replace

import torch

import kernels
from workbench.explorers.pruning import frontier
from workbench.explorers.pruning.method import methods
from workbench.explorers.pruning.recorded import rows_of_point, rows_of_times
from workbench.explorers.pruning.source import PruningSource, sources

MODELS = {"tiny": ("tiny_lm",), "small": ("tiny_lm",), "full": ("minilm", "tiny_lm")}
METHODS = {"tiny": ("magnitude",)}
LEVELS = {"tiny": 1, "small": 2}  # of each method; all at full size
TIMED = {"tiny": (1,), "small": (32,), "full": frontier.TOKENS}
ROUNDS = {"tiny": 1, "small": 3, "full": 7}
AT_ONCE = 6  # points whose packed weights are held in memory together


def tradeoffs(size, seed, report, keep):
    """Prune every model by every method at every level, right away, and judge it."""
    rows, chosen = [], _chosen(size)
    for i, (of, by, level) in enumerate(chosen):
        part = report.part(i, len(chosen), f"{of.title}, {by.title} {level}")
        labels = {"model": of.key, "method": by.key, "level": level}
        rows += keep(labels, lambda of=of, by=by, level=level, part=part: _judged(of, by, level, part))
    for of in {each.key: each for each, _, _ in chosen}.values():
        rows += rows_of_point(frontier.dense_point(of), of)
    return rows


def tradeoff_times(size, seed, report):
    """Time the products of all pruned layers for 1, 32 and 512 tokens, dense ones beside them."""
    titles = {key: each.title for key, each in methods().items()}
    before, threads = torch.get_num_threads(), kernels.get_num_threads()
    torch.set_num_threads(threads)
    rows, chosen = [], _chosen(size)
    axes = {axis.key: axis for axis in frontier.COSTS}
    told = set()  # the dense product is timed in every group, and told once
    work = [
        (of, some)
        for of in {each.key: each for each, _, _ in chosen}.values()
        for some in _in_groups([(by, level) for each, by, level in chosen if each.key == of.key])
    ]
    try:
        for i, (of, some) in enumerate(work):
            report(i / len(work), f"{of.title}, {', '.join(f'{by.title} {level}' for by, level in some)}")
            for tokens, found in frontier.times(of, some, TIMED[size], rounds=ROUNDS[size]).items():
                if (of.key, tokens) in told:
                    del found[frontier.DENSE, ""]
                told.add((of.key, tokens))
                made = rows_of_times(found, of, axes[f"time_{tokens}"], titles)
                rows += [each | {"tokens": tokens, "threads": threads} for each in made]
    finally:
        torch.set_num_threads(before)
    return rows


def _chosen(size):
    """Return (source, method, level) of every point of a size."""
    found = []
    for of in (_shortened(sources()[key], size) for key in MODELS[size]):
        for key in METHODS.get(size, methods()):
            by = methods()[key]
            found += [(of, by, level) for level in by.levels[: LEVELS.get(size)]]
    return found


def _shortened(of: PruningSource, size) -> PruningSource:
    """Return a source with less to read at size "tiny"."""
    if size != "tiny":
        return of
    few = [batch[:1] for batch in of.calibration()[:1]]
    quality = {axis.key: 0.0 for axis in of.qualities}

    def judge(model):
        with torch.no_grad():
            return quality | {of.qualities[0].key: float(of.loss(model, few[0]))}

    return replace(of, calibration=lambda: few, evaluation=lambda: few, judge=judge)


def _judged(of, by, level, part):
    return rows_of_point(frontier.judged_point(of, by, level, lambda fraction, step: part(fraction, step)), of)


def _in_groups(items):
    return [items[i : i + AT_ONCE] for i in range(0, len(items), AT_ONCE)]
