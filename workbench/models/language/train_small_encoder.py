"""Train the small encoder: ``python -m workbench.models.language.train_small_encoder`` (about 25 minutes of one core).

The pretrained MiniLM is the teacher. Its sentence vectors of the training texts are taken once and kept in a file; the
pupil learns their 128 main directions, and the cosines of all pairs of a batch. Texts are cut by characters, so that
teacher and pupil, whose word pieces differ, read the same. The pupil's word table starts from the ridge regression of
the teacher's vectors on the words of a text.

At the end the pupil is measured on held-out text beside its teacher, TF-IDF and encoders that were not trained, and
the record and the model card are written; ``--evaluate`` does only that.
"""

import argparse
import datetime
import hashlib
import json
import logging
import re
import time
from collections import Counter
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from scipy import sparse, stats
from torch import nn
from torch.nn import functional as F

from workbench.data import text
from workbench.folders import WEIGHTS
from workbench.models.language import minilm, small_encoder, tiny_lm
from workbench.models.language.minilm import MiniLM
from workbench.models.language.train_tiny_lm import rate

__all__ = [
    "CARD",
    "JUDGED",
    "PROBES",
    "RECORD",
    "TEXTS",
    "card",
    "cut",
    "judged_span",
    "loss",
    "measure",
    "new_pupil",
    "pairs_of",
    "probe_cosines",
    "train",
    "training_texts",
]

LOG = logging.getLogger("train_small_encoder")
RECORD, CARD = (WEIGHTS / f"small_encoder.{kind}" for kind in ("json", "md"))
CORPORA = ("documentation", "library")
JUDGED = slice(160, 360)  # windows of the documentation that pruned encoders are judged on
WINDOW = 128  # tokens of such a window
TEXTS = {150: 4600, 450: 1800, 900: 160}  # characters of a training text at most -> how many
LINE = 40  # characters of a line that no training text may share with text that is judged or held out
STEPS, BATCH, RATE, RIDGE, PAIRS_WEIGHT, WORD_SIZE = 1200, 32, 1e-3, 0.05, 10.0, 0.1
ALIKE = 256  # texts of nearly the same number of tokens, from which a batch is drawn
HALF, HELD_OUT = 240, 200  # characters of half a held-out text; texts of each corpus
PROBES = 12  # held-out texts of which the record keeps the teacher's cosines


# Texts ---------------------------------------------------------------------------------------------------------------


def cut(words: str, length: int) -> list[str]:
    """Cut a text into pieces of two thirds of ``length`` to ``length`` characters, between words."""
    return re.findall(rf"(?<!\S)\S.{{{2 * length // 3 - 1},{length - 1}}}(?!\S)", words, re.DOTALL)


def judged_span(encoders) -> tuple[int, int]:
    """Return from where to where the windows `JUDGED` of some encoders reach in the documents of the documentation.

    The documents are those of ``text.documents("documentation")``, joined by single characters.
    """
    whole = " ".join(document.text for document in text.documents("documentation"))
    inner = slice((WINDOW - 2) * JUDGED.start, (WINDOW - 2) * JUDGED.stop)
    spans = [encoder.spans(whole)[1:-1][inner] for encoder in encoders]
    return int(min(each[0, 0] for each in spans)), int(max(each[-1, 1] for each in spans))


def training_documents(judged: tuple[int, int]) -> dict[str, list[str]]:
    """Return the training split of each corpus without documents that reach into the ``judged`` span.

    A line of `LINE` characters or more is cut out if a document that is judged or held out has it too.
    """
    withheld, at = {document.name: document for document in text.documents(CORPORA, "held_out")}, 0
    for document in text.documents("documentation"):
        if at < judged[1] and at + len(document.text) > judged[0]:
            withheld[document.name] = document
        at += len(document.text) + 1
    lines = {line for document in withheld.values() for line in _lines(document.text) if len(line) >= LINE}
    return {
        corpus: [
            "\n".join(line for line in document.text.splitlines() if line.strip() not in lines)
            for document in text.documents(corpus, "train")
            if document.name not in withheld
        ]
        for corpus in CORPORA
    }


