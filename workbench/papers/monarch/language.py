"""A small language model of bytes whose feed-forward layers are dense, Monarch, or both in turn."""

import math
from functools import cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from workbench.data import text
from workbench.models.compression.monarch import MonarchLinear, reverse_sparsify
from workbench.models.compression.monarch_training import RATES, train_schedule
from workbench.models.language.tiny_lm import TinyConfig, TinyLM
from workbench.models.sparse_inference.sparse_linear import replace_linear
from workbench.paper import row

CONFIG = TinyConfig(vocabulary=256, layers=2, heads=4, width=128, hidden=512, context=96)
FEED = ("gate", "up", "down")
NBLOCKS, RATE, DENSE_SHARE = 4, 2e-3, 0.1
BATCH = {"tiny": 2, "small": 16, "full": 16}
STEPS = {"tiny": 10, "small": 100, "full": 600}
PIECES = {"tiny": 2, "small": 16, "full": 64}  # of held-out text, 16 windows each
DENSE, MONARCH = "dense", "Monarch"
TURNED = {f"Monarch, then dense, {rates}": rates for rates in RATES}
WAYS = (DENSE, MONARCH, *TURNED)


def language(size, seed, report, keep):
    """Train on the documentation of Python in each way, on the same windows, and judge on documents held out."""
    rows = []
    for i, way in enumerate(WAYS):
        part = report.part(i, len(WAYS), way)
        how = {"steps": STEPS[size], "batch": BATCH[size], "pieces": PIECES[size], "seed": seed, "report": part}
        rows += keep({"training": way}, lambda way=way, how=how: trained(way, **how))
    return rows


@cache
def stream(split) -> np.ndarray:
    """Return the bytes of the documents of a split, one behind the other."""
    whole = "\n\n".join(document.text for document in text.documents("documentation", split))
    return np.frombuffer(whole.encode(), np.uint8)


def windows(split, starts) -> torch.Tensor:
    """Return the windows of a split that begin at these bytes: int64 (len(starts), 97), the last one a target only."""
    return torch.from_numpy(stream(split)[np.asarray(starts)[:, None] + np.arange(CONFIG.context + 1)].astype(np.int64))


def model_of(way, seed) -> TinyLM:
    """Return the model before training; the dense one draws its weights as the others do, but for the feed-forward."""
    model = TinyLM(CONFIG)
    model.reset(seed)
    if way == DENSE:
        return model
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = {
            f"layers.{i}.{name}": MonarchLinear(layer.in_features, layer.out_features, NBLOCKS, bias=False)
            for i, block in enumerate(model.layers)
            for name, layer in ((name, getattr(block, name)) for name in FEED)
        }
    replace_linear(model, made)
    with torch.no_grad():  # what adds to the stream starts small, as in the dense model
        for name, layer in made.items():
            if name.endswith("down"):
                layer.w2.div_((2 * CONFIG.layers) ** 0.5)
    return model


def loss_of(model, tokens) -> torch.Tensor:
    """Return the mean cross-entropy of the next byte, in nats."""
    logits = model(tokens[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def trained(way, steps, batch, pieces, seed, report):
    """Train in one way; return the rows of what came of it."""
    model, labels = model_of(way, seed), {"training": way, "steps": steps, "seed": seed}
    counts = parameters(model)
    plan = train_schedule(steps, DENSE_SHARE if way in TURNED else 0.0, rates=TURNED.get(way, "continue"))
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    rng, rows, losses = np.random.default_rng(seed), [], []
    last = len(stream("train")) - CONFIG.context - 1
    for step in range(steps):
        report(step / steps, f"training step {step + 1} of {steps}")
        tokens = windows("train", rng.integers(last, size=batch))
        if step == plan.switch:
            rows.append(row("jump of the loss at the switch", _jump(model, optimiser, tokens), "nats", "measured",
                            **labels))  # fmt: skip
        for group in optimiser.param_groups:
            group["lr"] = RATE * plan.rate(step) * min(1.0, (step + 1) / 20)
        optimiser.zero_grad()
        loss = loss_of(model, tokens)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
    every = max(1, steps // 40)
    rows += [
        row("training loss", float(np.mean(losses[at : at + every])), "nats", "measured", step=at, **labels)
        for at in range(0, steps, every)
    ]
    rows += [row("bits per byte of the text", x, "bits per byte", "measured", piece=i, **labels)
             for i, x in enumerate(judged(model, pieces))]  # fmt: skip
    return [*rows, row("parameters, feed-forward", counts, "parameters", "counted", **labels)]


def parameters(model) -> int:
    """Return how many numbers the feed-forward layers hold."""
    return sum(p.numel() for block in model.layers for name in FEED for p in getattr(block, name).parameters())


@torch.no_grad()
def judged(model, pieces) -> list[float]:
    """Return the bits per byte of each piece of the held-out text."""
    starts = np.linspace(0, len(stream("held_out")) - CONFIG.context - 1, 16 * pieces).astype(int)
    return [float(loss_of(model, windows("held_out", some))) / math.log(2) for some in np.split(starts, pieces)]


@torch.no_grad()
def _jump(model, optimiser, tokens):
    before = loss_of(model, tokens)
    reverse_sparsify(model, optimiser)
    return float((loss_of(model, tokens) - before).abs())
