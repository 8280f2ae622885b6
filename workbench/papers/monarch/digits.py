"""Handwritten digits by nets with dense layers, with Monarch layers, and with both in turn."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from workbench.data import images
from workbench.models.compression.monarch import MonarchLinear, reverse_sparsify
from workbench.models.compression.monarch_training import RATES, train_schedule
from workbench.paper import row

WIDTH, CLASSES, NBLOCKS = 512, 10, 4
BATCH, RATE = 64, 2e-3
HELD_OUT = 0.2  # of the digits to train on: to choose between ways of ending
PASSES = {"tiny": 1, "small": 10, "full": 30}
SEEDS = {"tiny": 1, "small": 1, "full": 3}
DENSE, MONARCH = "dense", "Monarch"
TURNED = {f"Monarch, then dense, {rates}": rates for rates in RATES}


def digits(size, seed, report):
    """Train the same net in each way, with the same order of the digits; the last tenth of the steps may be dense."""
    rows, ways = [], (DENSE, MONARCH, *TURNED)
    for i in range(SEEDS[size]):
        for j, way in enumerate(ways):
            report((i + j / len(ways)) / SEEDS[size], f"{way}, seed {seed + i}")
            rows += trained(way, PASSES[size], seed + i)[1]
    return rows


def data():
    """Return the digits to train on, to choose on and to test on: float32 (n, 64) from 0 to 1, and labels."""
    first, test = [(torch.from_numpy(x).flatten(1), torch.from_numpy(y)) for x, y in images.digits()]
    cut = len(first[0]) - round(HELD_OUT * len(first[0]))
    return tuple(x[:cut] for x in first), tuple(x[cut:] for x in first), test


def net(seed, kind: Callable[[int, int], nn.Module] = nn.Linear) -> nn.Sequential:
    """Return the net before training: 64, 512, 512 and 10 values, the last layer dense."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(kind(64, WIDTH), nn.ReLU(), kind(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES))


def trained(way, passes, seed):
    """Train a net in one way; return it and the rows of what came of it."""
    (x, y), held_out, test = data()
    steps = passes * -(-len(x) // BATCH)
    model = net(seed, nn.Linear if way == DENSE else lambda n, m: MonarchLinear(n, m, NBLOCKS))
    labels = {"training": way, "seed": seed}
    count = sum(p.numel() for p in model.parameters())
    plan = train_schedule(steps, 0.1 if way in TURNED else 0.0, rates=TURNED.get(way, "continue"))
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
    rng, step, rows = np.random.default_rng(seed), 0, []
    for _ in range(passes):
        for some in torch.from_numpy(rng.permutation(len(x))).split(BATCH):
            if step == plan.switch:
                rows.append(row("jump of the loss at the switch", _jump(model, optimiser, x, y), "nats", "measured",
                                **labels))  # fmt: skip
            for group in optimiser.param_groups:
                group["lr"] = RATE * plan.rate(step)
            optimiser.zero_grad()
            F.cross_entropy(model(x[some]), y[some]).backward()
            optimiser.step()
            step += 1
    with torch.no_grad():
        loss = float(F.cross_entropy(model(x), y))
    return model, [
        *rows,
        row("test accuracy", _accuracy(model, *test), "fraction", "measured", **labels),
        row("validation accuracy", _accuracy(model, *held_out), "fraction", "measured", **labels),
        row("training loss at the end", loss, "nats", "measured", **labels),
        row("parameters while sparse", count, "parameters", "counted", **labels),
    ]


@torch.no_grad()
def _accuracy(model, x, y):
    return float((model(x).argmax(1) == y).float().mean())


@torch.no_grad()
def _jump(model, optimiser, x, y):
    before = F.cross_entropy(model(x), y)
    reverse_sparsify(model, optimiser)
    return float((F.cross_entropy(model(x), y) - before).abs())