def training_texts(documents, counts=None, seed=0) -> list[str]:
    """Return the training texts: of each length all that the documentation has, and the rest drawn from the library.

    Parameters
    ----------
    documents : what `training_documents` returned.
    counts : length -> number of texts; None for `TEXTS`.

    Raises
    ------
    ValueError : the documents hold less text.
    """
    rng, found = np.random.default_rng(seed), list[str]()
    for length, count in (counts or TEXTS).items():
        first, rest = ([piece for each in documents[corpus] for piece in cut(each, length)] for corpus in CORPORA)
        first = first[:count]
        if len(first) + len(rest) < count:
            raise ValueError(f"training_texts: {count} texts of {length} characters are more than there are; ask fewer")
        drawn = np.sort(rng.choice(len(rest), count - len(first), replace=False))
        found += first + [rest[i] for i in drawn]
    return found


def _lines(words):
    return (line.strip() for line in words.splitlines())


def _digest(texts):
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


# Training ------------------------------------------------------------------------------------------------------------


def teacher_vectors(texts, path) -> torch.Tensor:
    """Return the teacher's vectors of texts, float32 (texts, 384), from the file ``path`` if it holds them."""
    known = np.load(path) if path.exists() else {}
    if str(known.get("texts", "")) != _digest(texts):
        teacher = minilm.load()
        vectors = np.empty((len(texts), teacher.config.width), np.float32)
        order = _by_length([teacher.encode(words)[0] for words in texts])
        for start in range(0, len(texts), BATCH):
            some = order[start : start + BATCH]
            vectors[some] = teacher.embed([texts[i] for i in some]).numpy()
            if start // BATCH % 20 == 0:
                LOG.info("teacher: %d of %d texts, the longest last", start, len(texts))
        known = {"vectors": vectors, "texts": np.array(_digest(texts))}
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **known)
    return torch.from_numpy(known["vectors"])


def _by_length(rows):
    return np.argsort([len(row) for row in rows], kind="stable")


def main_directions(vectors, count) -> torch.Tensor:
    """Return the ``count`` directions in which vectors (n, d) are longest, as columns (d, count)."""
    return torch.linalg.eigh((vectors.T @ vectors).double())[1][:, -count:].float()


def new_pupil(seed=0) -> MiniLM:
    """Return an encoder with weights drawn from ``seed``; torch's own generator is left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MiniLM(small_encoder.CONFIG, small_encoder.tokenizer())
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, 0, 0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
    return model


@torch.no_grad()
def set_words(model, rows, wanted):
    """Set the word table so that the mean over a text's words is near the vector wanted of it, by ridge regression.

    Parameters
    ----------
    model : MiniLM, changed in place; word pieces that no text has keep their vectors.
    rows : ids of every text. wanted : (texts, width).
    """
    seen, place = np.unique(np.concatenate(rows), return_inverse=True)
    lengths = [len(row) for row in rows]
    shares = np.repeat(1 / np.array(lengths, np.float32), lengths)
    means = sparse.csr_array((shares, place, np.cumsum([0, *lengths])), (len(rows), len(seen)))
    means.sum_duplicates()
    gram = torch.from_numpy((means.T @ means).toarray())
    table = torch.linalg.solve(gram + RIDGE * torch.eye(len(seen)), torch.from_numpy(means.T @ wanted.numpy()))
    model.words.weight[torch.from_numpy(seen)] = WORD_SIZE * table / table.square().mean().sqrt()


def loss(vectors, wanted, cosines):
    """Return how far sentence vectors (b, d) are from those wanted, and their cosines from the teacher's (b, b)."""
    return 1 - (vectors * wanted).sum(1).mean() + PAIRS_WEIGHT * (vectors @ vectors.T - cosines).square().mean()


