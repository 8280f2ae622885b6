"""Densities to channels: the closed form against random points and KKT, solvers on nets worked by hand, budgets."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from workbench.models.compression.channel_graph import channel_groups
from workbench.models.compression.crop import build_cropped
from workbench.models.compression.crop_networks import MobileSpec, ResNetSpec
from workbench.models.compression.precropping import (
    preconfig,
    precrop,
    synexp_density,
    synexp_widths,
    uniform_widths,
    water_level,
)

pytestmark = pytest.mark.usefixtures("one_thread")

WIDE = 1000  # channels, so that rounding hardly matters


def chain(layers, width=WIDE):
    parts = [nn.Conv2d(width, width, 1, bias=False) for _ in range(layers)]
    return channel_groups(nn.Sequential(*parts), torch.zeros(1, width, 1, 1))


def same(graph, density):
    return {layer.name: density for layer in graph.layers}


def factors(graph, widths):
    return {name: width / graph.widths[name] for name, width in widths.items()}


def test_water_filling_of_the_worked_example():
    np.testing.assert_allclose(synexp_density([100, 1000, 10_000], 1200), [1, 0.55, 0.055])
    assert water_level(np.array([10_000.0, 100, 1000]), 1200) == pytest.approx(550)


def test_water_filling_is_the_best_of_many_points(rng):
    alphas = rng.integers(10, 10_000, 7).astype(float)
    budget = 0.2 * alphas.sum()
    p = synexp_density(alphas, budget)
    assert float(alphas @ p) == pytest.approx(budget, rel=1e-12)
    kept = (alphas * p)[p < 1]
    np.testing.assert_allclose(kept, kept[0])
    assert np.all((alphas * p)[p == 1] <= kept[0] + 1e-9)
    for _ in range(1000):
        other = rng.uniform(0.001, 1, 7)
        other = np.minimum(other * min(1.0, budget / (alphas @ other)), 1)
        assert alphas @ other <= budget * (1 + 1e-12) and np.log(other).sum() <= np.log(p).sum() + 1e-12


@pytest.mark.parametrize("budget", (30, 31, 1e9))
def test_a_budget_of_everything_keeps_everything(budget):
    assert synexp_density([10, 20], budget).tolist() == [1, 1]


@pytest.mark.parametrize("bad", [([], 1), ([1, 0], 1), ([1, -2], 1), ([1, np.inf], 1), ([1.0], 0), ([1.0], -3)])
def test_sizes_and_budgets_must_be_positive(bad):
    with pytest.raises(ValueError, match="synexp_density"):
        synexp_density(*bad)


def test_between_two_layers_the_factor_is_the_density():
    graph = chain(2)
    assert precrop(graph, same(graph, 0.37)) == {"0": 370}


def test_within_a_long_chain_the_factor_is_the_root_of_the_density():
    graph = chain(15)
    found = list(factors(graph, precrop(graph, same(graph, 0.25))).values())
    assert found[6:8] == pytest.approx([0.5, 0.5], rel=0.1)
    alternating = chain(14)
    found = list(factors(alternating, precrop(alternating, same(alternating, 0.25), evenness=1e-6)).values())
    assert found == pytest.approx([0.25, 1.0] * 6 + [0.25], abs=0.01)  # fits every density exactly


def test_the_least_squares_of_a_chain_worked_by_hand():
    """Unknown u, v; layers want u = a, u + v = b, v = c; evenness adds (u - a)^2, (u - b/2)^2, and so for v."""
    p, e = {"0": 0.5, "1": 0.2, "2": 0.3}, 0.1
    a, b, c = np.log(list(p.values()))
    left = np.array([[2 + 2 * e, 1], [1, 2 + 2 * e]])
    u, v = np.linalg.solve(left, [a + b + e * (a + b / 2), b + c + e * (c + b / 2)])
    graph = chain(3)
    want = {"0": round(WIDE * np.exp(u)), "1": round(WIDE * np.exp(v))}
    budget = graph.count(graph.widths | want)
    found = precrop(graph, p, budget)
    assert all(abs(found[name] - want[name]) <= 1 for name in want)


@pytest.mark.parametrize("spec", (ResNetSpec(), MobileSpec()))
@pytest.mark.parametrize("kind", ("params", "flops"))
def test_density_one_is_the_original_and_budgets_are_met_and_rise(spec, kind):
    graph = channel_groups(spec)
    everything = {name: graph.widths[name] for name in graph.free}
    assert precrop(graph, same(graph, 1.0), budget_kind=kind) == everything
    assert synexp_widths(graph, graph.count(graph.widths, kind), budget_kind=kind) == everything
    before = 0
    for density in (0.1, 0.2, 0.4, 0.8):
        budget = density * graph.count(graph.widths, kind)
        widths = precrop(graph, same(graph, density), budget, budget_kind=kind)
        used = graph.count(graph.widths | widths, kind)
        assert 0.9 * budget <= used <= budget and used > before and min(widths.values()) >= 1
        for other in (synexp_widths, uniform_widths):
            used_there = graph.count(graph.widths | other(graph, budget, budget_kind=kind), kind)
            assert 0.7 * budget <= used_there <= budget
        before = used


def test_fifty_random_densities_fit_together(rng):
    spec = ResNetSpec(streams=(4, 6), inner=(4, 6), strides=(1, 2))
    graph = channel_groups(spec)
    x = torch.randn(2, 1, 8, 8)
    for _ in range(50):
        densities = {layer.name: float(rng.uniform(0.2, 1)) for layer in graph.layers}
        assert build_cropped(spec, precrop(graph, densities), graph=graph)(x).shape == (2, 10)


def test_inner_crops_blocks_and_leaves_streams():
    graph = channel_groups(ResNetSpec())
    densities = same(graph, 1.0) | {"blocks.0.conv1": 0.25, "blocks.0.conv2": 0.75, "blocks.4.conv1": 0.125}
    widths = precrop(graph, densities, mode="inner")
    streams = {group.name for group in graph.groups if group.added}
    assert not streams & set(widths)
    assert widths["blocks.0.conv1"] in (8, 9)  # a half of the block's weights, and what rounding left elsewhere
    third = (0.125 * 18_432 + 36_864) / (18_432 + 36_864)
    assert widths["blocks.4.conv1"] - round(64 * third) in (0, 1) and widths["blocks.1.conv1"] == 16


def test_inner_takes_both_sides_of_a_bottleneck_together():
    class Bottleneck(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(1, WIDE, 1)
            self.a, self.b, self.c = nn.Conv2d(WIDE, 100, 1), nn.Conv2d(100, 100, 1), nn.Conv2d(100, WIDE, 1)

        def forward(self, x):
            x = self.stem(x)
            return (x + self.c(self.b(self.a(x)))).mean((2, 3))

    model = Bottleneck()
    head = nn.Sequential(model, nn.Linear(WIDE, 2))
    graph = channel_groups(head, torch.zeros(1, 1, 2, 2))
    widths = precrop(graph, same(graph, 1.0) | {"0.a": 0.3, "0.b": 0.3, "0.c": 0.3}, mode="inner")
    r = widths["0.a"] / 100  # 2 x 100,000 r + 10,000 r^2 = .3 x 210,000
    assert widths["0.a"] == widths["0.b"] and abs(200_000 * r + 10_000 * r * r - 63_000) < 2200


def test_preconfig_may_widen_and_with_cap_one_is_precrop():
    graph = channel_groups(ResNetSpec())
    densities = {layer.name: 1.0 if layer.name.startswith(("stem", "blocks.0")) else 0.1 for layer in graph.layers}
    budget = 0.5 * graph.count(graph.widths)
    assert preconfig(graph, densities, budget, cap=1) == precrop(graph, densities, budget)
    wider = preconfig(graph, densities, budget)
    assert any(width > graph.widths[name] for name, width in wider.items())
    assert 0.95 * budget <= graph.count(graph.widths | wider) <= budget
    capped = preconfig(graph, densities, budget, cap=1.25)
    assert max(factors(graph, capped).values()) == pytest.approx(1.25)


def test_equal_shares_are_equal():
    graph = chain(6)
    found = sorted(uniform_widths(graph, 0.25 * graph.count(graph.widths)).values())
    assert found[0] == 411 and found[-1] <= 412  # 4 f^2 + 2 f = 1.5, and what is left pays for some more


def test_what_is_left_pays_for_groups_that_were_rounded_down():
    graph = chain(3, 10)
    budget = graph.count(graph.widths | {"0": 4, "1": 3})
    assert uniform_widths(graph, budget) == {"0": 4, "1": 3}  # 3.4 channels each fill it: 3 and 3 are too few
    assert uniform_widths(graph, budget - 1) == {"0": 3, "1": 3}


def test_the_geometric_programme_beats_random_factors(rng):
    graph = chain(5, 200)
    budget = 0.2 * graph.count(graph.widths)
    ends = [[end for end in layer.ends() if end in graph.free] for layer in graph.layers]

    def flow(widths):
        return sum(np.log(widths[end] / 200) for pair in ends for end in pair)

    best = flow(synexp_widths(graph, budget))
    for _ in range(300):
        drawn = {name: int(rng.integers(20, 200)) for name in graph.free}
        if graph.count(graph.widths | drawn) <= budget:
            assert flow(drawn) <= best + 0.05  # what rounding to channels may take


def test_a_layer_that_keeps_nothing_is_told_and_keeps_a_channel():
    graph = chain(4, 50)
    with pytest.warns(UserWarning, match="1, 2 would keep no weight"):
        widths = precrop(graph, same(graph, 0.2) | {"1": 0.0, "2": 0.0})
    assert widths["1"] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        precrop(graph, same(graph, 0.2) | {"1": 1e-9})  # little, but not nothing


def test_bad_inputs_are_refused_by_name():
    graph = chain(3, 20)
    with pytest.raises(KeyError, match="densities lacks 1"):
        precrop(graph, {"0": 0.5, "2": 0.5})
    with pytest.raises(KeyError, match="no layer 9"):
        precrop(graph, same(graph, 0.5) | {"9": 0.5})
    with pytest.raises(ValueError, match="density of 0"):
        precrop(graph, same(graph, 0.5) | {"0": 1.5})
    with pytest.raises(
        ValueError, match=r"infeasible; one channel in each of the 2 groups that may be cropped takes 41"
    ):
        precrop(graph, same(graph, 0.5), 40)
    assert precrop(graph, same(graph, 0.5), 41) == {"0": 1, "1": 1}
    for solver in (synexp_widths, uniform_widths):
        with pytest.raises(ValueError, match="infeasible"):
            solver(graph, 40)
    with pytest.raises(ValueError, match="mode"):
        precrop(graph, same(graph, 0.5), mode="outer")
    with pytest.raises(ValueError, match="budget_kind"):
        precrop(graph, same(graph, 0.5), budget_kind="bytes")
    with pytest.raises(ValueError, match="cap"):
        preconfig(graph, same(graph, 0.5), cap=0.5)
    alone = channel_groups(nn.Sequential(nn.Conv2d(3, 4, 1)), torch.zeros(1, 3, 2, 2))
    with pytest.raises(ValueError, match="no group of channels"):
        precrop(alone, {"0": 0.5})
