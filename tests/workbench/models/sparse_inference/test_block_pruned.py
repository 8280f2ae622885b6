"""Gradual block pruning and group lasso, against masks and steps worked out by hand."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from workbench.models.sparse_inference.block_pruned import CRITERIA, BlockPruner, block_sparsity, group_lasso_


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 8))


def train(model, pruner, steps, rate=0.05):
    """Train by plain steps downhill towards drawn targets; return the weights' zeros after each step."""
    draws = torch.Generator().manual_seed(1)
    x, wanted = torch.randn(64, 10, generator=draws), torch.randn(64, 8, generator=draws)
    optimiser, zeros = torch.optim.SGD(model.parameters(), lr=rate), []
    for _ in range(steps):
        optimiser.zero_grad()
        (model(x) - wanted).square().mean().backward()
        optimiser.step()
        pruner.step()
        zeros.append([layer.weight.detach() == 0 for layer in pruner.layers.values()])
    return zeros


def whole_blocks(zeros, block):
    br, bc = block
    tiles = zeros.reshape(zeros.shape[0] // br, br, zeros.shape[1] // bc, bc).float().mean(dim=(1, 3))
    return bool(((tiles == 0) | (tiles == 1)).all())


@pytest.mark.parametrize("schedule", ["exp", "cos", "linear", "cube", "cubic"])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_target_is_reached_in_whole_blocks(schedule, criterion):
    model = net()
    pruner = BlockPruner(model, target=0.7, schedule=schedule, criterion=criterion, end=12, frequency=5)
    *_, last = train(model, pruner, 12)
    for zeros, layer in zip(last, pruner.layers.values(), strict=True):
        blocks = layer.weight.numel() // 4
        assert round(block_sparsity(layer.weight) * blocks) == round(0.7 * blocks)
        assert whole_blocks(zeros, (4, 1))


def test_other_blocks():
    model = net()
    pruner = BlockPruner(model, block=(8, 2), target=0.5, end=3)
    *_, last = train(model, pruner, 3)
    assert all(whole_blocks(zeros, (8, 2)) for zeros in last)
    assert [block_sparsity(layer.weight, (8, 2)) for layer in pruner.layers.values()] == [0.5, 0.5]


def test_masks_stay_after_the_schedule_and_may_change_before():
    model = net()
    pruner = BlockPruner(model, target=0.6, schedule="cubic", criterion="snip", end=20)
    zeros = train(model, pruner, 30, rate=1.0)
    for before, after in pairwise(zeros[19:]):
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    steps = [pair for before, after in pairwise(zeros[:20]) for pair in zip(before, after, strict=True)]
    assert any((before & ~after).any() for before, after in steps)


def test_events_come_every_few_steps_from_start_on_and_at_the_end():
    model = net()
    pruner = BlockPruner(model, target=0.5, schedule="linear", criterion="magnitude", start=4, end=15, frequency=4)
    zeros = train(model, pruner, 16)
    share = [float(each[0].double().mean()) for each in zeros]
    of = [round(40 * 0.5 * p / 11) / 40 for p in (4, 8)]
    assert share[:7] == [0.0] * 7
    assert share[7:14] == [of[0]] * 4 + [of[1]] * 3
    assert share[14:] == [0.5, 0.5]


def test_the_schedule_starts_at_nothing_and_ends_at_the_target():
    pruner = BlockPruner(net(), target=0.9, schedule="exp", criterion="magnitude", start=2, end=6)
    asked = []
    for _ in range(8):
        pruner.step()
        asked.append(pruner.sparsity)
    assert asked[:2] == [0.0, 0.0]
    assert asked[2] == pytest.approx(1 - 0.1**0.25)
    assert asked[5:] == [0.9, 0.9, 0.9]


def test_no_target_leaves_the_model_as_it_is():
    model = net()
    before = [p.clone() for p in model.parameters()]
    pruner = BlockPruner(model, target=0.0, criterion="magnitude", end=2)
    for _ in range(4):
        pruner.step()
    assert pruner.masks == {}
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("criterion", "kept"),
    [("magnitude", [False, False, True]), ("snip", [True, False, False]), ("snip_momentum", [False, True, False])],
)
def test_scores_by_hand(criterion, kept):
    """Blocks of 1 x 1: sizes 1, 2, 3; |w g| of the last step 4, 2, 3; S = 0.9 S + |w g| over two steps 4, 11, 3."""
    layer = nn.Linear(3, 1, bias=False)
    pruner = BlockPruner(layer, block=(1, 1), target=0.6, criterion=criterion, start=1, end=2, frequency=2)
    for gradient in ([0.0, 5.0, 0.0], [4.0, 1.0, 1.0]):
        layer.weight.data = torch.tensor([[1.0, -2.0, 3.0]])
        layer.weight.grad = torch.tensor([gradient])
        pruner.step()
    assert (layer.weight[0] != 0).tolist() == kept


