"""Cropped nets: their shapes and counts, what they inherit, one call for a model of the reader's own."""

import pytest
import torch
from torch import nn

from workbench.models.compression.channel_graph import channel_groups
from workbench.models.compression.crop import build_cropped, count_flops, count_params, crop_before_training
from workbench.models.compression.crop_networks import MobileSpec, ResNetSpec

pytestmark = pytest.mark.usefixtures("one_thread")

X = torch.randn(3, 3, 8, 8)


def own(bias=True):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=bias), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 12, 1), nn.Flatten(), nn.BatchNorm1d(192),
        nn.Linear(192, 5),
    )  # fmt: skip


def test_a_spec_at_new_widths_is_the_net_of_those_widths():
    spec = ResNetSpec(streams=(6, 8), inner=(4, 5), strides=(1, 2))
    widths = {"stem": 3, "blocks.0.conv1": 2, "blocks.1.conv1": 4, "blocks.1.conv2": 5}
    cropped = build_cropped(spec, widths, seed=3)
    same = ResNetSpec(streams=(3, 5), inner=(2, 4), strides=(1, 2)).build(3)
    got, want = cropped.state_dict(), same.state_dict()
    assert {k: v.shape for k, v in got.items()} == {k: v.shape for k, v in want.items()}
    assert all(torch.equal(got[name], x) for name, x in want.items())  # initialised alike, too
    assert cropped.training


def test_weights_are_counted_as_the_graph_says():
    spec = MobileSpec()
    graph = channel_groups(spec)
    widths = {name: max(1, width // 3) for name, width in graph.widths.items() if name in graph.free}
    cropped = build_cropped(spec, widths)
    assert count_params(cropped, every=False) == graph.count(graph.widths | widths)
    assert count_flops(cropped, spec.image) == graph.count(graph.widths | widths, "flops")
    assert count_params(cropped) == sum(p.numel() for p in cropped.parameters())
    assert count_flops(nn.Sequential(nn.Conv2d(5, 7, 3, padding=1)), (5, 4, 6)) == 9 * 5 * 7 * 4 * 6


def test_the_first_channels_are_inherited_through_every_kind_of_layer():
    model = own()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p))
    model.train()(X)  # statistics that differ by channel
    model.eval()
    cropped = build_cropped(model, {"0": 3, "5": 4}, example=X, inherit="first").eval()
    with torch.no_grad():
        full = build_cropped(model, {}, example=X, inherit="first").eval()
        torch.testing.assert_close(full(X), model(X))
        silent = own().eval()  # channels beyond the first are cut by zeros instead
        silent.load_state_dict(model.state_dict())
        silent[5].weight[:, 3:] = 0
        silent[8].weight.view(5, 12, 16)[:, 4:] = 0
        torch.testing.assert_close(cropped(X), silent(X), rtol=1e-4, atol=1e-4)
    assert cropped[4].groups == 3 and cropped[8].in_features == 64 and cropped[7].num_features == 64


def test_new_weights_are_kaiming_by_fan_out_and_follow_the_seed():
    model = own()
    a, b, c = (build_cropped(model, {"5": 400}, example=X, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(a[5].weight, b[5].weight) and not torch.equal(a[5].weight, c[5].weight)
    assert float(a[5].weight.detach().std()) == pytest.approx((2 / 400) ** 0.5, rel=0.1)
    state = torch.random.get_rng_state()
    build_cropped(model, {"5": 3}, example=X)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("kind", "whole"), [("params", 8 * 27 + 8 * 9 + 96 + 960), ("flops", 216 * 64 + 72 * 16 + 96 * 16 + 960)]
)
def test_one_call_crops_a_model_of_ones_own(kind, whole):
    found = crop_before_training(own(), 0.4, example=X, budget_kind=kind, rounds=10)
    counted = count_params(found.model, every=False) if kind == "params" else count_flops(found.model, (3, 8, 8))
    assert 0.8 * 0.4 * whole <= counted <= 0.4 * whole
    assert found.model(X).shape == (3, 5) and set(found.densities) == {"0", "4", "5", "8"}
    assert set(found.widths) == {"0", "5"}


def test_one_call_takes_other_pruners_and_double_precision():
    loader = [(X.double(), torch.tensor([0, 1, 2]))]
    model = own().double()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    found = crop_before_training(model, 0.5, example=X, method="snip", loader=loader, inherit="first")
    assert found.model[0].weight.dtype == torch.float64 and found.model[1].weight.dtype == torch.float64
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_bad_widths_are_refused_by_name():
    model = own()
    with pytest.raises(KeyError, match="no group 4 that may be cropped; there are 0, 5"):
        build_cropped(model, {"4": 3}, example=X)
    with pytest.raises(ValueError, match="width of 0"):
        build_cropped(model, {"0": 0}, example=X)
    with pytest.raises(ValueError, match="width of 0"):
        build_cropped(model, {"0": 9}, example=X, inherit="first")
    with pytest.raises(ValueError, match="inherit"):
        build_cropped(model, {"0": 2}, example=X, inherit="last")
    with pytest.raises(ValueError, match="streams"):
        ResNetSpec(streams=(0, 1), inner=(1, 1), strides=(1, 1))
    with pytest.raises(ValueError, match="one stride for each of 2 streams"):
        MobileSpec(streams=(1, 2), inner=(1, 2, 3), strides=(1, 1))
