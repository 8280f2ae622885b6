"""PoNet on digits read as sequences of pixels, the shape of the Image task of the Long Range Arena."""

from dataclasses import dataclass
from functools import partial
from statistics import fmean

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

TOKENS, SYMBOLS, SEGMENTS, CLASSES = 64, 17, 8, 10
DIM, HEADS = 64, 2
FITTED = 1200  # of the training digits; those after them choose the rate
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


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How much a size does: steps of a training, digits per step, seeds, peak rates, digits tested at most."""

    steps: int
    batch: int
    seeds: int
    rates: tuple[float, ...]
    tested: int | None = None


SETTINGS = {
    "tiny": Setting(steps=1, batch=2, seeds=1, rates=(3e-3,), tested=8),
    "small": Setting(steps=60, batch=32, seeds=1, rates=(3e-3,)),
    "full": Setting(steps=1500, batch=32, seeds=3, rates=(1e-3, 3e-3)),
}


def sequences(images) -> torch.Tensor:
    """Return images (n, 8, 8) in [0, 1] as (n, 64) symbols from 0 to 16, read row by row."""
    return torch.from_numpy((16 * images).round().astype(np.int64)).flatten(1)


def parts() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the digits as symbols and labels: 1,200 to train on, 237 that choose the rate, and 360 to test on."""
    (ids, labels), test = ((sequences(x), torch.from_numpy(y)) for x, y in digits())
    fitted, choosing = ((ids[part], labels[part]) for part in (slice(FITTED), slice(FITTED, None)))
    return {"training": fitted, "validation": choosing, "test": test}


class Classifier(nn.Module):
    """The encoder of the LRA runs with a mean over tokens and a linear layer on top."""

    def __init__(self, mixing, *, length=TOKENS, segments=SEGMENTS, dropout=0.1):
        super().__init__()
        self.encoder = PoNetEncoder(SYMBOLS, length, dim=DIM, heads=HEADS, mixing=mixing, dropout=dropout)
        self.head = nn.Linear(DIM, CLASSES)
        small_init(self.head)
        self.segments = lra_segment_index(length, segments)

    def forward(self, ids):
        """Map (b, length) symbols to (b, classes) logits."""
        return self.head(self.encoder(ids, self.segments[: ids.shape[1]]).mean(1))


def train(mixing, steps, seed, *, rate=3e-3, batch=32, report=lambda fraction: None) -> Classifier:
    """Train on the digits: AdamW without decay, a tenth of warm-up and a linear fall, dropout 0.1, as for LRA."""
    ids, wanted = parts()["training"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Classifier(mixing)
        rng = np.random.default_rng(seed)
        optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, rate, total_steps=steps + 1, pct_start=0.1, anneal_strategy="linear", cycle_momentum=False
        )
        for step in range(steps):
            report(step / steps)
            some = rng.integers(len(ids), size=batch)
            optimiser.zero_grad()
            F.cross_entropy(model(ids[some]), wanted[some]).backward()
            optimiser.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model, part="test", tested=None) -> float:
    """Return the share of the first ``tested`` digits of a part, or of all, that are recognised."""
    ids, labels = (x[:tested] for x in parts()[part])
    return float((model(ids).argmax(1) == labels).float().mean())


def image(size, seed, report, keep):
    """Train every mixing from the same seeds at each rate; its validation digits choose which rate is reported."""
    s = SETTINGS[size]
    runs = [(name, seed + i, rate) for i in range(s.seeds) for name in MIXINGS for rate in s.rates]
    rows = []
    for place, (name, own_seed, rate) in enumerate(runs):
        part = report.part(place, len(runs), f"{name}, seed {own_seed}, rate {rate:g}")
        labels = {"mixing": name, "seed": own_seed, "rate": rate, "steps": s.steps, "tokens": TOKENS}
        rows += keep(labels, partial(_trained, labels, s, part))
    return [each | {"chosen": each["rate"] == _chosen_rate(rows, each["mixing"])} for each in rows]


def _trained(labels, setting, report):
    """The rows of one training: how many digits of each part are recognised, and parameters."""
    how = {"rate": labels["rate"], "batch": setting.batch, "report": report}
    model = train(MIXINGS[labels["mixing"]], setting.steps, labels["seed"], **how)
    found = {f"{part} accuracy": accuracy(model, part, setting.tested) for part in parts()}
    size = sum(p.numel() for p in model.parameters())
    return [
        *(row(name, share, "fraction", "measured", **labels) for name, share in found.items()),
        row("parameters", size, "parameters", "counted", **labels),
    ]


def _chosen_rate(rows, mixing):
    """The rate with the highest validation accuracy of a mixing, mean over seeds; the smaller of two that are equal."""
    found = {}
    for r in rows:
        if r["mixing"] == mixing and r["quantity"] == "validation accuracy":
            found.setdefault(r["rate"], []).append(r["value"])
    return max(sorted(found), key=lambda rate: fmean(found[rate]))
