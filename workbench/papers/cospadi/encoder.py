"""A sentence encoder whose every matrix takes 9/16 of its bytes, indices counted: which method keeps most of it."""

from functools import partial

import torch
from torch.nn import functional as F

from workbench.explorers.pruning import frontier, sentence_encoder
from workbench.explorers.pruning.budget import solve_budget, stored_ratio
from workbench.explorers.pruning.method import methods
from workbench.explorers.pruning.source import source
from workbench.models.sparse_inference.statistics import linear_layers
from workbench.paper import row
from workbench.papers.cospadi.layers import MODELS

BUDGET = 0.5625  # what 2:4 takes
METHODS = ("svd", "asvd", "nm_magnitude", "nm_wanda", "cospadi")
TINY = ("svd", "nm_magnitude")
WINDOW, MEAN = "cosine of a window's vector before and after", "mean cosine of sentence vectors before and after"
OUTPUT, WEIGHT, STORED = (
    "mean output error of the layers",
    "mean weight error of the layers",
    "share of the bytes stored",
)


def encoder(size, seed, report, keep):
    """Compress all matrices of an encoder, each by every method to the same budget, and compare sentence vectors."""
    work = [(model, key) for model in MODELS[size] for key in (TINY if size == "tiny" else METHODS)]
    rows = []
    for i, (model, key) in enumerate(work):
        report(i / len(work), f"{model}, {methods()[key].title}")
        rows += keep({"model": model, "method": key}, partial(_compressed, model, key, size))
    return rows


def _compressed(model, key, size):
    of, by = source(model), methods()[key]
    shapes = [(layer.out_features, layer.in_features) for layer in linear_layers(of.load()).values()]
    level = solve_budget(key, shapes, BUDGET)
    made = frontier.compress_layers(of, by, level)
    compressed = frontier.with_weights(of, made)
    windows = sentence_encoder.windows(of.load, sentence_encoder.EVALUATION)[: 4 if size == "tiny" else None]
    cosines = (_vectors(of.load(), windows) * _vectors(compressed, windows)).sum(1)
    labels = {"model": model, "method": key, "level": level}
    rows = [row(WINDOW, float(x), "cosine", "measured", window=i, **labels) for i, x in enumerate(cosines)]
    rows.append(row(MEAN, float(cosines.mean()), "cosine", "measured", **labels))
    rows.append(row(STORED, float(stored_ratio(by, shapes, level)), "fraction", "counted", **labels))
    if size != "tiny":
        losses = [frontier.loss_of(of, name, each) for name, each in made.items()]
        for quantity, field in ((OUTPUT, "output_error"), (WEIGHT, "weight_error")):
            mean = sum(getattr(each, field) for each in losses) / len(losses)
            rows.append(row(quantity, mean, "relative", "measured", **labels))
    return rows


@torch.no_grad()
def _vectors(model, windows):
    """Return the sentence vectors of windows, each of length 1."""
    return torch.cat([F.normalize(model(part).mean(1), dim=1) for part in windows.split(sentence_encoder.BATCH)])
