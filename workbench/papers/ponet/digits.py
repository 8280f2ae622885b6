"""PoNet on digits read as sequences of pixels (the shape of LRA's Image task), and what a mixing layer costs."""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import kernels
from workbench.data.images import digits
from workbench.machines.stopwatch import measure
from workbench.machines.tensor_memory import largest_tensor_bytes
from workbench.models.attention.ponet import (
    FourierMixing,
    PoNetEncoder,
    PoNetMixing,
    SelfAttentionMixing,
    lra_segment_index,
    small_init,
)
from workbench.paper import row

SIDE, SYMBOLS, SEGMENTS, CLASSES = 16, 17, 16, 10
BATCH, RATE = {"tiny": 2, "small": 32, "full": 32}, 3e-3
STEPS = {"tiny": 1, "small": 60, "full": 500}
TESTED = {"tiny": 8, "small": 360, "full": 360}
MIXINGS = {
    "PoNet": PoNetMixing,
    "attention": SelfAttentionMixing,
    "FNet": lambda dim, heads: FourierMixing(),
    "without GA": partial(PoNetMixing, use=("smp", "lmp")),
    "without SMP": partial(PoNetMixing, use=("ga", "lmp")),
    "without LMP": partial(PoNetMixing, use=("ga", "smp")),
    "without the product": partial(PoNetMixing, fuse=False),
    "GA by average only": partial(PoNetMixing, second_stage=False),
}
COMPARED = ("PoNet", "attention", "FNet")
DIM, HEADS = 64, 2
LENGTHS = {"tiny": (64, 128), "small": (512, 1024, 2048), "full": (256, 512, 1024, 2048, 4096, 8192)}
ENCODER_LENGTHS = {"tiny": (64,), "small": (512, 1024), "full": (256, 512, 1024, 2048, 4096)}
ROUNDS = {"tiny": 1, "small": 5, "full": 7}


# Digits --------------------------------------------------------------------------------------------------------------


def sequences(images) -> torch.Tensor:
    """Return images (n, 8, 8) in [0, 1] as (n, 256) symbols from 0 to 16: resized to 16 x 16, read row by row."""
    large = F.interpolate(torch.from_numpy(images)[:, None] * 16, (SIDE, SIDE), mode="bilinear")
    return large.round().long().flatten(1)


class Classifier(nn.Module):
    """The encoder of the LRA runs with a mean over tokens and a linear layer on top."""

    def __init__(self, mixing, *, length=SIDE * SIDE, classes=CLASSES, dropout=0.1):
        super().__init__()
        self.encoder = PoNetEncoder(SYMBOLS, length, dim=DIM, heads=HEADS, mixing=mixing, dropout=dropout)
        self.head = nn.Linear(DIM, classes)
        small_init(self.head)
        self.segments = lra_segment_index(length, SEGMENTS)

    def forward(self, ids):
        """Map (b, length) symbols to (b, classes) logits."""
        return self.head(self.encoder(ids, self.segments[: ids.shape[1]]).mean(1))


def train(mixing, steps, seed, *, batch=32, report=lambda fraction: None) -> Classifier:
    """Train on the digits for a number of steps of ``batch`` digits each: AdamW, cosine, dropout 0.1 as in LRA."""
    (images, labels), _ = digits()
    ids, wanted = sequences(images), torch.from_numpy(labels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Classifier(mixing)
        rng = np.random.default_rng(seed)
        optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for step in range(steps):
            report(step / steps)
            some = rng.integers(len(ids), size=batch)
            optimiser.zero_grad()
            F.cross_entropy(model(ids[some]), wanted[some]).backward()
            optimiser.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model, tested=360) -> float:
    """Return the share of the first ``tested`` test digits that are recognised."""
    _, (images, labels) = digits()
    return float((model(sequences(images[:tested])).argmax(1).numpy() == labels[:tested]).mean())


