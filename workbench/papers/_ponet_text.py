"""PoNet learns from text: masked words and the order of sentences, beside attention and FNet in the same skeleton."""

import re
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from workbench.data.text import documents
from workbench.models import minilm
from workbench.models.ponet import (
    FourierMixing,
    PoNetEncoder,
    PoNetMixing,
    SelfAttentionMixing,
    sso_examples,
    token_segment_index,
)
from workbench.paper import row

DIM, HEADS, LAYERS, LENGTH = 128, 4, 2, 64
BATCH, RATE, MASKED = 32, 1e-3, 0.15
STEPS = {"tiny": 2, "small": 60, "full": 500}
TESTED = {"tiny": 32, "small": 128, "full": 960}
MIXINGS = {"PoNet": PoNetMixing, "attention": SelfAttentionMixing, "FNet": lambda dim, heads: FourierMixing()}
PAD, CLS, SEP, MASK, UNKNOWN = range(5)  # our own numbering: word pieces that the training text has follow


@dataclass(frozen=True)
class Corpus:
    """Sentences as word pieces: chunks of consecutive sentences to train and to test on, and the vocabulary's size."""

    train: list
    test: list
    vocabulary: int


def corpus(largest=None) -> Corpus:
    """Cut the documentation's topics into sentences of 4 to 30 word pieces."""
    tokens = minilm.load()._tokens()
    chunks = {split: [] for split in ("train", "held_out")}
    for split, found in chunks.items():
        for document in documents("documentation", split)[:largest]:
            for paragraph in re.split(r"\n\s*\n", document.text):
                sentences = re.split(r"(?<=[.!?:])\s+", " ".join(paragraph.split()))
                pieces = [tokens.encode(s, add_special_tokens=False).ids for s in sentences]
                found.append([p for p in pieces if 4 <= len(p) <= 30])
    known = sorted({i for chunk in chunks["train"] for sentence in chunk for i in sentence})
    number = {piece: 5 + place for place, piece in enumerate(known)}
    ours = {
        split: [[[number.get(i, UNKNOWN) for i in s] for s in chunk] for chunk in found if len(chunk) >= 2]
        for split, found in chunks.items()
    }
    return Corpus(ours["train"], ours["held_out"], 5 + len(known))


@dataclass(frozen=True)
class Batch:
    """Masked pairs of sentences: ids, targets (-1 where nothing was masked), segments, keep, special; labels (b,)."""

    ids: torch.Tensor
    targets: torch.Tensor
    segments: torch.Tensor
    keep: torch.Tensor
    special: torch.Tensor
    labels: torch.Tensor


def batch_of(chunks, rng, count, vocabulary) -> Batch:
    """Draw pairs, put them between [CLS] and [SEP], and mask 15 % of the words (8 of 10 hidden, 1 replaced, 1 kept)."""
    drawn = sso_examples(chunks, rng, count=count)
    ids = np.full((count, LENGTH), PAD)
    for place, (a, b, _) in enumerate(drawn):
        line = [CLS, *a, SEP, *b, SEP]
        ids[place, : len(line)] = line
    special = np.isin(ids, (CLS, SEP))
    words = (ids != PAD) & ~special
    chosen = words & (rng.random(ids.shape) < MASKED)
    targets = np.where(chosen, ids, -1)
    dice = rng.random(ids.shape)
    ids = np.where(chosen & (dice < 0.8), MASK, ids)
    ids = np.where(chosen & (dice >= 0.9), rng.integers(5, vocabulary, ids.shape), ids)
    ids = torch.from_numpy(ids)
    labels = torch.tensor([label for _, _, label in drawn])
    segments = token_segment_index(ids, CLS, SEP)
    return Batch(ids, torch.from_numpy(targets), segments, ids != PAD, torch.from_numpy(special), labels)


