"""SaRA against torch's AdamW, dense loops, the published table, and what must not move."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from workbench.models.fine_tuning.memory_report import memory_report
from workbench.models.fine_tuning.nuclear_norm import nuclear_norm
from workbench.models.fine_tuning.sara import SaRA, auto_lr, load_sara, vlhi
from workbench.models.fine_tuning.sara_linear import SaRALinear
from workbench.models.fine_tuning.selection import select_largest, select_smallest
from workbench.models.fine_tuning.training import cosine
from workbench.models.fine_tuning.weight_changes import apply_delta, merge_deltas


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 12), nn.Conv1d(5, 3, 2), nn.Flatten(), nn.LayerNorm(33), nn.Linear(33, 4))


def batch_of(step):
    draw = torch.Generator().manual_seed(step)
    return torch.randint(7, (6, 5), generator=draw), torch.randint(4, (6,), generator=draw)


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def walked(model, optimizer, steps, after=lambda: None, begin=0):
    for step in range(begin, begin + steps):
        optimizer.zero_grad()
        loss(model, batch_of(step)).backward()
        optimizer.step()
        after()


def same(a, b, tolerance=0.0):
    for (name, p), q in zip(a.named_parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance, msg=lambda told, n=name: f"{n}: {told}")
    return True


@pytest.mark.parametrize("storage", ["index", "mask"])
def test_entries_that_were_not_chosen_keep_their_bits(net, storage):
    before, masks = copy.deepcopy(net), select_smallest(net, fraction=0.3)
    x = batch_of(0)[0]
    sara = SaRA(net, fraction=0.3, lr=0.05, weight_decay=0.5, storage=storage)
    assert torch.equal(net(x), before(x))  # chosen entries begin with their sign
    walked(net, sara, 5)
    moved = 0
    for (name, p), q in zip(net.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(p[~masks[name]], q[~masks[name]]) and p.grad is None
        moved += int((p != q).sum())
    assert 0.8 * sara.n_trainable < moved <= sara.n_trainable == sum(int(m.sum()) for m in masks.values())


def test_with_all_entries_it_is_adamw(net):
    theirs = copy.deepcopy(net)
    sara = SaRA(net, threshold=math.inf, lr=0.01, weight_decay=0.1, betas=(0.8, 0.99))
    adamw = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.1, betas=(0.8, 0.99))
    for step in range(20):
        walked(net, sara, 1, begin=step)
        walked(theirs, adamw, 1, begin=step)
        assert same(net, theirs, 1e-6)


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("storage", ["index", "mask"])
def test_it_is_dense_adamw_with_masked_gradients_and_restored_entries(net, storage, clip):
    theirs, begin, masks = copy.deepcopy(net), copy.deepcopy(net), select_smallest(net, fraction=0.2)
    sara = SaRA(net, fraction=0.2, lr=0.02, weight_decay=0.1, storage=storage, clip=clip)
    walked(net, sara, 20)
    adamw = torch.optim.AdamW(theirs.parameters(), lr=0.02, weight_decay=0.1)
    for step in range(20):
        adamw.zero_grad()
        loss(theirs, batch_of(step)).backward()
        for name, p in theirs.named_parameters():
            p.grad *= masks[name]
        if clip:
            nn.utils.clip_grad_norm_(theirs.parameters(), clip)
        adamw.step()
        with torch.no_grad():
            for (name, p), q in zip(theirs.named_parameters(), begin.parameters(), strict=True):
                p.copy_(torch.where(masks[name], p, q))
    assert same(net, theirs, 1e-6)


def test_gradients_of_several_passes_add_up(net):
    other = copy.deepcopy(net)
    one, two = (SaRA(model, fraction=0.3, lr=0.1) for model in (net, other))
    for step in range(2):
        loss(net, batch_of(step)).backward()
    sum(loss(other, batch_of(step)) for step in range(2)).backward()
    for name, gradient in one.gradients.items():
        torch.testing.assert_close(gradient, two.gradients[name])
        assert gradient.shape == (int(one.masks(name).sum()),)
    one.zero_grad()
    assert not one.gradients


def test_tied_weights_are_chosen_once():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, bias=False))
    net[1].weight = net[0].weight
    sara = SaRA(net, threshold=math.inf, lr=0.1)
    assert sara.n_trainable == 20
    x, begin = torch.ones(1, 4), net[0].weight.detach().clone()
    net(x).sum().backward()
    W = begin.clone().requires_grad_()
    F.linear(F.linear(x, W, net[0].bias.detach()), W).sum().backward()
    torch.testing.assert_close(sara.gradients["0.weight"].view(4, 4), W.grad)
    sara.step()
    assert not torch.equal(net[1].weight, begin) and net[1].weight is net[0].weight


def test_the_switch_moves_nothing_keeps_a_subset_and_begins_anew(net):
    sara = SaRA(net, fraction=0.5, lr=0.02, weight_decay=0.0, progressive_iter=3)
    theta, first = sara.threshold, {n: sara.masks(n) for n in sara.parameters}
    walked(net, sara, 3)
    assert not sara.switched
    before, count = copy.deepcopy(net), sara.n_trainable
    idle = {n: first[n] & (p.detach().abs() < theta) for n, p in sara.parameters.items()}
    walked(net, sara, 1, begin=3)
    assert sara.switched and same(net, before)
    assert all(torch.equal(sara.masks(n), idle[n]) for n in idle)
    assert 0 < sara.n_trainable == sum(int(m.sum()) for m in idle.values()) < count
    assert sara.memory()["optimizer"] == 8 * sara.n_trainable
    assert not any(moment.any() for pair in sara._moments.values() for moment in pair)
    rest = {n: torch.zeros(p.shape, dtype=torch.bool) for n, p in net.named_parameters()}
    fresh = SaRA(copy.deepcopy(net), selection=rest | idle, lr=0.02, weight_decay=0.0)
    walked(net, sara, 4, begin=4)
    walked(fresh.model, fresh, 4, begin=4)
    assert same(net, fresh.model)
    values = sara.state_dict()["values"]  # those chosen at first, and not those of the second half
    assert {n: len(v) for n, v in values.items()} == {n: int(m.sum()) for n, m in first.items()}


def test_still_idle_is_a_share_of_the_first_choice(net):
    sara = SaRA(net, fraction=0.5, lr=0.1)
    assert sara.still_idle_fraction() == 1
    name, p = next(iter(sara.parameters.items()))
    with torch.no_grad():
        p[sara.masks(name)] = 9.0
    gone = int(sara.masks(name).sum())
    assert sara.still_idle_fraction() == pytest.approx(1 - gone / sara.n_trainable)
    kept = sara.n_trainable - gone
    assert sara.reselect() == kept == sara.n_trainable


def test_the_rank_penalty_acts_on_what_is_trained():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(70, 66, bias=False))
    x, theirs = torch.randn(4, 70), copy.deepcopy(net)
    mask = select_smallest(net, fraction=0.3)["0.weight"]
    with_it, without = SaRA(net, fraction=0.3, lr=1e-3, lambda_rank=0.01), copy.deepcopy(net)
    net(x).square().mean().backward()
    with_it.step()
    W = theirs[0].weight
    ((F.linear(x, W)).square().mean() + 0.01 * nuclear_norm(W, mask)).backward()
    torch.testing.assert_close(with_it.gradients["0.weight"], W.grad[mask])
    plain = SaRA(without, fraction=0.3, lr=1e-3)
    without(x).square().mean().backward()
    plain.step()
    assert not torch.equal(without[0].weight, net[0].weight)
    assert torch.equal(without[0].weight[~mask], net[0].weight[~mask])


def test_a_strong_penalty_lowers_the_rank():
    torch.manual_seed(0)
    begin, x, y = nn.Linear(66, 66), torch.randn(64, 66), torch.randn(64, 66)
    norms = []
    for weight in (0.0, 0.05):
        net = copy.deepcopy(begin)
        sara = SaRA(net, fraction=0.3, lr=3e-3, lambda_rank=weight)
        for _ in range(30):
            sara.zero_grad()
            F.mse_loss(net(x), y).backward()
            sara.step()
        norms.append(nuclear_norm(net.weight, sara.masks("weight")).item())
    assert norms[1] < 0.8 * norms[0]


def test_stored_values_come_back_onto_the_same_weights_only(net, tmp_path):
    base, path = copy.deepcopy(net), tmp_path / "sara.safetensors"
    sara = SaRA(net, fraction=0.3, lr=0.05, progressive_iter=2)
    walked(net, sara, 5)
    sara.save(path)
    assert path.stat().st_size < 4 * sum(len(v) for v in sara.state_dict()["values"].values()) + 1500
    assert same(load_sara(copy.deepcopy(base), path), net)
    fresh = SaRA(copy.deepcopy(base), threshold=sara.threshold, lr=1.0)
    fresh.load(sara.state_dict())
    assert same(fresh.model, net)
    other = copy.deepcopy(base)
    with torch.no_grad():
        other[4].weight.mul_(3)
    kept = copy.deepcopy(other)
    with pytest.raises(ValueError, match=r"values for 4.weight, which has \d+ entries below"):
        load_sara(other, path)
    assert same(other, kept)
    swapped = copy.deepcopy(base)
    with torch.no_grad():
        swapped[4].weight.copy_(base[4].weight.flip(0))  # as many below the threshold, at other places
    with pytest.raises(ValueError, match="other places"):
        load_sara(swapped, path)
    path.write_bytes(b"{}")
    with pytest.raises(ValueError, match="no safetensors file"):
        load_sara(base, path)


def test_changes_give_the_tuned_model_and_others_in_between(net):
    base = copy.deepcopy(net)
    sara = SaRA(net, fraction=0.3, lr=0.05)
    walked(net, sara, 3)
    delta = sara.delta()
    assert sum(d.nnz for d in delta.values()) == sara.n_trainable
    assert same(apply_delta(copy.deepcopy(base), delta, 0), base)
    assert same(apply_delta(copy.deepcopy(base), delta), net)
    assert same(apply_delta(copy.deepcopy(base), merge_deltas([delta, delta], [0.5, 0.5])), net)
    double = apply_delta(copy.deepcopy(base), delta, 2)
    torch.testing.assert_close(double[4].weight, 2 * net[4].weight - base[4].weight)
    sara.close()
    assert not any(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("storage", ["index", "mask"])
def test_bytes_are_those_of_the_formulas(net, storage):
    sara = SaRA(net, fraction=0.3, lr=0.1, storage=storage)
    walked(net, sara, 1)
    want = dict.fromkeys(("weights", "gradients", "optimizer", "indices"), 0)
    for name, p in net.named_parameters():
        k = len(sara.gradients.get(name, []))
        told = memory_report(len(p), p.numel() // len(p), k, storage="mask" if storage == "mask" else "int32")
        for part in want:
            want[part] += told[part] if name in sara.parameters or part != "indices" else 0
    assert sara.memory() == want


def test_the_loop_of_the_house_takes_it_with_a_schedule(net):
    sara = SaRA(net, fraction=0.3, lr=0.05)
    found = sara.train(loss, lambda step: batch_of(0), steps=30, schedule=cosine())
    assert found.losses[-5:].mean() < found.losses[:5].mean() and not net.training
    assert 0 < sara.param_groups[0]["lr"] < 0.001
    with pytest.raises(TypeError, match="clip cannot be given"):
        sara.train(loss, batch_of, steps=1, clip=1.0)


def test_rates_and_scores_of_the_paper():
    assert [round(auto_lr(theta) * 1e4, 3) for theta in (2e-3, 8e-4, 2e-4)] == [4.966, 7.558, 9.324]
    fid = [134.75, 130.95, 135.31, 131.56, 130.55, 133.57]
    clip = [27.01, 26.66, 27.12, 27.34, 25.42, 26.58]
    np.testing.assert_allclose(vlhi(fid, clip)[1:], [1.56, 0.89, 1.79, 1.00, 0.97], atol=0.01)
    assert vlhi(fid, clip)[0] == pytest.approx(0.946, abs=0.001)  # the paper prints 1.16
    for bad in (([1], [1]), ([1, 2], [1, 2, 3]), ([1, 1], [1, 2]), ([1, 2], [2, 2]), ([1, math.nan], [1, 2])):
        with pytest.raises(ValueError, match="vlhi"):
            vlhi(*bad)


@pytest.mark.parametrize(("knobs", "message"), [
    ({}, "neither"), ({"threshold": 0.1, "fraction": 0.1}, "both"), ({"threshold": -0.1}, "threshold"),
    ({"threshold": 0}, "nothing to train"), ({"fraction": 0.01}, "no entry is below 0"),
    ({"fraction": 0.1, "lambda_rank": -1}, "lambda_rank"),
    ({"fraction": 0.1, "storage": "list"}, "storage"), ({"fraction": 0.1, "progressive_iter": 0}, "progressive_iter"),
    ({"fraction": 0.1, "lr": -1}, "lr"), ({"fraction": 0.1, "weight_decay": -1}, "weight_decay"),
    ({"threshold": math.inf}, "theta"), ({"selection": {}}, "lr must be a number"),
    ({"selection": {}, "lr": 1.0}, "every parameter"), ({"selection": {}, "fraction": 0.1}, "not both"),
])  # fmt: skip
def test_bad_knobs_are_refused(net, knobs, message):
    knobs = dict(knobs)
    if "lr must" in message:
        knobs["selection"] = select_largest(net, 0.1)
    with pytest.raises(ValueError, match=message):
        SaRA(net, **knobs)


def test_bad_models_are_refused(net):
    with pytest.raises(TypeError, match="must be contiguous float32 or float64"):
        SaRA(copy.deepcopy(net).half(), fraction=0.3)
    net.register_parameter("whole", nn.Parameter(torch.arange(2), requires_grad=False))
    with pytest.raises(ValueError, match="floating-point parameters only"):
        SaRA(net, fraction=0.1)
    chosen = SaRA(nn.Linear(3, 3), selection=select_largest(nn.Linear(3, 3), 0.3), lr=0.1)
    for call in (chosen.reselect, chosen.still_idle_fraction, lambda: chosen.save("x")):
        with pytest.raises(ValueError, match="has no threshold"):
            call()


def test_the_layer_for_other_optimisers_takes_the_same_steps():
    torch.manual_seed(0)
    base, x = nn.Linear(6, 4), torch.randn(5, 6)
    layer, other = SaRALinear(base, 0.1), copy.deepcopy(base)
    assert torch.equal(layer(x), base(x)) and not layer.delta().any()
    sara = SaRA(other, threshold=0.1, lr=0.01)
    trained = [p for p in layer.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == sara.n_trainable
    adamw = torch.optim.AdamW(trained, lr=0.01)
    for _ in range(5):
        for model, optimizer in ((layer, adamw), (other, sara)):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    assert layer.weight.grad is None
    merged = layer.merge()
    torch.testing.assert_close(merged.weight, other.weight, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(merged.bias, other.bias, rtol=1e-6, atol=1e-6)
    assert torch.equal(merged(x), layer(x))
    assert torch.equal((layer.delta() != 0) & ~sara.masks("weight"), torch.zeros(4, 6, dtype=torch.bool))
