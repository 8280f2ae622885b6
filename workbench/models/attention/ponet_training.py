"""PoNet learns from text: masked words and the order of sentences; the encoder so trained that ships, and its card.

A line is [CLS] A [SEP] B [SEP] of 256 tokens, `WINDOWS`: A and B are runs of whole sentences of a topic that meet at a
random sentence and share the line at random, so the words and the places of several sentences are learnt together.
Every sentence is a segment, and so are [CLS] and [SEP].

``python -m workbench.models.attention.ponet_training`` trains, ships and measures that encoder (about 10 minutes).
"""

import argparse
import json
import logging
import time
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from workbench import folders
from workbench.data import text
from workbench.models.attention import ponet_corpus
from workbench.models.attention.ponet import PoNetEncoder, PoNetMixing, sentence_segment_index, small_init, sso_examples
from workbench.models.attention.ponet_corpus import (
    CLS,
    GAP,
    LONGEST,
    MASK,
    PAD,
    SEP,
    SHORTEST,
    SPECIAL,
    Corpus,
)

__all__ = [
    "CARD",
    "WEIGHTS",
    "WINDOWS",
    "Batch",
    "Encoded",
    "Pretraining",
    "Recipe",
    "Trained",
    "batch_of",
    "card",
    "encode",
    "losses",
    "measure",
    "pretrain",
    "shipped",
    "unigram",
]

LOG = logging.getLogger("ponet_training")
WEIGHTS = folders.WEIGHTS / "ponet.safetensors"
CARD = WEIGHTS.with_suffix(".md")
DIM, HEADS, LAYERS = 128, 4, 2
RATE, MASKED, STEPS = 1e-3, 0.15, 1600


@dataclass(frozen=True)
class Recipe:
    """What a line holds and how many make a step.

    Parameters
    ----------
    length : tokens of a line at most, and of the position table.
    room : word pieces that the runs of a line share; a run has one sentence at least.
    batch : lines per step.
    """

    length: int
    room: int
    batch: int


WINDOWS = Recipe(length=256, room=256 - 3 - LONGEST, batch=16)  # one sentence may overflow


# Lines ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Masked lines: ids, targets (-1 where nothing was masked), segments, keep, special; labels (b,)."""

    ids: torch.Tensor
    targets: torch.Tensor
    segments: torch.Tensor
    keep: torch.Tensor
    special: torch.Tensor
    labels: torch.Tensor


def batch_of(chunks, rng, count, vocabulary, recipe=WINDOWS) -> Batch:
    """Draw lines and mask 15 % of their words (8 of 10 hidden, 1 replaced, 1 kept)."""
    places = [[(number, at) for at in range(len(chunk))] for number, chunk in enumerate(chunks)]
    drawn = sso_examples(places, rng, count=count)
    rooms = rng.integers(recipe.room + 1, size=count)
    ids, segments = np.full((count, recipe.length), PAD), np.zeros((count, recipe.length), np.int64)
    for place, ((a, at), (b, after), label) in enumerate(drawn):
        away = 1 if label == 1 else -1  # runs grow away from where they meet in the text
        first = _run(chunks[a], at, away, rooms[place])
        second = _run(chunks[b], after, -away, recipe.room - rooms[place])
        parts = [[CLS], *first, [SEP], *second, [SEP]]
        line = list(chain(*parts))
        ids[place, : len(line)] = line
        segments[place] = sentence_segment_index([*map(len, parts), recipe.length - len(line)])
    special = np.isin(ids, (CLS, SEP))
    words = (ids != PAD) & ~special
    chosen = words & (rng.random(ids.shape) < MASKED)
    targets = np.where(chosen, ids, -1)
    dice = rng.random(ids.shape)
    ids = np.where(chosen & (dice < 0.8), MASK, ids)
    ids = np.where(chosen & (dice >= 0.9), rng.integers(len(SPECIAL), vocabulary, ids.shape), ids)
    labels = [label for _, _, label in drawn]
    return Batch(*map(torch.as_tensor, (ids, targets, segments, ids != PAD, special, labels)))


def _run(chunk, at, step, room):
    """The sentence at ``at``, and those next to it in direction ``step`` that fit into the room, in reading order."""
    taken, size = [chunk[at]], len(chunk[at])
    while 0 <= at + step < len(chunk) and size + len(chunk[at + step]) <= room:
        at += step
        taken.append(chunk[at])
        size += len(chunk[at])
    return taken[::step]


# Model ---------------------------------------------------------------------------------------------------------------


class Pretraining(nn.Module):
    """An encoder of the BERT skeleton with a head for masked words (tied to the word table) and one for the order."""

    def __init__(self, vocabulary, mixing=PoNetMixing, recipe=WINDOWS):
        super().__init__()
        how = {"dim": DIM, "heads": HEADS, "layers": LAYERS, "hidden": 4 * DIM, "mixing": mixing, "norm": "post"}
        self.encoder = PoNetEncoder(vocabulary, recipe.length, **how)
        self.word, self.bias = nn.Linear(DIM, DIM), nn.Parameter(torch.zeros(vocabulary))
        self.norm, self.order = nn.LayerNorm(DIM), nn.Linear(DIM, 3)
        for head in (self.word, self.order):
            small_init(head)

    def forward(self, batch):
        """Return logits of the masked words (masked, vocabulary) and of the order (b, 3)."""
        x = self.encoder(batch.ids, batch.segments, batch.keep, batch.special)
        words = self.norm(F.gelu(self.word(x[batch.targets >= 0])))
        return words @ self.encoder.tokens.weight.T + self.bias, self.order(x[:, 0])