class Pretraining(nn.Module):
    """An encoder of the BERT skeleton with a head for masked words (tied to the word table) and one for the order."""

    def __init__(self, vocabulary, mixing):
        super().__init__()
        how = {"dim": DIM, "heads": HEADS, "layers": LAYERS, "hidden": 4 * DIM, "mixing": mixing, "norm": "post"}
        self.encoder = PoNetEncoder(vocabulary, LENGTH, dropout=0.0, **how)
        self.word, self.bias = nn.Linear(DIM, DIM), nn.Parameter(torch.zeros(vocabulary))
        self.norm, self.order = nn.LayerNorm(DIM), nn.Linear(DIM, 3)

    def forward(self, batch):
        """Return logits of the masked words (masked, vocabulary) and of the order (b, 3)."""
        x = self.encoder(batch.ids, batch.segments, batch.keep, batch.special)
        words = self.norm(F.gelu(self.word(x[batch.targets >= 0])))
        return words @ self.encoder.tokens.weight.T + self.bias, self.order(x[:, 0])


def losses(model, batch):
    """Return cross-entropies of masked words and of the order."""
    words, order = model(batch)
    return F.cross_entropy(words, batch.targets[batch.targets >= 0]), F.cross_entropy(order, batch.labels)


def pretrain(text, mixing, steps, seed, *, order=True, report=lambda fraction: None) -> Pretraining:
    """Train for a number of steps; ``order=False`` leaves the sentence objective out."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Pretraining(text.vocabulary, mixing)
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps + 1, pct_start=0.1)
    for step in range(steps):
        report(step / steps)
        optimiser.zero_grad()
        words, sentences = losses(model, batch_of(text.train, rng, BATCH, text.vocabulary))
        (words + sentences if order else words).backward()
        optimiser.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def test(model, text, count, seed) -> dict[str, float]:
    """Return the loss per masked word (nats), the share of words and of orders that are right, on held-out text."""
    batch = batch_of(text.test, np.random.default_rng(1000 + seed), count, text.vocabulary)
    words, order = model(batch)
    wanted = batch.targets[batch.targets >= 0]
    return {
        "loss per masked word": float(F.cross_entropy(words, wanted)),
        "masked words guessed": float((words.argmax(1) == wanted).float().mean()),
        "orders guessed": float((order.argmax(1) == batch.labels).float().mean()),
    }


def unigram(text, seed, count) -> dict[str, float]:
    """Return the entropy of the training words, and what guessing by frequency costs on the words of `test`."""
    counts = np.bincount([i for chunk in text.train for s in chunk for i in s], minlength=text.vocabulary)
    p = counts / counts.sum()
    used = p[p > 0]
    batch = batch_of(text.test, np.random.default_rng(1000 + seed), count, text.vocabulary)
    wanted = batch.targets[batch.targets >= 0].numpy()
    smooth = (counts + 0.5) / (counts + 0.5).sum()
    return {
        "entropy of the words": float(-(used * np.log(used)).sum()),
        "loss per masked word": float(-np.log(smooth[wanted]).mean()),
        "masked words guessed": float((wanted == counts.argmax()).mean()),
    }


UNITS = {"entropy of the words": "nats", "loss per masked word": "nats"}


def language(size, seed, report):
    """Pre-train on masked words and sentence order, in the same skeleton; test on held-out documentation."""
    report(0.0, "sentences")
    text = corpus(20 if size == "tiny" else None)
    steps, count = STEPS[size], TESTED[size]
    facts = {"steps": steps, "vocabulary": text.vocabulary, "tested": count}
    rows = [_row(name, value, mixing="word frequencies") for name, value in unigram(text, seed, count).items()]
    runs = [(name, True) for name in MIXINGS] + ([("PoNet", False)] if size != "tiny" else [])
    for place, (name, order) in enumerate(runs):
        start = place / len(runs)
        model = pretrain(
            text, MIXINGS[name], steps, seed, order=order,
            report=lambda f, s=start, n=name: report(s + f / len(runs), n),
        )  # fmt: skip
        found = test(model, text, count, seed)
        if not order:
            found.pop("orders guessed")
        label = name if order else f"{name}, masked words only"
        rows += [_row(quantity, value, mixing=label) for quantity, value in found.items()]
    return [facts | each for each in rows]


def _row(quantity, value, **labels):
    return row(quantity, value, UNITS.get(quantity, "share"), "counted", **labels)
