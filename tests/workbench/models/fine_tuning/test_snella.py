"""SNELLA against matrices worked out by hand, smoothed importances, and what a layer without entries does."""

import pytest
import torch
from torch import nn

from workbench.models.fine_tuning.adapt import adapt
from workbench.models.fine_tuning.kernel_merge import piecewise_linear_kernel
from workbench.models.fine_tuning.snella import BiLevelAllocator, ImportanceTracker, SNELLALinear, mix_kernel

POINTS = (torch.tensor([[[0.0, 0], [0, 0]], [[0, 0], [5, 12]]]), torch.tensor([[[0.0, 0], [3, 4]], [[0, 0], [0, 0]]]))


def test_the_mixed_kernel_by_hand():
    found = mix_kernel(*POINTS, (0.1, -0.1), 1.0, 1.0, 0.0).T  # inputs by outputs
    torch.testing.assert_close(found, torch.tensor([[0.78583, -1.08583], [1.28583, -0.58583]]), atol=1e-5, rtol=0)
    torch.testing.assert_close(mix_kernel(*POINTS, (0.1, -0.1), 0, 1, 0), piecewise_linear_kernel(*POINTS, (0.1, -0.1)))
    soft = mix_kernel(*POINTS, (0.1, -0.1), 1, 0.5, 0) - piecewise_linear_kernel(*POINTS, (0.1, -0.1))
    torch.testing.assert_close(soft.sum(0), torch.ones(2))
    with pytest.raises(ValueError, match="gamma must not be nearer to 0"):
        mix_kernel(*POINTS, (0.1, -0.1), 1.0, 1e-7, 0.0)


def layers(count=2, m=6, n=8, **how):
    torch.manual_seed(0)
    return {f"l{i}": SNELLALinear(nn.Linear(n, m), **({"r": 4} | how)) for i in range(count)}


def test_importance_is_smoothed_as_published():
    made, tracker = layers(1)["l0"], ImportanceTracker()
    made.A.grad, made.B.grad = torch.full_like(made.A, 2.0), torch.full_like(made.B, -3.0)
    for _ in range(3):
        tracker.update([made])
    now = 2 * made.A.detach().abs()
    mean, spread = tracker._smooth[0]
    torch.testing.assert_close(mean, 0.385875 * now)
    torch.testing.assert_close(spread, 0.27635625 * now)
    want = 0.385875 * 0.27635625 * (now.square().mean() + (3 * made.B.detach()).square().mean())
    assert tracker.scores()[0] == pytest.approx(float(want), rel=1e-5)
    assert tracker.state_bytes() == 2 * 4 * 4 * (6 + 8)  # two tensors of r (m + n) floats


def test_the_budget_is_kept_exactly_and_follows_the_scores():
    made = layers(3)
    allocator = BiLevelAllocator(made, 0.75, total=10)
    for layer, strength in zip(made.values(), (4.0, 1.0, 1.0), strict=True):
        for points in (layer.A, layer.B):
            points.grad = torch.full_like(points, strength)
    allocator.after_step()
    shares = allocator.step(10)
    kept = [48 * (1 - s) for s in shares.values()]
    assert sum(kept) == pytest.approx(36) and kept[0] > kept[1] and allocator.history[-1]["budget"] == 36
    assert all(layer.s == shares[name] for name, layer in made.items())
    total = sum(int((layer.delta() != 0).sum()) for layer in made.values())
    assert total == 36


def test_the_budget_is_due_as_the_schedule_says():
    allocator = BiLevelAllocator(layers(), 0.8, t_i=2, t_f=3, interval=2, total=10)
    assert [t for t in range(11) if allocator.due(t)] == [4, 6, 8, 9, 10]
    plain = BiLevelAllocator(layers(), 0.8, total=10)
    assert [t for t in range(11) if plain.due(t)] == list(range(1, 11))


def test_a_layer_without_entries_is_its_base_and_never_comes_back():
    made = layers(1)["l0"]
    made.s = 1.0
    x = torch.randn(3, 8)
    made(x).sum().backward()
    assert torch.equal(made(x), made.base(x)) and not made.A.grad.any() and not made.B.grad.any()
    kept = BiLevelAllocator(layers(), 0.5, total=4, min_density=0.25)
    kept.tracker.scores = lambda: torch.tensor([1.0, 0.0]).numpy()
    assert kept.step(4) == {"l0": pytest.approx(0.25), "l1": pytest.approx(0.75)}


def test_uniform_shares_and_milder_scores():
    made = {"small": SNELLALinear(nn.Linear(4, 4), r=4), "large": SNELLALinear(nn.Linear(8, 16), r=4)}
    assert BiLevelAllocator(made, 0.75, total=1, uniform=True).step(1) == {"small": 0.75, "large": 0.75}
    sharp, mild = (BiLevelAllocator(layers(), 0.9, total=1, score_power=power) for power in (1.0, 0.25))
    for each in (sharp, mild):
        each.tracker.scores = lambda: torch.tensor([16.0, 1.0]).numpy()
        each.step(1)
    assert sharp.history[0]["entries"] == [8, 1] and mild.history[0]["entries"] == [6, 3]


def test_one_call_trains_and_shrinks_the_budget():
    net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    tuning = adapt(net, "snella", r=4, s_target=0.75, passes=4)
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 8, generator=draw), torch.randn(64, 8, generator=draw)

    def loss(model, step):
        return (model(x) - y).square().mean()

    tuning.train(loss, lambda step: step, steps=12, rate=0.01)
    budgets = [each["budget"] for each in tuning.applied.state["allocator"].history]
    assert budgets == [72, 44, 33, 32]
    assert sum(change.nnz for change in tuning.export().values()) == 32


@pytest.mark.parametrize("wrong", [
    {"s_target": 1.0}, {"s_init": -0.1}, {"t_i": 5, "t_f": 5, "total": 10}, {"beta1": 1.0}, {"metric": "size"},
    {"min_density": 0.3}, {"interval": 0},
])  # fmt: skip
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError, match=r"BiLevelAllocator: |ImportanceTracker: "):
        BiLevelAllocator(**({"layers": layers(), "s_target": 0.8} | wrong))