def image(size, seed, report):
    """Train every mixing in the same skeleton; PoNet, attention and FNet from two seeds, ablations from one."""
    runs = [(name, seed + i) for i in range(1 if size == "tiny" else 2) for name in COMPARED]
    runs += [(name, seed) for name in MIXINGS if name not in COMPARED]
    rows, steps = [], STEPS[size]
    for place, (name, own_seed) in enumerate(runs):
        part = report.part(place, len(runs), f"{name}, seed {own_seed}")
        model = train(MIXINGS[name], steps, own_seed, batch=BATCH[size], report=part)
        labels = {"mixing": name, "seed": own_seed, "steps": steps, "tokens": SIDE * SIDE}
        rows.append(row("test accuracy", accuracy(model, TESTED[size]), "fraction", "measured", **labels))
        size_of = sum(p.numel() for p in model.parameters())
        rows.append(row("parameters", size_of, "parameters", "counted", **labels))
    return rows


# Cost ----------------------------------------------------------------------------------------------------------------


class PlainAttention(SelfAttentionMixing):
    """The same attention with its weights written out, as the papers of 2021 measured it."""

    def forward(self, x, segment_index=None, keep=None, special=None):
        """Map (b, N, D) to (b, N, D)."""
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        weights = torch.softmax(q @ k.mT * q.shape[3] ** -0.5, -1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


LAYERS = {"PoNet": PoNetMixing, "attention, weights written out": PlainAttention, "FNet": MIXINGS["FNet"]}


def memory(size, seed, report):
    """Count the largest tensor that forward and backward of one layer make."""
    rows = []
    for place, (name, mixing) in enumerate(LAYERS.items()):
        part = report.part(place, len(LAYERS), name)
        for number, t in enumerate(LENGTHS[size]):
            if name.startswith("attention") and t > 4096:
                continue  # 8192 x 8192 x 2 heads would take half a gigabyte per tensor
            part(number / len(LENGTHS[size]), f"{t} tokens")
            largest = largest_tensor_bytes(_layer_step(mixing, t, seed))
            rows.append(row("largest tensor", largest, "bytes", "counted", mixing=name, tokens=t, dim=DIM))
    return rows


def _layer_step(mixing, t, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, t, DIM, generator=generator, requires_grad=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = mixing(DIM, HEADS)
    segments = lra_segment_index(t, 64)
    return lambda: layer(x, segments).sum().backward()


def timing(size, seed, report):
    """Time forward and backward of one layer, and a training step of the encoder; interleaved medians."""
    before = torch.get_num_threads()
    threads = 1 if size == "tiny" else kernels.get_num_threads()  # with tiny operators a second one mostly waits
    torch.set_num_threads(threads)
    labels = {"threads": threads, "rounds": ROUNDS[size]}
    layers, steps = report.part(0, 2, "one layer"), report.part(1, 2, "a training step")
    rows = []
    try:
        for place, t in enumerate(LENGTHS[size]):
            layers(place / len(LENGTHS[size]), f"{t} tokens")
            runs = {name: _layer_step(MIXINGS[name], t, seed) for name in COMPARED}
            rows += _times(runs, "time of a layer, forward and backward", tokens=t, **labels)
        for place, t in enumerate(ENCODER_LENGTHS[size]):
            steps(place / len(ENCODER_LENGTHS[size]), f"{t} tokens")
            runs = {name: _encoder_step(MIXINGS[name], t, seed) for name in COMPARED}
            rows += _times(runs, "time of a training step, batch 4", tokens=t, **labels)
    finally:
        torch.set_num_threads(before)
    return rows


def _encoder_step(mixing, t, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Classifier(mixing, length=t, dropout=0.0)  # random numbers are no part of what is compared
    ids = torch.randint(SYMBOLS, (4, t), generator=torch.Generator().manual_seed(seed))
    return lambda: F.cross_entropy(model(ids), torch.zeros(4, dtype=torch.long)).backward()


def _times(runs, quantity, **labels):
    return [
        row(quantity, 1e3 * found.median_s, "ms", "measured", mixing=name, spread_ms=1e3 * found.spread_s, **labels)
        for name, found in measure(runs, rounds=labels["rounds"]).items()
    ]
