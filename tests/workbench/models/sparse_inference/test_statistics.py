"""What pruning knows of a model, against sums written out by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from workbench.models.sparse_inference.statistics import (
    gather_gradients,
    gather_statistics,
    linear_layers,
    relative_output_error,
)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.out = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(4, 6)

    def forward(self, x):
        return x + self.out(torch.tanh(self.query(x) * self.key(x)))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks, self.head = nn.ModuleList([Block(), Block()]), nn.Linear(6, 3)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


BATCHES = [torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]


def test_layers_in_numbered_blocks_are_meant_unless_they_are_named():
    model = Model()
    inside = [f"blocks.{i}.{name}" for i in (0, 1) for name in ("query", "key", "out")]
    assert list(linear_layers(model)) == inside
    assert list(linear_layers(model, ["head"])) == ["head"]
    assert list(linear_layers(Block())) == ["query", "key", "out"]
    with pytest.raises(KeyError, match=r"no linear layer; there are blocks\.0\.query"):
        linear_layers(model, ["blocks"])
    with pytest.raises(ValueError, match=r"no torch\.nn\.Linear"):
        linear_layers(nn.ReLU())


def test_gram_matrices_are_sums_over_all_tokens(assert_close):
    model = Model()
    found = gather_statistics(model, BATCHES)
    x = torch.cat(BATCHES).double().flatten(0, 1)
    assert found["blocks.0.query"].tokens == 30
    assert_close(found["blocks.0.query"].gram, (x.T @ x).numpy())
    assert_close(found["blocks.0.key"].gram, (x.T @ x).numpy())
    with torch.no_grad():
        inner = [torch.tanh(model.blocks[0].query(b) * model.blocks[0].key(b)) for b in BATCHES]
        later = torch.cat([model.blocks[0](b) for b in BATCHES]).flatten(0, 1).double()
    inner = torch.cat(inner).flatten(0, 1).double()
    assert_close(found["blocks.0.out"].gram, (inner.T @ inner).numpy())
    assert_close(found["blocks.1.key"].gram, (later.T @ later).numpy())
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_a_model_may_take_more_than_one_argument(assert_close):
    layers = linear_layers(Model(), ["head"])
    model = nn.Module()
    found = gather_statistics(model, [1, 2], layers=layers, forward=lambda _, n: layers["head"](n * torch.eye(6)))
    assert_close(found["head"].gram, 5 * np.eye(6))


def test_a_layer_without_input_is_named():
    with pytest.raises(ValueError, match="'head' saw no input"):
        gather_statistics(Block(), BATCHES, layers=linear_layers(Model(), ["head"]))


def test_gradients_are_summed_and_leave_the_model_alone(assert_close):
    model = Model().requires_grad_(False)
    found = gather_gradients(model, BATCHES, lambda m, x: m(x).square().sum())
    assert set(found) == set(linear_layers(model))
    weight = model.blocks[1].out.weight
    assert not weight.requires_grad and weight.grad is None
    step = 1e-3
    for place in ((0, 0), (5, 3)):
        costs = []
        for sign in (1, -1):
            weight.data[place] += sign * step
            costs.append(sum(model(x).double().square().sum().item() for x in BATCHES))
            weight.data[place] -= sign * step
        assert found["blocks.1.out"][place] == pytest.approx((costs[0] - costs[1]) / (2 * step), rel=2e-2, abs=1e-2)


def test_relative_output_error_is_that_of_the_outputs(rng):
    x, weight = rng.standard_normal((50, 8)), rng.standard_normal((5, 8))
    pruned = weight * (rng.random((5, 8)) < 0.5)
    wanted = np.linalg.norm(x @ (weight - pruned).T) / np.linalg.norm(x @ weight.T)
    assert relative_output_error(weight, pruned, x.T @ x) == pytest.approx(wanted, rel=1e-12)
    assert relative_output_error(weight, weight, x.T @ x) == 0
    assert relative_output_error(0 * weight, weight, x.T @ x) == np.inf
    assert relative_output_error(weight, pruned, np.zeros((8, 8))) == 0
