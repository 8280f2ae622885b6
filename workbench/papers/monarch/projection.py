"""A trained sentence encoder projected onto Monarch layers, and trained for a short while, beside low rank."""

import copy

import torch
from scipy import linalg
from torch import nn

from workbench.explorers.pruning.source import source
from workbench.models.compression.monarch import MonarchLinear, d2s_project
from workbench.models.compression.monarch_training import recover_factors
from workbench.models.sparse_inference.sparse_linear import replace_linear
from workbench.models.sparse_inference.statistics import linear_layers
from workbench.paper import row

MODELS = {
    "tiny": {"small_encoder": (4,)},
    "small": {"small_encoder": (4, 8)},
    "full": {"small_encoder": (2, 4, 8), "minilm": (4,)},
}
STEPS = {"tiny": 1, "small": 40, "full": 150}
LARGE_STEPS = 40  # of the pretrained encoder, which is twenty times as large
RATE = 1e-3
MONARCH, LOW_RANK = "Monarch", "low rank"


class LowRank(nn.Sequential):
    """A linear layer of two dense factors, which start as the nearest matrix of that rank."""

    def __init__(self, linear: nn.Linear, rank: int):
        u, sizes, vt = linalg.svd(linear.weight.detach().double().numpy(), full_matrices=False)
        first, second = nn.Linear(linear.in_features, rank, bias=False), nn.Linear(rank, linear.out_features)
        root = sizes[:rank] ** 0.5
        with torch.no_grad():
            first.weight.copy_(torch.from_numpy(root[:, None] * vt[:rank]))
            second.weight.copy_(torch.from_numpy(u[:, :rank] * root))
            second.bias.copy_(linear.bias)
        super().__init__(first, second)
        self.error = float((sizes[rank:] ** 2).sum() ** 0.5 / (sizes**2).sum() ** 0.5)


def projection(size, seed, report, keep):
    """Project every linear layer inside the blocks of an encoder, and judge it before and after a short training.

    Low rank has as many parameters as the Monarch layer, rounded up in its favour.
    """
    rows, cases = [], [(key, blocks) for key, counts in MODELS[size].items() for blocks in counts]
    missing = [key for key, _ in cases if source(key).missing()]
    cases = [(key, blocks) for key, blocks in cases if key not in missing]
    for i, (key, blocks) in enumerate(cases):
        for j, structure in enumerate((MONARCH, LOW_RANK)):
            part = report.part(2 * i + j, 2 * len(cases), f"{key}, {blocks} blocks, {structure}")
            labels = {"model": key, "nblocks": blocks, "structure": structure}
            rows += keep(labels, lambda labels=labels, part=part: _case(labels, size, seed, part))
    return rows


def low_rank(model, like) -> nn.Module:
    """Return a copy whose linear layers have two dense factors with as many parameters as those of ``like``."""
    made = {}
    for name, layer in linear_layers(model).items():
        wanted = like.get_submodule(name)
        size = wanted.w1.numel() + wanted.w2.numel()
        made[name] = LowRank(layer, -(-size // (layer.in_features + layer.out_features)))
    return replace_linear(copy.deepcopy(model), made)


def _case(labels, size, seed, report):
    of = source(labels["model"])
    dense, steps = of.load(), LARGE_STEPS if labels["model"] == "minilm" else STEPS[size]
    if size == "tiny":  # one layer is enough to see it run
        dense = copy.deepcopy(dense)
        dense.layers = nn.ModuleList(list(dense.get_submodule("layers").children())[:1])
    report(0.0, "project")
    near = d2s_project(dense, labels["nblocks"])
    if labels["structure"] == LOW_RANK:
        near = low_rank(dense, near)
    layers = [module for module in near.modules() if isinstance(module, MonarchLinear | LowRank)]
    taught = [of.calibration()[0][:4, :32]] if size == "tiny" else of.training(steps, seed)
    better = recover_factors(near, dense, taught, kinds=(MonarchLinear, LowRank), steps=steps, rate=RATE,
                             loss=of.distil, seed=seed, report=report)  # fmt: skip
    held = sum(p.numel() for layer in layers for p in layer.parameters() if p.ndim > 1)
    whole = sum(layer.weight.numel() for layer in linear_layers(dense).values())
    rows = [
        row(
            "weight error", sum(layer.error or 0.0 for layer in layers) / len(layers), "relative", "measured", **labels
        ),
        row("parameters, linear layers", held, "parameters", "counted", **labels),
        row("share of the parameters that stay", held / whole, "fraction", "counted", **labels),
    ]
    for trained, model in ((0, near), (steps, better)):
        found = _judged(dense, model, of, size)
        rows += [row(f"quality, {quality}", x, unit, "measured", steps=trained, **labels)
                 for quality, (x, unit) in found.items()]  # fmt: skip
    return rows


@torch.no_grad()
def _judged(dense, model, of, size):
    if size == "tiny":
        tokens = of.calibration()[1][:4, :32]
        near = torch.cosine_similarity(model(tokens).mean(1), dense(tokens).mean(1)).mean()
        return {"cosine": (float(near), "cosine")}
    return {axis.key: (of.judge(model)[axis.key], axis.unit) for axis in of.qualities}