def losses(model, batch):
    """Return cross-entropies of masked words and of the order."""
    words, order = model(batch)
    return F.cross_entropy(words, batch.targets[batch.targets >= 0]), F.cross_entropy(order, batch.labels)


def pretrain(
    corpus: Corpus, mixing, steps, seed, *, order=True, rate=RATE, recipe=WINDOWS, report=lambda fraction, loss: None
) -> Pretraining:
    """Train by AdamW and one cycle of the peak ``rate``; ``order=False`` leaves the sentence objective out."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Pretraining(corpus.vocabulary, mixing, recipe)
        rng = np.random.default_rng(seed)
        optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps + 1, pct_start=0.1)
        for step in range(steps):
            optimiser.zero_grad()
            words, sentences = losses(model, batch_of(corpus.train, rng, recipe.batch, corpus.vocabulary, recipe))
            (words + sentences if order else words).backward()
            optimiser.step()
            schedule.step()
            report(step / steps, words.item())
    return model.eval()


@torch.no_grad()
def measure(model, corpus: Corpus, count, seed, recipe=WINDOWS) -> dict[str, float]:
    """Return the loss per masked word (nats), the share of words and of orders that are right, on held-out text."""
    batch = batch_of(corpus.test, np.random.default_rng(1000 + seed), count, corpus.vocabulary, recipe)
    words, order = model(batch)
    wanted = batch.targets[batch.targets >= 0]
    return {
        "loss per masked word": float(F.cross_entropy(words, wanted)),
        "masked words guessed": float((words.argmax(1) == wanted).float().mean()),
        "orders guessed": float((order.argmax(1) == batch.labels).float().mean()),
    }


def unigram(corpus: Corpus, seed, count, recipe=WINDOWS) -> dict[str, float]:
    """Return the entropy of the training words, and what guessing by frequency costs on the words of `measure`."""
    counts = np.bincount([i for chunk in corpus.train for s in chunk for i in s], minlength=corpus.vocabulary)
    p = counts / counts.sum()
    used = p[p > 0]
    batch = batch_of(corpus.test, np.random.default_rng(1000 + seed), count, corpus.vocabulary, recipe)
    wanted = batch.targets[batch.targets >= 0].numpy()
    smooth = (counts + 0.5) / (counts + 0.5).sum()
    return {
        "entropy of the words": float(-(used * np.log(used)).sum()),
        "loss per masked word": float(-np.log(smooth[wanted]).mean()),
        "masked words guessed": float((wanted == counts.argmax()).mean()),
    }


# The shipped encoder -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """A trained model, its word pieces (their place is their id), and what the record says of it."""

    model: Pretraining
    pieces: tuple[str, ...]
    record: dict


@dataclass(frozen=True)
class Encoded:
    """A text between [CLS] and [SEP], as an encoder reads it.

    Parameters
    ----------
    ids : (1, t) int64.
    tokens : text of every token, "[CLS]" and "[SEP]" for those.
    segments : (t,) int64, [CLS], sentences and [SEP] in order.
    special : (1, t) bool, [CLS] and [SEP].
    """

    ids: torch.Tensor
    tokens: tuple[str, ...]
    segments: torch.Tensor
    special: torch.Tensor


@lru_cache(maxsize=1)
def shipped() -> Trained:
    """Return the encoder that ships, in float32, ready to be read.

    Raises
    ------
    FileNotFoundError : none is shipped; train one: ``python -m workbench.models.attention.ponet_training``.
    """
    from safetensors import safe_open

    if not WEIGHTS.exists():
        raise FileNotFoundError(
            f"ponet_training.shipped: no {WEIGHTS}; train one with python -m workbench.models.attention.ponet_training"
        )
    with safe_open(str(WEIGHTS), framework="pt") as stored:
        pieces, record = (json.loads(stored.metadata()[name]) for name in ("pieces", "record"))
        weights = {name: stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118
    model = Pretraining(len(pieces))
    model.load_state_dict(weights)
    return Trained(model.eval().requires_grad_(False), tuple(pieces), record)


def encode(trained, words, tokens=WINDOWS.length) -> Encoded:
    """Return at most ``tokens`` tokens of a text, cut into sentences as the training text was."""
    tokens = min(tokens, WINDOWS.length)
    found = ponet_corpus.tokenizer(trained.pieces).encode(words)
    spans = np.asarray(found.offsets, np.int64).reshape(-1, 2)[: tokens - 2]
    gaps = [gap.end() for gap in GAP.finditer(words)]
    sentence = np.unique(np.searchsorted(gaps, spans[:, 0], side="right"), return_inverse=True)[1]
    lengths = [1, *np.bincount(sentence), 1]
    special = torch.zeros(1, len(spans) + 2, dtype=torch.bool)
    special[0, [0, -1]] = True
    return Encoded(
        torch.tensor([[CLS, *found.ids[: len(spans)], SEP]]),
        (SPECIAL[CLS], *(words[a:b] for a, b in spans), SPECIAL[SEP]),
        sentence_segment_index(lengths),
        special,
    )


def ship(steps, seed=0, threads=1, tested=256):
    """Train an encoder, store it in half precision with its vocabulary and record, and write its card."""
    from safetensors.torch import save_file

    torch.set_num_threads(threads)
    pieces = ponet_corpus.vocabulary()
    found = ponet_corpus.topics(pieces)
    start, curve = time.monotonic(), []

    def report(fraction, loss):
        curve.append(loss)
        if len(curve) % 50 == 0:
            LOG.info("step %d  loss %.3f  %.1f min", len(curve), np.mean(curve[-50:]), (time.monotonic() - start) / 60)

    model = pretrain(found, PoNetMixing, steps, seed, report=report)
    wall_s = time.monotonic() - start
    weights = {name: value.detach().to(torch.float16).contiguous() for name, value in model.state_dict().items()}
    model.load_state_dict({name: value.float() for name, value in weights.items()})
    record = {
        "text": text.provenance(),
        "words": {
            split: sum(len(s) for chunk in chunks for s in chunk)
            for split, chunks in zip(text.SPLITS, (found.train, found.test), strict=True)
        },
        "steps": steps,
        "seed": seed,
        "threads": threads,
        "wall_s": round(wall_s, 1),
        "torch": str(torch.__version__),
        "parameters": sum(p.numel() for p in model.parameters()),
        "last_training_loss": round(float(np.mean(curve[-100:])), 3),
        "tested": tested,
        "word frequencies": unigram(found, seed, tested),
        "PoNet": measure(model, found, tested, seed),
    }
    save_file(weights, str(WEIGHTS), metadata={"pieces": json.dumps(pieces), "record": json.dumps(record)})
    CARD.write_text(card(record, len(pieces)), "utf-8")


def card(record, pieces) -> str:
    """Return the model card of a record, in Markdown; no figure in it comes from elsewhere."""
    ours, guessing = record["PoNet"], record["word frequencies"]
    loss, right = "loss per masked word", "masked words guessed"
    lines = [
        "# Model card: ponet",
        "",
        "Written by `workbench/models/attention/ponet_training.py` from the record in `ponet.safetensors`; "
        "do not edit.",
        "",
        f"A PoNet encoder (Tan et al. 2021): {record['parameters'] / 1e6:.2f} M parameters, {LAYERS} layers, {HEADS} "
        f"heads, width {DIM}, feed-forward {4 * DIM}, normalisation after, {WINDOWS.length} learned positions, "
        f"{pieces:,} word pieces; stored in float16.",
        "",
        "## Data",
        "",
        f"Text: {record['text']}, the topics only: {record['words']['train']:,} word pieces to train on, "
        f"{record['words']['held_out']:,} held out by topic. Word pieces are those of MiniLM that the training text "
        f"has twice or more. Sentences have {SHORTEST} to {LONGEST} pieces. A line is [CLS] A [SEP] B [SEP]: "
        f"A and B are runs of sentences that share {WINDOWS.length} tokens, and every sentence is a segment.",
        "",
        "## Training",
        "",
        f"{record['steps']:,} steps of {WINDOWS.batch} lines, {record['wall_s'] / 60:.1f} minutes on a CPU (threads: "
        f"{record['threads']}). {MASKED:.0%} of the words are masked; B follows A, comes before it, or is "
        f"of another topic. Both losses are added. AdamW, peak rate {RATE:g}, one cycle, dropout 0.1, "
        f"torch {record['torch']}, seed {record['seed']}. Last training loss (mean of 100 steps): "
        f"{record['last_training_loss']:.2f} nats per masked word.",
        "",
        f"## Held-out text, {record['tested']:,} lines",
        "",
        "| | loss per masked word (nats) | masked words guessed | orders guessed |",
        "|---|---|---|---|",
        f"| PoNet | {ours[loss]:.2f} | {ours[right]:.3f} | {ours['orders guessed']:.3f} |",
        f"| guessing by frequency | {guessing[loss]:.2f} | {guessing[right]:.3f} | 0.333 |",
        "",
        f"The entropy of the training words is {guessing['entropy of the words']:.2f} nats.",
        "",
        "## Limits",
        "",
        "It has seen one small book: use it to look at real poolings, not for its answers.",
        "",
        "## Retrain",
        "",
        "`python -m workbench.models.attention.ponet_training` trains, ships and measures; it needs the word pieces "
        "of the extra `models`. Another Python version has other text, so other figures.",
        "",
    ]
    return "\n".join(lines)


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    ship(options.steps, options.seed, options.threads)


if __name__ == "__main__":
    main()
