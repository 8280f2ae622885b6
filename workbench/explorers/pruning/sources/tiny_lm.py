"""The tiny language model that ships with the workbench, judged by what held-out text costs it."""

from functools import cache

import torch
from torch.nn import functional as F

from widgets.figures.pruning import Axis
from workbench.data import text
from workbench.explorers.pruning.source import PruningSource, training_text
from workbench.models.language import tiny_lm

TOKENS, ROWS, BATCH = 512, 32, 4
JUDGED_CHARACTERS = 24_000
TRAINED_TOKENS, TRAINED_BATCH = 128, 4
CHARACTERS_A_TOKEN = 6  # more than library sources have


@cache
def _rows(split):
    """Return rows of tokens of a split's documentation: int64 (rows, TOKENS + 1)."""
    characters = sum(len(document.text) for document in text.documents("documentation", split))
    told, _ = text.sample(min(6 * TOKENS * ROWS, characters), "documentation", split)
    ids = tiny_lm.load().encode(told)[0]
    whole = len(ids) // (TOKENS + 1)
    return ids[: whole * (TOKENS + 1)].view(whole, TOKENS + 1)[:ROWS]


def _batches(split):
    return list(_rows(split)[:, :-1].split(BATCH))


@cache
def _judged():
    return text.sample(JUDGED_CHARACTERS, ("documentation", "library"), "held_out")[0]


@torch.no_grad()
def judge(model):
    """Return what held-out text costs, and how often the likeliest next token is the dense model's."""
    ids = tiny_lm.load().encode(_judged())[:, :1024]
    same = model(ids).argmax(-1) == tiny_lm.load()(ids).argmax(-1)
    return {"bits_per_byte": model.bits_per_byte(_judged()), "agreement": float(same.float().mean())}


def training(steps, seed):
    """Return a batch of rows of library sources for every step: int64 (4, 128) each."""
    count = steps * TRAINED_BATCH
    ids = tiny_lm.load().encode(training_text(CHARACTERS_A_TOKEN * count * TRAINED_TOKENS, seed))[0]
    return list(ids[: count * TRAINED_TOKENS].view(count, TRAINED_TOKENS).split(TRAINED_BATCH))


def distil(model, dense, batch):
    """Return the Kullback-Leibler divergence of the next token's distribution from the dense model's, in nats."""
    with torch.no_grad():
        wanted = dense(batch).log_softmax(-1).flatten(0, 1)
    return F.kl_div(model(batch).log_softmax(-1).flatten(0, 1), wanted, log_target=True, reduction="batchmean")


SOURCE = PruningSource(
    key="tiny_lm",
    title="Tiny language model",
    load=tiny_lm.load,
    calibration=lambda: _batches("train"),
    evaluation=lambda: _batches("held_out"),
    loss=lambda model, batch: model.loss(batch),
    training=training,
    distil=distil,
    judge=judge,
    qualities=(
        Axis(
            key="bits_per_byte",
            label="bits per byte of held-out text",
            unit="bits per byte",
            better="lower",
            kind="measured",
        ),
        Axis(
            key="agreement",
            label="share of next tokens that stay",
            unit="fraction",
            better="higher",
            kind="measured",
        ),
    ),
)