def train(texts, taught, steps, seed=0, report=lambda step, value: None) -> MiniLM:
    """Train an encoder on texts and their teacher's vectors by AdamW, warm-up and a cosine schedule."""
    model, rng = new_pupil(seed), np.random.default_rng(seed)
    rows = [model.encode(words)[0, : model.config.context] for words in texts]
    wanted = F.normalize(taught @ main_directions(taught, model.config.width), dim=1)
    set_words(model, [row.numpy() for row in rows], wanted)
    alike = np.array_split(_by_length(rows), max(1, len(rows) // ALIKE))
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    for step in range(steps):
        chosen = rng.choice(alike[rng.integers(len(alike))], BATCH, replace=False)
        teacher = taught[chosen]
        value = loss(model.pool([rows[i] for i in chosen]), wanted[chosen], teacher @ teacher.T)
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for part in optimiser.param_groups:
            part["lr"] = RATE * rate(step / steps)
        optimiser.step()
        report(step, value.item())
    return model.eval().requires_grad_(False)


# What is measured ----------------------------------------------------------------------------------------------------


def pairs_of(corpus) -> list[tuple[str, str]]:
    """Return held-out texts in two halves that follow each other, at most `HELD_OUT`, spread over the corpus."""
    found = []
    for document in text.documents(corpus, "held_out"):
        pieces = cut(document.text, HALF)
        found += zip(pieces[::2], pieces[1::2], strict=False)
    return [found[int(i)] for i in np.linspace(0, len(found) - 1, min(HELD_OUT, len(found)))]


def tf_idf(texts):
    """Return a function from texts to TF-IDF vectors of length 1, with document frequencies of ``texts``."""
    counts = Counter(chain.from_iterable(set(_words(words)) for words in texts))
    place = {word: i for i, word in enumerate(sorted(counts))}
    weight = np.log((1 + len(texts)) / (1 + np.array([counts[word] for word in place]))) + 1

    def vectors(some):
        found = np.zeros((len(some), len(place)), np.float32)
        for row, words in zip(found, some, strict=True):
            for word, count in Counter(_words(words)).items():
                if word in place:
                    row[place[word]] = count * weight[place[word]]
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-30)

    return vectors


def measure(methods, teacher) -> dict[str, dict[str, dict[str, float]]]:
    """Measure functions from texts to vectors of length 1 on held-out text: method -> corpus -> quantity -> value.

    Ranks are those of the cosines of all pairs of halves, against the teacher's. A second half is found if its cosine
    with its own first half is the largest of all second halves' of its corpus.
    """
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in methods}
    for corpus in CORPORA:
        halves = [half for pair in pairs_of(corpus) for half in pair]
        pairs = np.triu_indices(len(halves), 1)
        wanted = _cosines(teacher(halves))[pairs]
        for name, vectors in methods.items():
            cosines = _cosines(vectors(halves))
            nearest = cosines[::2, 1::2].argmax(1)
            found[name][corpus] = {
                "rank correlation with the teacher": round(float(stats.spearmanr(cosines[pairs], wanted)[0]), 4),
                "second halves found": round(float((nearest == np.arange(len(nearest))).mean()), 4),
            }
    return found


