"""A short training with masks fixed: what is gone stays gone, what is left learns, and nothing else changes."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from workbench.models.sparse_inference.recovery import _rate, recover, refit
from workbench.models.sparse_inference.statistics import gather_statistics, relative_output_error

pytestmark = pytest.mark.usefixtures("one_thread")


class Net(nn.Module):
    """Two layers and a norm, with dropout if asked for."""

    def __init__(self, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(16, 32), nn.Linear(32, 8)])
        self.norm, self.dropout, self.table = nn.LayerNorm(8), nn.Dropout(dropout), nn.Embedding(3, 8)

    def forward(self, x):
        return self.norm(self.layers[1](self.dropout(torch.tanh(self.layers[0](x)))))


def pruned(model, pattern):
    """Return a copy without half of the weights, and the masks."""
    made, masks = copy.deepcopy(model), []
    for layer in made.layers:
        kept = torch.zeros_like(layer.weight)
        if pattern == "n:m":
            kept[::2, ::2] = kept[1::2, 1::2] = 1
        elif pattern == "blocks":
            blocks = kept.unflatten(0, (-1, 4))
            blocks[::2, :, ::2] = blocks[1::2, :, 1::2] = 1
        else:
            kept = (layer.weight.abs() > layer.weight.abs().median()).float()
        layer.weight.data.mul_(kept)
        masks.append(kept != 0)
    return made, masks


DRAWN = torch.Generator().manual_seed(1)
BATCHES = [torch.randn(32, 16, generator=DRAWN) for _ in range(3)]


@pytest.mark.parametrize("pattern", ["single weights", "n:m", "blocks"])
def test_what_is_gone_stays_gone_and_the_rest_learns(pattern):
    dense = Net()
    model, masks = pruned(dense, pattern)
    before = [copy.deepcopy(each.state_dict()) for each in (dense, model)]
    found = recover(model, dense, BATCHES, steps=100, rate=1e-2)
    for layer, first, mask in zip(found.layers, model.layers, masks, strict=True):
        assert torch.equal(layer.weight != 0, mask)
        assert (layer.weight != first.weight)[mask].float().mean() > 0.99
    apart = [float(F.mse_loss(each(BATCHES[0]), dense(BATCHES[0])).detach()) for each in (model, found)]
    assert apart[1] < 0.7 * apart[0]
    for each, state in zip((dense, model), before, strict=True):
        assert all(torch.equal(x, state[name]) for name, x in each.state_dict().items())
    assert torch.equal(found.table.weight, dense.table.weight) and not torch.equal(found.norm.weight, dense.norm.weight)
    assert not found.training and not any(x.requires_grad for x in found.parameters())


@pytest.mark.parametrize("pattern", ["single weights", "n:m", "blocks"])
def test_refitted_weights_are_the_least_squares_of_the_layers_outputs(pattern):
    """Row by row: least squares on the kept inputs, the penalty as rows of its own."""
    dense = Net()
    model, masks = pruned(dense, pattern)
    statistics = gather_statistics(dense, BATCHES)
    found = refit(model, dense, statistics)
    x = torch.cat(BATCHES).double().numpy()
    weight, fitted = (each.layers[0].weight.detach().double().numpy() for each in (dense, found))
    size = (0.01 * np.square(x).sum() / 16) ** 0.5
    x = np.concatenate([x, size * np.eye(16)])
    for i, kept in enumerate(masks[0].numpy()):
        want = np.linalg.lstsq(x[:, kept], x @ weight[i], rcond=None)[0]
        np.testing.assert_allclose(fitted[i, kept], want, rtol=1e-5, atol=1e-7)
        assert not fitted[i, ~kept].any()
    last = [each.layers[1].weight.detach().numpy() for each in (dense, model, found)]
    errors = [relative_output_error(last[0], each, statistics["layers.1"].gram) for each in last[1:]]
    assert errors[1] < errors[0]
    assert torch.equal(model.layers[0].weight != 0, masks[0]) and torch.equal(found.norm.weight, dense.norm.weight)


def test_a_refit_of_what_is_whole_or_empty_changes_nothing():
    dense = Net()
    statistics = gather_statistics(dense, BATCHES)
    np.testing.assert_allclose(refit(dense, dense, statistics).layers[0].weight.detach(),
                               dense.layers[0].weight.detach(), rtol=1e-4, atol=1e-6)  # fmt: skip
    empty = copy.deepcopy(dense)
    empty.layers[0].weight.data.zero_()
    assert not refit(empty, dense, {"layers.0": statistics["layers.0"]}).layers[0].weight.any()
    assert torch.isfinite(refit(empty, dense, gather_statistics(dense, [torch.zeros(1, 16)])).layers[1].weight).all()
    with pytest.raises(ValueError, match=r"refit: the statistics of layer 'layers.1' are of 16 inputs, .* has 32"):
        refit(dense, dense, {"layers.1": statistics["layers.0"]})


def test_batches_come_in_turn_and_progress_is_told():
    dense = Net()
    model, _ = pruned(dense, "blocks")
    told, given = [], []

    def loss(pupil, teacher, batch):
        given.append((teacher is dense, next(i for i, x in enumerate(BATCHES) if x is batch)))
        return F.mse_loss(pupil(batch), teacher(batch).detach())

    recover(model, dense, BATCHES, steps=4, loss=loss, report=lambda *say: told.append(say))
    assert given == [(True, 0), (True, 1), (True, 2), (True, 0)]
    assert told == [(i / 4, f"training step {i + 1} of 4") for i in range(4)]


def test_a_report_that_raises_stops_it_and_leaves_everything_as_it_was():
    dense = Net(dropout=0.5)
    model, _ = pruned(dense, "blocks")
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()

    def stop(fraction, step):
        if fraction > 0.3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        recover(model, dense, BATCHES, steps=9, report=stop)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_equal_seeds_give_equal_copies():
    dense = Net(dropout=0.5).eval()
    model, _ = pruned(dense, "blocks")
    weights = []
    for seed, before in ((3, 0), (3, 1), (4, 0)):
        torch.manual_seed(before)
        weights.append(recover(model, dense, BATCHES, steps=3, rate=1e-2, seed=seed).layers[0].weight)
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_only_named_layers_and_norms_learn():
    dense = Net()
    model, _ = pruned(dense, "blocks")
    found = recover(model, dense, BATCHES, steps=2, rate=1e-2, layers=["layers.1"])
    assert torch.equal(found.layers[0].weight, model.layers[0].weight)
    assert not torch.equal(found.layers[1].weight, model.layers[1].weight)


def test_the_learning_rate_is_that_of_the_schedule():
    """The first steps of Adam move every weight by the rate, whatever the gradient: 1/2 of it, and all of it."""
    dense = Net()
    model, masks = pruned(dense, "blocks")
    seen = []
    recover(model, dense, BATCHES, steps=40, rate=1e-3, layers=["layers.1"],
            loss=lambda pupil, _, x: seen.append(pupil.layers[1].weight.detach().clone())
            or F.mse_loss(pupil(x), dense(x)))  # fmt: skip
    first = (seen[1] - seen[0])[masks[1]].abs().median()
    assert float(first) == pytest.approx(0.5e-3, rel=0.01)


def test_the_learning_rate_rises_over_a_twentieth_and_falls_to_a_tenth():
    rates = [_rate(step, 100) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5] == pytest.approx(1.0) and rates[-1] == pytest.approx(0.1, abs=1e-3)
    assert all(a >= b for a, b in pairwise(rates[5:]))
    assert _rate(52, 99) == pytest.approx(0.1 + 0.45 * (1 + np.cos(np.pi * 47 / 94)))  # half of the way down: .55
    assert _rate(0, 1) == 1.0


@pytest.mark.parametrize(
    ("given", "told"),
    [({"steps": 0}, "recover: steps"), ({"rate": 0.0}, "recover: rate"), ({"batches": []}, "batches is empty")],
)
def test_what_makes_no_sense_is_refused(given, told):
    dense = Net()
    how = {"batches": BATCHES, "steps": 1} | given
    with pytest.raises(ValueError, match=told):
        recover(pruned(dense, "blocks")[0], dense, **how)


def test_a_model_that_was_not_pruned_is_refused():
    with pytest.raises(ValueError, match="no weight of model is 0; prune it first"):
        recover(Net(), Net(), BATCHES, steps=1)
    with pytest.raises(KeyError, match="is no linear layer"):
        recover(Net(), Net(), BATCHES, steps=1, layers=["nothing"])
