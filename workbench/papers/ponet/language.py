"""PoNet learns from text: masked words and the order of sentences, beside attention and FNet in the same skeleton."""

from workbench.models.attention.ponet_corpus import corpus
from workbench.models.attention.ponet_training import Recipe, measure, pretrain, unigram
from workbench.paper import row
from workbench.papers.ponet.digits import COMPARED, MIXINGS

STEPS = {"tiny": 1, "small": 60, "full": 500}
BATCH = {"tiny": 4, "small": 32, "full": 32}
TESTED = {"tiny": 8, "small": 128, "full": 960}
UNITS = {"entropy of the words": "nats", "loss per masked word": "nats"}


def language(size, seed, report):
    """Pre-train on masked words and sentence order, in the same skeleton; test on held-out documentation."""
    report(0.0, "sentences")
    text = corpus(5 if size == "tiny" else None)
    steps, count = STEPS[size], TESTED[size]
    facts = {"steps": steps, "vocabulary": text.vocabulary, "tested": count}
    rows = [_row(name, value, mixing="word frequencies") for name, value in unigram(text, seed, count).items()]
    runs = [(name, True) for name in COMPARED] + ([("PoNet", False)] if size != "tiny" else [])
    for place, (name, order) in enumerate(runs):
        part = report.part(place, len(runs), name)
        model = pretrain(
            text, MIXINGS[name], steps, seed, order=order, recipe=Recipe(batch=BATCH[size]),
            report=lambda fraction, loss, part=part: part(fraction),
        )  # fmt: skip
        found = measure(model, text, count, seed)
        if not order:
            found.pop("orders guessed")
        label = name if order else f"{name}, masked words only"
        rows += [_row(quantity, value, mixing=label) for quantity, value in found.items()]
    return [facts | each for each in rows]


def _row(quantity, value, **labels):
    kind = "counted" if quantity == "entropy of the words" else "measured"
    return row(quantity, value, UNITS.get(quantity, "fraction"), kind, **labels)
