"""Every layer of a language model distilled on its own and put back: bits per byte and perplexity of held-out text."""

import statistics
from dataclasses import dataclass

import torch

from workbench.data import text as texts
from workbench.models.attention.performer import PerformerAttention
from workbench.models.attention.sea import distill_layer
from workbench.models.attention.sea_training import new_estimator
from workbench.models.language import tiny_lm
from workbench.paper import row
from workbench.papers.sea.masks import local_attention, top_attention

BATCH = 2


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How much one size does.

    Parameters
    ----------
    tokens, width, keys : the language model's window, cells per estimated row, keys per query and head.
    steps : of training, for every layer, of SEA and of the Performer.
    seeds : how often all layers are trained, each time from another start.
    bytes : of held-out text.
    """

    tokens: int
    width: int
    keys: int
    steps: int
    seeds: int
    bytes: int


SIZES = {
    "tiny": Setting(tokens=32, width=8, keys=4, steps=1, seeds=1, bytes=100),
    "small": Setting(tokens=128, width=32, keys=12, steps=15, seeds=1, bytes=3_000),
    "full": Setting(tokens=192, width=32, keys=12, steps=60, seeds=3, bytes=12_000),
}


def causal(size, seed, report):
    """Distil every layer of the language model on its own, put them back, and count the bits of held-out text."""
    s = SIZES[size]
    model, text = tiny_lm.load(), texts.sample(s.bytes)[0]
    ids = _windows(model, s)
    untrained = {
        "teacher": lambda layer: None,
        "local window and first token": lambda layer: local_attention(s.keys),
        "oracle keys": lambda layer: top_attention(s.keys, causal=True),
    }
    rows = []
    for place, (name, attend) in enumerate(untrained.items()):
        report(0.1 * place / len(untrained), f"bits per byte, {name}")
        rows += _bits(model, text, s, attend, method=name)
    for number in range(s.seeds):
        students = {"SEA": {}, "Performer": {}}
        for layer, _ in enumerate(model.layers):
            done = (number + layer / len(model.layers)) / s.seeds
            report(0.1 + 0.9 * done, f"distil layer {layer} from seed {seed + number}")
            for name, student in _distilled(model, ids, layer, s, seed + number).items():
                students[name][layer] = student
        for name, trained in students.items():
            labels = {"method": name, "steps per layer": s.steps, "seed": seed + number}
            rows += _bits(model, text, s, lambda layer, trained=trained: _attend(trained[layer]), **labels)
    return rows


def _distilled(model, ids, layer, s, seed):
    """Train SEA, and a Performer on the same features, data, steps and rate, for one layer."""
    width, heads = model.config.width, model.heads
    sea = new_estimator(
        width, heads, seed + layer, width=s.width, k=s.keys, causal=True, max_positions=s.tokens
    )  # fmt: skip
    students = {"SEA": sea, "Performer": PerformerAttention(width, heads, sea.projection, causal=True)}
    qkv = model.qkv(ids, layer)
    batches = [(*(x[i : i + BATCH] for x in qkv), None) for i in range(0, len(ids), BATCH)]
    for student in students.values():
        distill_layer(batches, student, steps=s.steps, seed=seed + layer)
    return students


def _windows(model, s):
    count = BATCH * max(1, s.steps // 2)
    text = "\n\n".join(d.text for d in texts.documents("documentation", split="train"))[: 6 * s.tokens * count]
    ids = model.encode(text)[0]
    return ids.unfold(0, s.tokens, s.tokens)[:count].contiguous()


def _attend(student):
    def attend(q, k, v, layer):
        with torch.no_grad():
            return student(q, k, v).context

    return attend


def _bits(model, text, s, attend, **labels):
    """Return the bits per byte with one layer replaced, mean over the layers, and with all of them; its perplexity."""

    def cost(layers):
        return model.bits_per_byte(text, context=s.tokens, attention={layer: attend(layer) for layer in layers})

    layers = range(len(model.layers))
    labels |= {"keys": s.keys, "tokens": s.tokens}
    one, every = statistics.fmean(cost([layer]) for layer in layers), cost(layers)
    predicted = model.encode(text).shape[1] - 1  # all tokens but the first
    perplexity = 2 ** (every * len(text.encode()) / predicted)
    return [
        row("bits per byte, one layer replaced", one, "bits per byte", "measured", **labels),
        row("bits per byte, all layers replaced", every, "bits per byte", "measured", **labels),
        row("perplexity per token, all layers replaced", perplexity, "number", "measured", **labels),
    ]
