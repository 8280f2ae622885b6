"""The methods of the pruning explorer on its models: quality and bytes, also after a short training, and times."""

from dataclasses import replace
from functools import partial

import torch

import kernels
from workbench.explorers.pruning import frontier
from workbench.explorers.pruning.method import methods
from workbench.explorers.pruning.recorded import rows_of_point, rows_of_times
from workbench.explorers.pruning.source import PruningSource, sources
from workbench.paper import row

MODELS = {"tiny": ("small_encoder",), "small": ("tiny_lm",), "full": ("minilm", "tiny_lm")}
EMBEDDED = dict.fromkeys(("tiny", "small", "full"), ("small_encoder",))
METHODS = {"tiny": ("magnitude",)}
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
    """Prune every model by every method at every level, right away, and judge it."""
    rows, chosen = [], _chosen(size, models)
    for i, (of, by, level) in enumerate(chosen):
        part = report.part(i, len(chosen), f"{of.title}, {by.title} {level}")
        labels = {"model": of.key, "method": by.key, "level": level}
        rows += keep(labels, lambda of=of, by=by, level=level, part=part: _judged(of, by, level, part))
    for of in {each.key: each for each, _, _ in chosen}.values():
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
        for of in (_shortened(sources()[key], size) for key in reversed(MODELS[size]))
        for key in RECOVERED_FIRST.get(size, RECOVERED)
        for level in RECOVERED[key][: LEVELS.get(size)]
    ]
    for i, (of, by, level) in enumerate(chosen):
        part = report.part(i, len(chosen), f"{of.title}, {by.title} {level}")
        labels = {"model": of.key, "method": by.key, "level": level}
        rows += keep(labels, partial(_recovered, of, by, level, STEPS[size], seed, part))
    return rows


def tradeoff_times(size, seed, report):
    """Time the products of all pruned layers for 1, 32 and 512 tokens, dense ones beside them."""
    titles = {key: each.title for key, each in methods().items()}
    before, threads = torch.get_num_threads(), kernels.get_num_threads()
    torch.set_num_threads(threads)
    rows, chosen = [], _chosen(size, MODELS)
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


def _chosen(size, models):
    """Return (source, method, level) of every point of a size whose weights are pruned without training."""
    found = []
    for of in (_shortened(sources()[key], size) for key in models[size]):
        for key in METHODS.get(size, methods()):
            by = methods()[key]
            found += [(of, by, level) for level in by.levels[: LEVELS.get(size)] if by.one_shot and by.masks]
    return found


def _shortened(of: PruningSource, size) -> PruningSource:
    """Return a source with less to read at size "tiny"."""
    if size != "tiny":
        return of
    few = [batch[:2, :128] for batch in of.calibration()[:1]]
    quality = {axis.key: 0.0 for axis in of.qualities}

    def judge(model):
        with torch.no_grad():
            return quality | {of.qualities[0].key: float(of.distil(model, of.load(), few[0]))}

    texts = {"calibration": lambda: few, "evaluation": lambda: few, "training": lambda steps, seed: few * steps}
    return replace(of, judge=judge, **texts)


def _judged(of, by, level, part):
    return rows_of_point(frontier.judged_point(of, by, level, lambda fraction, step: part(fraction, step)), of)


def _recovered(of, by, level, steps, seed, part):
    """Return the rows of a point after the training, and of its quality before, where there is one."""
    how = {"steps": steps, "rate": RATE}
    point = frontier.recovered_point(of, by, level, part, seed=seed, **how)
    rows = [each if "layer" in each else each | how for each in rows_of_point(point, of)]
    if by.one_shot:
        before = of.judge(frontier.with_weights(of, frontier.compress_layers(of, by, level)))
        labels = {"model": of.key, "method": by.title, "level": level, "stage": "one-shot"}
        rows += [row(axis.label, before[axis.key], axis.unit, axis.kind, **labels) for axis in of.qualities]
    return rows


def _in_groups(items):
    return [items[i : i + AT_ONCE] for i in range(0, len(items), AT_ONCE)]
