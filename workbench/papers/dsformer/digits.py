"""Handwritten digits by a small net whose hidden layers are factorised, and trained on in four ways."""

from copy import deepcopy
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from workbench.data import images
from workbench.models.compression.ds_linear import dsformer
from workbench.models.compression.ds_training import Finetuned, ds_layers, stf_finetune
from workbench.models.compression.dsformer import DSBlockSpec
from workbench.paper import row

ACCURACY, BEFORE, SEARCHED = "test accuracy", "test accuracy before training", "test accuracy before the polish"
CHOOSING = "validation accuracy"  # of the digits on which the better way is chosen
CHURN, LOSS, PARAMETERS = "share of places that change in a step", "training loss", "parameters, both hidden layers"
DENSE, SVD, FROZEN, STF, COEF = (
    "dense",
    "SVD, trained",
    "frozen places",
    "straight through",
    "straight through, largest",
)
MODES = {FROZEN: "frozen", STF: "stf", COEF: "stf_coef"}
HIDDEN, WIDTH, CLASSES, BATCH = ("0", "2"), 256, 10, 64
TRAINED, HELD_OUT = 0.6, 0.2  # of the digits, the others are the test; of the former, to choose between ways
SPECS = {
    9: DSBlockSpec(atoms=12, nnz_per_row=2),
    16: DSBlockSpec(atoms=8, nnz_per_row=1),
    21: DSBlockSpec(atoms=4, nnz_per_row=1),
}
CHOSEN = {"tiny": (16,), "small": (16,), "full": (9, 16, 21)}
PASSES = {"tiny": 1, "small": 10, "full": 30}
SEEDS = {"tiny": 1, "small": 1, "full": 3}
RATE, PARTS = 1e-3, 10  # learning rate; parts of the search whose churn and loss are told


def digits(size, seed, report, keep):
    """Train the net, factorise its hidden layers, and train on: the same seeds, batches and steps for all ways.

    The digits on which the better way is chosen are neither trained on nor tested on.
    """
    rows, work = [], [(seed + i, ratio) for i in range(SEEDS[size]) for ratio in CHOSEN[size]]
    for i, (each, ratio) in enumerate(work):
        report(i / len(work), f"seed {each}, about {ratio} times smaller")
        rows += keep({"seed": each, "ratio": ratio}, partial(_of, each, ratio, PASSES[size]))
    return rows


Digits = tuple[torch.Tensor, torch.Tensor]


def data(seed) -> tuple[Digits, Digits, Digits]:
    """Return digits to train on, to choose on and to test on, drawn by the seed.

    Each is float32 (n, 64) from 0 to 1, and labels.
    """
    (x, y), (more, others) = images.digits()
    x, y = np.concatenate([x, more]).reshape(-1, 64), np.concatenate([y, others])
    order = np.random.default_rng(seed).permutation(len(x))
    x, y, cut = torch.from_numpy(x[order]), torch.from_numpy(y[order]), round(TRAINED * len(x))
    own = cut - round(HELD_OUT * cut)
    return (x[:own], y[:own]), (x[own:cut], y[own:cut]), (x[cut:], y[cut:])


def net(seed, passes) -> nn.Sequential:
    """Return the dense net, trained: 64, 256, 256 and 10 values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES)
        )
    batches, optimiser = batches_of(seed), torch.optim.Adam(model.parameters(), lr=RATE)
    for _ in range(passes):
        for batch in batches:
            optimiser.zero_grad()
            loss(model, batch).backward()
            optimiser.step()
    return model


def batches_of(seed) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the batches of a pass."""
    (x, y), *_ = data(seed)
    return list(zip(x.split(BATCH), y.split(BATCH), strict=True))


def loss(model, batch) -> torch.Tensor:
    """Return the cross-entropy of a batch."""
    return F.cross_entropy(model(batch[0]), batch[1])


def low_rank(model, spec: DSBlockSpec) -> dict[str, DSBlockSpec]:
    """Return the sizes of the truncated SVD of each layer that holds at most as many values: one block, s = r."""
    found = {}
    for name in HIDDEN:
        m, n = shape = tuple(model.get_submodule(name).weight.shape)
        rank = max(1, spec.num_values(shape) // (m + n))
        found[name] = DSBlockSpec(block_cols=n, atoms=rank, nnz_per_row=rank)
    return found


@torch.no_grad()
def accuracy(model, digits: Digits) -> float:
    """Return the share of some digits that are recognised."""
    x, y = digits
    return float((model(x).argmax(1) == y).float().mean())


def trained(model, way, ratio, passes, seed) -> tuple[nn.Module, Finetuned]:
    """Return the factorised net before the training, and what the training of one way left."""
    how = {"epochs": passes, "lr": RATE, "mode": MODES.get(way, "frozen")}
    if way != SVD:
        spec = SPECS[ratio]
        before = dsformer(model, mode="frozen", spec=spec, layers=HIDDEN)
        return before, stf_finetune(model, HIDDEN, loss, batches_of(seed), spec, **how)
    before, specs = model, low_rank(model, SPECS[ratio])
    for name, each in specs.items():
        before = dsformer(before, mode="frozen", spec=each, layers=[name], sweeps=0)
    return before, stf_finetune(model, HIDDEN, loss, batches_of(seed), specs, sweeps=0, **how)


def _of(seed, ratio, passes):
    dense, (_, held_out, test) = net(seed, passes), data(seed)
    labels = {"seed": seed, "ratio": ratio}
    rows = [row(ACCURACY, accuracy(dense, test), "fraction", "measured", way=DENSE, **labels)]
    for way in (SVD, FROZEN, STF, COEF):
        before, found = trained(dense, way, ratio, passes, seed)
        searched = deepcopy(found.model)
        searched.load_state_dict(found.before_polish)
        for quantity, model in ((BEFORE, before), (SEARCHED, searched), (ACCURACY, found.finalised())):
            rows.append(row(quantity, accuracy(model, test), "fraction", "measured", way=way, **labels))
        rows.append(row(CHOOSING, accuracy(found.finalised(), held_out), "fraction", "measured", way=way, **labels))
        size = sum(layer.factors().num_values() for layer in ds_layers(found.model).values())
        rows.append(row(PARAMETERS, size, "parameters", "counted", way=way, **labels))
        for part, some in enumerate(np.array_split(found.churn, PARTS)):
            if len(some):
                rows.append(row(CHURN, float(some.mean()), "fraction", "measured", way=way, part=part, **labels))
        for part, some in enumerate(np.array_split(found.losses, PARTS)):
            if len(some):
                rows.append(row(LOSS, float(some.mean()), "nats", "measured", way=way, part=part, **labels))
    return rows
