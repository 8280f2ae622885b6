"""Handwritten digits by a small net whose hidden layers lose four in five, or nine in ten, of their 4 x 1 blocks."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from kernels.masks.blocks import block_prune_mask
from kernels.matmul.quantize import quantize_activation_u8
from kernels.matmul.spmm_int8 import spmm_int8
from workbench.data import images
from workbench.models.sparse_inference.block_pruned import BlockPruner, block_sparsity, group_lasso_
from workbench.models.sparse_inference.compress import quantise
from workbench.models.sparse_inference.statistics import linear_layers
from workbench.paper import row

BLOCK, WIDTH, CLASSES = (4, 1), 256, 10
HIDDEN = ("0", "2")  # layers that are pruned; the last one has 10 outputs and stays dense
BATCH, FIRST_RATE, LATER_RATE = 64, 2e-3, 1e-3
RAMP, EVENTS = 0.6, 5  # share of the steps in which sparsity rises; steps between two choices of masks
LASSO = 1e-4
SPARSITIES = (0.8, 0.9)


@dataclass(frozen=True, kw_only=True)
class Way:
    """How blocks go while the net is trained on: schedule, what a weight is worth, and which norm the lasso takes."""

    schedule: str = "cubic"
    criterion: str = "magnitude"
    lasso: str | None = None
    at_once: bool = False


DENSE, AT_ONCE, AT_ONCE_TRAINED = "dense, trained on", "pruned at once", "pruned at once, trained on"
GRADUAL, LASSOED = "gradual, cubic", "gradual, cubic, group lasso"
SCHEDULES = ("exp", "cos", "linear", "cube", "cubic")
WAYS = {
    AT_ONCE_TRAINED: Way(at_once=True),
    **{f"gradual, {schedule}": Way(schedule=schedule) for schedule in SCHEDULES},
    "gradual, cubic, scores with momentum": Way(criterion="snip_momentum"),
    LASSOED: Way(lasso="weight"),
    "gradual, cubic, group lasso by gradients": Way(lasso="grad"),
}
QUANTISED = (GRADUAL, LASSOED)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How much a size does: passes over the digits in each of the two trainings, and seeds."""

    passes: int
    seeds: int


SETTINGS = {
    "tiny": Setting(passes=1, seeds=1),
    "small": Setting(passes=10, seeds=1),
    "full": Setting(passes=30, seeds=6),
}


def digits(size, seed, report):
    """Train the net, then prune it in every way while it is trained on for as long; the same seeds for all ways."""
    setting, rows = SETTINGS[size], []
    for i in range(setting.seeds):
        rows += _of_seed(seed + i, setting.passes, report.part(i, setting.seeds, f"seed {seed + i}"))
    return rows


def data() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the digits to train on and to test on: float32 (n, 64) from 0 to 1, and labels."""
    return {
        part: (torch.from_numpy(x).flatten(1), torch.from_numpy(labels))
        for part, (x, labels) in zip(("training", "test"), images.digits(), strict=True)
    }


def net(seed) -> nn.Sequential:
    """Return the net before training: 64, 256, 256 and 10 values."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first, second, last = nn.Linear(64, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)


def train(model, passes, rate, seed, after_step=lambda: None) -> nn.Module:
    """Train a net in place with Adam; ``after_step()`` is called while the gradients of each step are there."""
    x, labels = data()["training"]
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(passes):
        for some in torch.from_numpy(rng.permutation(len(x))).split(BATCH):
            optimiser.zero_grad()
            F.cross_entropy(model(x[some]), labels[some]).backward()
            optimiser.step()
            after_step()
    return model


def pruned(dense, way: Way, sparsity, passes, seed) -> nn.Module:
    """Return a copy of a trained net that was pruned while it was trained on."""
    model = copy.deepcopy(dense)
    steps = passes * -(-len(data()["training"][0]) // BATCH)
    end = 1 if way.at_once else max(1, round(RAMP * steps))
    how = {"schedule": way.schedule, "criterion": way.criterion, "frequency": EVENTS}
    pruner = BlockPruner(model, block=BLOCK, target=sparsity, end=end, layers=HIDDEN, **how)
    hidden = [model.get_submodule(name) for name in HIDDEN]

    def after_step():
        if way.lasso and pruner.taken < end:
            group_lasso_(hidden, LASSO, block=BLOCK, norm_of=way.lasso)
        pruner.step()

    return train(model, passes, LATER_RATE, seed, after_step)


@torch.no_grad()
def pruned_at_once(dense, sparsity) -> nn.Module:
    """Return a copy of a trained net without the hidden blocks of the least mean size, and no training after that."""
    model = copy.deepcopy(dense)
    for layer in linear_layers(model, HIDDEN).values():
        layer.weight.mul_(torch.from_numpy(block_prune_mask(layer.weight.abs().numpy(), sparsity, block=BLOCK)))
    return model


@torch.no_grad()
def accuracy(model, part="test") -> float:
    """Return the share of a part's digits that are recognised."""
    x, labels = data()[part]
    return float((model(x).argmax(1) == labels).float().mean())


def sums_that_differ(model, x: torch.Tensor) -> int:
    """Return how many sums of the hidden layers' int8 products are not those of torch in int32.

    Parameters
    ----------
    model : what `quantise` returned.
    x : float32 (n, 64).
    """
    wrong = 0
    with torch.no_grad():
        for layer in model:
            if hasattr(layer, "weight_scale"):
                q, *_ = quantize_activation_u8(x.t().contiguous().numpy(), low=layer.low, high=layer.high)
                want = torch.from_numpy(layer.weight.to_dense()).int() @ torch.from_numpy(q).int()
                wrong += int((torch.from_numpy(spmm_int8(layer.weight, q)) != want).sum())
            x = layer(x)
    return wrong


def _of_seed(seed, passes, report):
    dense = train(net(seed), passes, FIRST_RATE, seed)
    rows = _rows(train(copy.deepcopy(dense), passes, LATER_RATE, seed + 1000), training=DENSE, sparsity=0.0, seed=seed)
    for i, sparsity in enumerate(SPARSITIES):
        part = report.part(i, len(SPARSITIES), f"{sparsity:.0%} of the blocks gone")
        part(0.0, AT_ONCE)
        at_once = pruned_at_once(dense, sparsity)
        rows += _rows(at_once, training=AT_ONCE, sparsity=sparsity, seed=seed)
        for place, (name, way) in enumerate(WAYS.items()):
            part((place + 1) / (len(WAYS) + 1), name)
            labels = {"training": name, "sparsity": sparsity, "seed": seed}
            model = pruned(dense, way, sparsity, passes, seed + 1000)
            rows += _rows(model, **labels)
            if name in QUANTISED:
                rows += _int8_rows(model, **labels)
    return rows


def _rows(model, **labels):
    gone = [block_sparsity(layer.weight, BLOCK) for layer in linear_layers(model, HIDDEN).values()]
    return [
        row("test accuracy", accuracy(model), "fraction", "measured", **labels),
        row("blocks gone", float(np.mean(gone)), "fraction", "measured", **labels),
    ]


def _int8_rows(model, **labels):
    x, _ = data()["training"]
    small = quantise(model, [x], block=BLOCK, layers=HIDDEN)
    return [
        row("test accuracy in int8", accuracy(small), "fraction", "measured", **labels),
        row(
            "sums that differ from exact ones",
            sums_that_differ(small, data()["test"][0]),
            "number",
            "measured",
            **labels,
        ),
    ]
