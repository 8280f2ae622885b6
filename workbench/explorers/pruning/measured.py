"""The rows that put methods on the plane: every model, method and level, pruned right away and judged.

A method is taken at levels that it offers, and at those that bring it as near below each of `BUDGETS` as they can. A
paper's experiment is one call:

``def tradeoffs(size, seed, report, keep): return judged_rows(("svd", "asvd"), size, report, keep)``
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from workbench.explorers.pruning import frontier
from workbench.explorers.pruning.budget import levels_within
from workbench.explorers.pruning.method import PruningMethod, method
from workbench.explorers.pruning.recorded import rows_of_point
from workbench.explorers.pruning.source import PruningSource, sources
from workbench.models.sparse_inference.statistics import linear_layers
from workbench.paper import Row

__all__ = ["BUDGETS", "EMBEDDED", "MODELS", "judged_rows", "levels_of", "shortened"]

BUDGETS = (0.5625, 0.45, 0.35, 0.25)  # of the dense bytes; 2:4 takes the first
MODELS = {"tiny": ("small_encoder",), "small": ("tiny_lm",), "full": ("minilm", "tiny_lm")}
EMBEDDED = dict.fromkeys(MODELS, ("small_encoder",))  # the encoder that ships with the workbench
OFFERED = {"tiny": 1, "small": 2}  # levels of each method


def judged_rows(keys: Sequence[str], size, report, keep, *, models=MODELS) -> list[Row]:
    """Return the rows of an experiment on trade-offs: some methods at all their levels, on every model of a size.

    Parameters
    ----------
    keys : of methods that prune without training; at size "tiny" the first one is taken alone.
    size, report, keep : as an experiment's ``run`` is given them; each point is a piece.
    models : size -> keys of the models; `EMBEDDED` for the encoder that ships with the workbench.
    """
    chosen = [
        (of, by, level)
        for of in (shortened(sources()[key], size) for key in models[size])
        for by in map(method, keys[:1] if size == "tiny" else keys)
        for level in (levels_of(by, of) if size == "full" else by.levels[: OFFERED[size]])
    ]
    rows = []
    for i, (of, by, level) in enumerate(chosen):
        part = report.part(i, len(chosen), f"{of.title}, {by.title} {level}")
        rows += keep({"model": of.key, "method": by.key, "level": level}, partial(_judged, of, by, level, part))
    return rows


def levels_of(by: PruningMethod, of: PruningSource) -> list[str]:
    """Return the levels that a method offers, and those nearest below the `BUDGETS` that it can meet, each once."""
    shapes = [(layer.out_features, layer.in_features) for layer in linear_layers(of.load()).values()]
    return list(dict.fromkeys([*by.levels, *levels_within(by.key, shapes, BUDGETS)]))


def shortened(of: PruningSource, size) -> PruningSource:
    """Return a source with less to read at size "tiny", where a model is judged by how far it is from the dense one."""
    if size != "tiny":
        return of
    few = [batch[:2, :128] for batch in of.calibration()[:1]]
    quality = {axis.key: 0.0 for axis in of.qualities}

    def judge(model):
        with torch.no_grad():
            return quality | {of.qualities[0].key: float(of.distil(model, of.load(), few[0]))}

    texts = {"calibration": lambda: few, "evaluation": lambda: few, "training": lambda steps, seed: few * steps}
    return replace(of, judge=judge, **texts)


def _judged(of, by, level, report):
    return rows_of_point(frontier.judged_point(of, by, level, report), of)
