"""PoNet learns from text: masked words and the order of sentences, beside attention and FNet in the same skeleton.

The recipe is that of the shipped encoder (`ponet_training.WINDOWS`), with one thing chosen for each mixing: the peak
rate at which a word of the training text costs least after a quarter of the steps. PoNet is also trained at the rate of
the shipped encoder where that is another one: the order of sentences depends on it.
"""

from dataclasses import dataclass, replace
from functools import partial

from workbench.models.attention import ponet_training
from workbench.models.attention.ponet_corpus import Corpus, topics
from workbench.models.attention.ponet_training import WINDOWS, measure, pretrain, shipped, unigram
from workbench.paper import row
from workbench.papers.ponet.claims import AS_SHIPPED
from workbench.papers.ponet.digits import COMPARED, MIXINGS

COST, TRIED = "loss per masked word", "loss per masked word, training text"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How much a size does: steps, lines per step, seeds, peak rates, lines tested, and topics read of each part."""

    steps: int
    batch: int
    seeds: int
    rates: tuple[float, ...]
    tested: int
    topics: int | None = None


SETTINGS = {
    "tiny": Setting(steps=1, batch=4, seeds=1, rates=(1e-3,), tested=4, topics=5),
    "small": Setting(steps=60, batch=16, seeds=1, rates=(1e-3,), tested=64),
    "full": Setting(steps=ponet_training.STEPS, batch=16, seeds=3, rates=(1e-3, 2e-3), tested=512),
}


def language(size, seed, report, keep):
    """Pre-train on masked words and sentence order from every seed; test on held-out documentation."""
    report(0.0, "sentences")
    s = SETTINGS[size]
    text = topics(shipped().pieces, s.topics)
    tries = [(name, rate) for name in COMPARED for rate in s.rates] if len(s.rates) > 1 else []
    runs = [(name, seed + i, True) for i in range(s.seeds) for name in COMPARED] + [("PoNet", seed, False)]
    rows = [_row(name, x, mixing="word frequencies") for name, x in unigram(text, seed, s.tested).items()]
    for place, (name, rate) in enumerate(tries):
        part = report.part(place, len(tries) + 4 * len(runs), f"{name}, rate {rate:g}")
        labels = {"mixing": name, "seed": seed, "rate": rate, "steps": s.steps // 4}
        rows += keep(labels | {"quantity": TRIED}, partial(_tried, text, labels, s, part))
    plan = [
        (name, name if order else f"{name}, masked words only", own_seed, _chosen_rate(rows, name, s.rates), order)
        for name, own_seed, order in runs
    ]
    if plan[0][3] != ponet_training.RATE:
        plan += [("PoNet", AS_SHIPPED, seed + i, ponet_training.RATE, True) for i in range(s.seeds)]
    for place, (name, label, own_seed, rate, order) in enumerate(plan):
        part = report.part(len(tries) // 4 + place, len(tries) // 4 + len(plan), f"{label}, seed {own_seed}")
        labels = {"mixing": label, "seed": own_seed, "rate": rate, "steps": s.steps}
        rows += keep(labels, partial(_trained, text, MIXINGS[name], labels, s, order, part))
    facts = {"vocabulary": text.vocabulary, "tested": s.tested}
    return [facts | each for each in rows]


def _pretrained(text, mixing, labels, setting, report, order=True):
    return pretrain(
        text, mixing, labels["steps"], labels["seed"], order=order, rate=labels["rate"],
        recipe=replace(WINDOWS, batch=setting.batch), report=lambda fraction, loss: report(fraction),
    )  # fmt: skip


def _tried(text, labels, setting, report):
    """What a word of the training text costs after a short training at a rate."""
    model = _pretrained(text, MIXINGS[labels["mixing"]], labels, setting, report)
    known = Corpus(text.train, text.train, text.vocabulary)
    return [_row(TRIED, measure(model, known, setting.tested, labels["seed"])[COST], **labels)]


def _trained(text, mixing, labels, setting, order, report):
    """What one training gives on held-out text."""
    model = _pretrained(text, mixing, labels, setting, report, order)
    found = measure(model, text, setting.tested, labels["seed"])
    return [_row(name, x, **labels) for name, x in found.items() if order or name != "orders guessed"]


def _chosen_rate(rows, mixing, rates):
    """The rate at which the training text cost a mixing least; the only one there is without a trial."""
    cost = {r["rate"]: r["value"] for r in rows if r["quantity"] == TRIED and r["mixing"] == mixing}
    return min(rates, key=lambda rate: cost.get(rate, 0.0))


def _row(quantity, value, **labels):
    kind = "counted" if quantity == "entropy of the words" else "measured"
    unit = "fraction" if "guessed" in quantity else "nats"
    return row(quantity, value, unit, kind, **labels)