def probe_cosines(vectors) -> list[float]:
    """Return the cosines of all pairs of `PROBES` held-out texts."""
    halves = [first for first, _ in pairs_of("documentation")]
    some = halves[:: len(halves) // PROBES][:PROBES]
    return [round(float(x), 4) for x in _cosines(vectors(some))[np.triu_indices(PROBES, 1)]]


def held_out_digest() -> str:
    """Return the SHA-256 of the held-out texts, which tells whether this Python has the recorded ones."""
    return _digest(half for corpus in CORPORA for pair in pairs_of(corpus) for half in pair)


def _cosines(vectors):
    vectors = np.asarray(vectors)
    return vectors @ vectors.T


def _words(words):
    return re.findall(r"\w+", words.lower())


# What ships ----------------------------------------------------------------------------------------------------------


def ship(steps, seed, threads, folder, *, evaluate=False):
    """Train an encoder, store it in half precision, measure it, and write its record and its card."""
    torch.set_num_threads(threads)
    start = time.monotonic()
    judged = judged_span((minilm.load(), small_encoder.load() if evaluate else new_pupil()))
    texts = training_texts(training_documents(judged), seed=seed)
    taught = teacher_vectors(texts, folder / "teacher.npz")
    LOG.info("the teacher's vectors are there after %.1f min", (time.monotonic() - start) / 60)
    before, run = train(texts, taught, 0, seed), None
    if evaluate:
        run = json.loads(RECORD.read_text("utf-8"))["training"]
    else:
        start, curve = time.monotonic(), []

        def report(step, value):
            curve.append(value)
            if step % 50 == 49:
                LOG.info(
                    "step %d  loss %.3f  %.1f min", step + 1, np.mean(curve[-50:]), (time.monotonic() - start) / 60
                )

        model = train(texts, taught, steps, seed, report)
        tiny_lm.save(model, small_encoder.FILE)
        small_encoder.load.cache_clear()
        run = {
            "text": text.provenance(),
            "texts": {str(length): count for length, count in TEXTS.items()},
            "texts_sha256": _digest(texts),
            "teacher": f"{minilm.PACKAGE} {version(minilm.PACKAGE)}",
            "steps": steps,
            "seed": seed,
            "last_loss": round(float(np.mean(curve[-100:])), 4),
            "wall_s": round(time.monotonic() - start, 1),
            "threads": threads,
            "torch": str(torch.__version__),
            "date": datetime.date.today().isoformat(),
        }
    model, teacher = small_encoder.load(), minilm.load().embed
    methods = {
        "MiniLM, the teacher": teacher,
        "small encoder": model.embed,
        "small encoder before training": before.embed,
        "small encoder, weights drawn at random": new_pupil(seed).embed,
        "TF-IDF": tf_idf(texts),
    }
    record = {
        "schema": 1,
        "model": vars(model.config) | {"parameters": sum(p.numel() for p in model.parameters())},
        "weights_sha256": hashlib.sha256(small_encoder.FILE.read_bytes()).hexdigest(),
        "training": run,
        "held_out": {corpus: len(pairs_of(corpus)) for corpus in CORPORA} | {"sha256": held_out_digest()},
        "quality": measure(methods, teacher),
        "teacher_cosines": probe_cosines(teacher),
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    CARD.write_text(card(record), "utf-8")


def card(record) -> str:
    """Return the model card of a record, in Markdown; no figure in it comes from elsewhere."""
    model, run, held_out, quality = (record[name] for name in ("model", "training", "held_out", "quality"))
    texts = ", ".join(f"{count:,} of at most {length} characters" for length, count in run["texts"].items())
    columns = [(name, corpus) for name in quality["small encoder"][CORPORA[0]] for corpus in CORPORA]
    lines = [
        "# Model card: small_encoder",
        "",
        "Written by `workbench/models/language/train_small_encoder.py` from `small_encoder.json`; do not edit.",
        "",
        f"A sentence encoder of the form of MiniLM: {model['parameters'] / 1e6:.2f} M parameters, {model['layers']} "
        f"layers, {model['heads']} heads, width {model['width']}, feed-forward {model['hidden']}, normalisation after, "
        f"{model['context']} learned positions, the {model['vocabulary']} word pieces of tiny_lm; stored in float16 "
        f"(SHA-256 `{record['weights_sha256'][:16]}...`).",
        "",
        "## Data and licences",
        "",
        f"Text: {run['text']} (PSF License Version 2): {texts}. Documents that are held out by name, and those that "
        f"windows {JUDGED.start} to {JUDGED.stop - 1} of the documentation reach into, on which pruned encoders are "
        f"judged, are no training text; nor is any line of {LINE} characters or more that they have too. Teacher: "
        f"{run['teacher']}, the weights of sentence-transformers/all-MiniLM-L6-v2 (Apache License 2.0).",
        "",
        "## Training",
        "",
        f"{run['steps']:,} steps of {BATCH} texts, {run['wall_s'] / 60:.1f} minutes (CPU threads: {run['threads']}) "
        f"beside other work, the teacher's vectors not counted; AdamW, peak rate {RATE:g}, warm-up and cosine "
        f"schedule, torch {run['torch']}, seed {run['seed']}, {run['date']}. The loss is the distance of sentence "
        f"vectors from the {model['width']} main directions of the teacher's (one minus the cosine), and "
        f"{PAIRS_WEIGHT:g} times the squared error of the cosines in a batch; {run['last_loss']:.3f} at the end (mean "
        "of 100 steps). The word table starts from the ridge regression of the teacher's vectors on words.",
        "",
        "## Held-out text",
        "",
        f"Texts in two halves of at most {HALF} characters: {held_out['documentation']} of the documentation, "
        f"{held_out['library']} of the library. *Rank correlation*: of the cosines of all pairs of halves with the "
        "teacher's (Spearman). *Second halves found*: the share of first halves whose nearest second half is "
        "their own.",
        "",
        "| | " + " | ".join(f"{name}, {corpus}" for name, corpus in columns) + " |",
        "|---|" + "---|" * len(columns),
        *(
            f"| {method} | " + " | ".join(f"{found[corpus][name]:.3f}" for name, corpus in columns) + " |"
            for method, found in quality.items()
        ),
        "",
        "## Limits",
        "",
        "It has read Python's documentation and library for minutes, in English, where its teacher has read a billion "
        "pairs of sentences: use it to see what pruning and sparse attention do to an encoder, not to search with.",
        "",
        "## Retrain",
        "",
        "`python -m workbench.models.language.train_small_encoder` trains, ships and measures; it needs the teacher, "
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
    parser.add_argument("--folder", type=Path, default=Path(".workbench/train_small_encoder"))
    parser.add_argument("--evaluate", action="store_true", help="only measure the weights that ship")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    ship(options.steps, options.seed, options.threads, options.folder, evaluate=options.evaluate)


if __name__ == "__main__":
    main()
