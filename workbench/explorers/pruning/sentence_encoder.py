"""Sentence encoders as models to prune, judged by what becomes of their sentence vectors."""

from collections.abc import Callable
from functools import cache

import torch
from torch.nn import functional as F

from widgets.figures.pruning import Axis
from workbench.data import text
from workbench.explorers.pruning.source import PruningSource, training_text
from workbench.models.language.minilm import MiniLM

__all__ = ["CALIBRATION", "EVALUATION", "NEIGHBOURS", "distil", "loss", "of_encoder", "windows"]

CALIBRATION, EVALUATION, NEIGHBOURS = slice(0, 128), slice(160, 224), slice(160, 360)  # windows of 128 word pieces
BATCH, NEAREST = 16, 10
TEMPERATURE = 0.05
TRAINED_WINDOW, TRAINED_BATCH = 64, 8
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


def of_encoder(
    *, key: str, title: str, load: Load, characters_a_token: int = 4, missing: Callable[[], str] = lambda: ""
) -> PruningSource:
    """Return the source of a sentence encoder; arguments of `PruningSource`.

    ``characters_a_token`` is more than a word piece of library sources has, so that training text is long enough.
    """
    return PruningSource(
        key=key,
        title=title,
        load=load,
        calibration=lambda: _batches(load, CALIBRATION),
        evaluation=lambda: _batches(load, EVALUATION),
        loss=loss,
        training=lambda steps, seed: _training(load, steps, seed, characters_a_token),
        distil=distil,
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


def _training(load, steps, seed, characters_a_token):
    """Return a batch of windows of library sources for every step: int64 (8, 64) each."""
    count = steps * TRAINED_BATCH
    found = load().windows(training_text(characters_a_token * count * TRAINED_WINDOW, seed), TRAINED_WINDOW)
    drawn = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))[:count]
    return list(found[drawn].split(TRAINED_BATCH))


def distil(model, dense, batch):
    """Return the squared difference of the token vectors after every layer, in units of the dense ones' mean square.

    The mean over layers, as Jiao et al. 2020 (TinyBERT) compare hidden states, and that of the sentence vectors.
    """
    with torch.no_grad():
        wanted = _states(dense, batch)
    found = _states(model, batch)
    apart = [F.mse_loss(x, y) / y.square().mean() for x, y in zip(found, wanted, strict=True)]
    turned = 1 - F.cosine_similarity(found[-1].mean(1), wanted[-1].mean(1)).mean()
    return sum(apart) / len(apart) + turned


def _states(model, tokens):
    """Return the stream after every layer, each (b, t, width)."""
    found = []
    hooks = [layer.norm_feed.register_forward_hook(lambda _, x, out: found.append(out)) for layer in model.layers]
    try:
        model(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return found


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
