"""Sentence encoders as models to prune, judged by what becomes of their sentence vectors."""

from collections.abc import Callable
from functools import cache

import torch
from torch.nn import functional as F

from widgets.figures.pruning import Axis
from workbench.data import text
from workbench.explorers.pruning.source import PruningSource
from workbench.models.language.minilm import MiniLM

__all__ = ["CALIBRATION", "EVALUATION", "NEIGHBOURS", "loss", "of_encoder", "windows"]

CALIBRATION, EVALUATION, NEIGHBOURS = slice(0, 128), slice(160, 224), slice(160, 360)  # windows of 128 word pieces
BATCH, NEAREST = 16, 10
TEMPERATURE = 0.05
QUALITIES = (
    Axis(
        key="cosine",
        label="cosine of sentence vectors before and after",
        unit="cosine",
        better="higher",
        kind="measured",
    ),
    Axis(
        key="neighbours",
        label="share of the 10 nearest texts that stay",
        unit="fraction",
        better="higher",
        kind="measured",
    ),
)
Load = Callable[[], MiniLM]


def of_encoder(*, key: str, title: str, load: Load, missing: Callable[[], str] = lambda: "") -> PruningSource:
    """Return the source of a sentence encoder; arguments of `PruningSource`."""
    return PruningSource(
        key=key,
        title=title,
        load=load,
        calibration=lambda: _batches(load, CALIBRATION),
        evaluation=lambda: _batches(load, EVALUATION),
        loss=loss,
        judge=lambda model: _judge(load, model),
        qualities=QUALITIES,
        missing=missing,
    )


@cache
def _windows(load):
    documents = text.documents("documentation")
    return load().windows(" ".join(document.text for document in documents))


def windows(load: Load, part: slice):
    """Return some windows of the documentation, such as those of `NEIGHBOURS`: int64 (windows, 128)."""
    return _windows(load)[part]


def _batches(load, part):
    return list(windows(load, part).split(BATCH))


@torch.no_grad()
def _vectors(load, model):
    """Return the sentence vectors of the windows `NEIGHBOURS`, each of length 1: (windows, width)."""
    return torch.cat([F.normalize(model(batch).mean(1), dim=1) for batch in _batches(load, NEIGHBOURS)])


@cache
def _dense(load):
    return _vectors(load, load())


def _nearest(vectors):
    likeness = vectors @ vectors.T
    likeness.fill_diagonal_(-torch.inf)
    return likeness.topk(NEAREST, dim=1).indices


def loss(model, batch):
    """Return how hard it is to tell which two halves belong to one text: cross-entropy of the cosines.

    The temperature is 0.05, as usual for sentence encoders. It needs no labels, and its gradient at the dense model
    is not zero, as that of a distance to the dense model would be.
    """
    half = batch.shape[1] // 2
    first, second = (F.normalize(model(part).mean(1), dim=1) for part in (batch[:, :half], batch[:, half:]))
    return F.cross_entropy(first @ second.T / TEMPERATURE, torch.arange(len(batch)))


def _judge(load, model):
    """Compare sentence vectors with the dense model's: their cosine, and whether they find the same neighbours."""
    if model is load():  # compared with itself: nothing to run
        return {"cosine": 1.0, "neighbours": 1.0}
    dense, now = _dense(load), _vectors(load, model)
    count = EVALUATION.stop - EVALUATION.start
    shared = [len(set(a) & set(b)) / NEAREST for a, b in zip(*(x.tolist() for x in map(_nearest, (dense, now))),
                                                             strict=True)]  # fmt: skip
    return {
        "cosine": float((dense[:count] * now[:count]).sum(1).mean()),
        "neighbours": sum(shared) / len(shared),
    }