def test_movement_by_hand():
    """Weights 1, -2, 3, 4; two of them go in each of two steps, and S = S - w g with the w that g was taken at.

    S is -1, 2, -3, 0 at first, so the first and the third weight go; they keep their values 1 and 3, whatever the
    optimiser makes of them meanwhile. Then S is -1, -4, 3, 0: the third comes back as it was, and the second goes.
    """
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.tensor([[1.0, -2.0, 3.0, 4.0]])
    pruner = BlockPruner(layer, block=(1, 1), target=0.5, schedule="cubic", criterion="movement", end=2)
    layer.weight.grad = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    pruner.step()
    assert layer.weight[0].tolist() == [0.0, -2.0, 0.0, 4.0]
    layer.weight.data += torch.tensor([[10.0, 1.0, 10.0, 0.5]])
    layer.weight.grad = torch.tensor([[0.0, -3.0, -2.0, 0.0]])
    pruner.step()
    assert layer.weight[0].tolist() == [0.0, 0.0, 3.0, 4.5]
    np.testing.assert_allclose(pruner._scores[""][0], [-1, -4, 3, 0], atol=1e-5)
    layer.weight.data += 10.0
    pruner.step()
    assert layer.weight[0].tolist() == [0.0, 0.0, 13.0, 14.5]


def test_movement_begins_with_the_smallest_weights():
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data, layer.weight.grad = torch.tensor([[3.0, -2.0, 4.0, 1.0]]), torch.zeros(1, 4)
    BlockPruner(layer, block=(1, 1), target=0.5, criterion="movement", end=1).step()
    assert layer.weight[0].tolist() == [3.0, 0.0, 4.0, 0.0]


def test_a_block_is_worth_its_mean():
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.tensor([[5.0, 3.0], [0.0, 3.0]])
    BlockPruner(layer, block=(2, 1), target=0.5, criterion="magnitude", end=1).step()
    assert layer.weight.tolist() == [[0.0, 3.0], [0.0, 3.0]]


def test_all_blocks_together_within_bounds():
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    model[0].weight.data.mul_(1e-3)
    how = {"target": 0.5, "criterion": "magnitude", "scope": "global", "end": 1}
    BlockPruner(model, most=1.0, **how).step()
    assert [block_sparsity(layer.weight) for layer in model] == [1.0, 0.0]
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    model[0].weight.data.mul_(1e-3)
    BlockPruner(model, most=0.75, **how).step()
    assert [block_sparsity(layer.weight) for layer in model] == [0.75, 0.25]


def test_only_named_layers_are_pruned():
    model = net()
    before = model[2].weight.clone()
    BlockPruner(model, target=0.5, criterion="magnitude", end=1, layers=["0"]).step()
    assert torch.equal(model[2].weight, before)
    assert block_sparsity(model[0].weight) == 0.5


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"block": (3, 1)}, r"'0' is 16 x 10, no multiple of the block 3 x 1"),
        ({"block": (4, 4)}, "no multiple"),
        ({"schedule": "square"}, "schedule"),
        ({"criterion": "hessian"}, "criterion"),
        ({"scope": "row"}, "scope"),
        ({"target": 1.0}, "target"),
        ({"end": 0}, "end"),
        ({"start": 5}, "end"),
        ({"frequency": 0}, "frequency"),
        ({"most": 1.5}, "most"),
    ],
)
def test_what_cannot_be_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        BlockPruner(net(), **({"end": 5} | wrong))


def test_scores_by_gradients_need_them():
    with pytest.raises(ValueError, match="'0' has no gradient; call it after loss"):
        BlockPruner(net(), end=5).step()


def test_group_lasso_shrinks_blocks_by_the_same_length():
    """Norms 5, 0.05 and 0: the first block loses 0.1 of its length, the second all of it, the third has none."""
    layer = nn.Linear(3, 2, bias=False)
    layer.weight.data = torch.tensor([[3.0, 0.03, 0.0], [4.0, 0.04, 0.0]])
    group_lasso_([layer], 0.1, block=(2, 1))
    wanted = torch.tensor([[3 * 0.98, 0.0, 0.0], [4 * 0.98, 0.0, 0.0]])
    torch.testing.assert_close(layer.weight.detach(), wanted)
    assert (layer.weight[:, 1] == 0).all()


def test_group_lasso_by_the_norm_of_gradients():
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    layer.weight.grad = torch.tensor([[0.0, 0.0], [0.5, 0.01]])
    group_lasso_([layer], 0.1, block=(2, 1), norm_of="grad")
    torch.testing.assert_close(layer.weight.detach(), torch.tensor([[0.8, 0.0], [1.6, 0.0]]))


def test_group_lasso_refuses():
    layer = nn.Linear(4, 6)
    for wrong, words in (
        ({"strength": -1.0}, "strength"),
        ({"strength": 0.1, "norm_of": "max"}, "norm_of"),
        ({"strength": 0.1}, r"6 x 4 has no whole 4 x 1 blocks"),
        ({"strength": 0.1, "block": (2, 1), "norm_of": "grad"}, "no gradient"),
    ):
        with pytest.raises(ValueError, match=words):
            group_lasso_([layer], **wrong)


def test_block_sparsity_counts_whole_blocks_only():
    weight = torch.zeros(8, 3)
    assert block_sparsity(weight) == 1.0
    weight[1, 0], weight[7, 2] = 1e-30, torch.nan  # the square of the first is 0 in float32
    assert block_sparsity(weight) == pytest.approx(4 / 6)
    assert block_sparsity(weight, (1, 1)) == pytest.approx(22 / 24)
    with pytest.raises(ValueError, match="block_sparsity: a weight of 8 x 3 has no whole 3 x 1 blocks"):
        block_sparsity(weight, (3, 1))
    assert block_sparsity(torch.from_numpy(np.eye(8, dtype=np.float32)), (2, 2)) == pytest.approx(0.75)
