"""PoNet on digits read as sequences of pixels, the shape of the Image task of the Long Range Arena."""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from workbench.data.images import digits
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
DIM, HEADS = 64, 2
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
