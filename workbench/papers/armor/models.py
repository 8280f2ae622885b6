"""Whole models at 2:4: ARMOR, the pruners it is compared with, and what takes as many bytes as it does."""

from functools import partial
from math import exp

import torch
from torch.nn import functional as F

from workbench.explorers.pruning import frontier
from workbench.explorers.pruning.budget import stored_ratio
from workbench.explorers.pruning.method import methods
from workbench.explorers.pruning.source import source
from workbench.models.sparse_inference.statistics import linear_layers
from workbench.paper import row

MODELS = {"tiny": ("small_encoder",), "small": ("small_encoder",), "full": ("minilm", "tiny_lm")}
DENSE = "dense"
POINTS = (
    ("nm_magnitude", "2:4"),
    ("nm_wanda", "2:4"),
    ("nm_sparsegpt", "2:4"),
    ("nowag", "2:4"),
    ("nowag_low_rank", "16"),
    ("nowag_low_rank", "32"),
    ("armor", "16"),
    ("armor", "32"),
    ("wanda", "0.5"),
    ("sparsegpt", "0.5"),
)
TINY = (("nm_magnitude", "2:4"), ("nm_wanda", "2:4"))
COSINE, LOSS = "cosine of a window's vector before and after", "cross-entropy of a batch of held-out text"
MEAN, PERPLEXITY = "mean cosine of sentence vectors before and after", "perplexity of held-out text"
OUTPUT, STORED = "mean output error of the layers", "share of the bytes stored"


def models(size, seed, report, keep):
    """Compress all matrices of a model, by every method, and judge it by sentence vectors or by held-out text."""
    rows = []
    work = [(model, point) for model in MODELS[size] for point in (None, *(TINY if size == "tiny" else POINTS))]
    for i, (model, point) in enumerate(work):
        key, level = point or (DENSE, "")
        report(i / len(work), f"{model}, {methods()[key].title if point else 'dense'} {level}")
        rows += keep({"model": model, "method": key, "level": level}, partial(_judged, model, key, level, size))
    return rows


def _judged(model, key, level, size):
    of, labels = source(model), {"model": model, "method": key, "level": level}
    if key == DENSE:
        return _quality(of, of.load(), size, labels)
    made = frontier.compress_layers(of, methods()[key], level)
    rows = _quality(of, frontier.with_weights(of, made), size, labels)
    shapes = [tuple(layer.weight.shape) for layer in linear_layers(of.load()).values()]
    rows.append(row(STORED, float(stored_ratio(methods()[key], shapes, level)), "fraction", "counted", **labels))
    if size != "tiny":
        errors = [frontier.loss_of(of, name, each).output_error for name, each in made.items()]
        rows.append(row(OUTPUT, sum(errors) / len(errors), "relative", "measured", **labels))
    return rows


@torch.no_grad()
def _quality(of, model, size, labels):
    """Return what every text costs, or how near its vector stays, and the mean of all."""
    batches = of.evaluation()[: 1 if size == "tiny" else None]
    if of.key == "tiny_lm":
        losses = [float(of.loss(model, batch)) for batch in batches]
        rows = [row(LOSS, x, "nats per token", "measured", batch=i, **labels) for i, x in enumerate(losses)]
        return [*rows, row(PERPLEXITY, exp(sum(losses) / len(losses)), "number", "measured", **labels)]
    both = [torch.cat([F.normalize(each(x).mean(1), dim=1) for x in batches]) for each in (of.load(), model)]
    cosines = (both[0] * both[1]).sum(1).tolist()
    rows = [row(COSINE, x, "cosine", "measured", window=i, **labels) for i, x in enumerate(cosines)]
    return [*rows, row(MEAN, sum(cosines) / len(cosines), "cosine", "measured", **labels)]
