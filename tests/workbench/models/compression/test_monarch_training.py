"""The steps of sparse, then dense training, and what a short training brings back."""

import pytest
import torch
from torch import nn

from workbench.models.compression.monarch import MonarchLinear, d2s_project
from workbench.models.compression.monarch_training import recover_monarch, train_schedule

pytestmark = pytest.mark.usefixtures("one_thread")


def test_one_cosine_goes_on_through_the_switch():
    plan = train_schedule(100)
    assert plan.switch == 90
    assert [round(plan.rate(step), 4) for step in (0, 50, 90, 99)] == [1.0, 0.5, 0.0245, 0.0002]


def test_kept_rate_is_a_half_at_the_switch():
    plan = train_schedule(100, 0.2, rates="keep")
    assert plan.switch == 80
    assert [round(plan.rate(step), 4) for step in (0, 40, 80, 90)] == [1.0, 0.75, 0.5, 0.25]
    assert plan.rate(79) > plan.rate(80) > plan.rate(99) > 0


def test_warmed_rate_falls_to_nothing_and_rises_again():
    plan = train_schedule(1000, 0.1, rates="rewarm")
    assert plan.rate(899) < 1e-4
    assert [round(plan.rate(step), 4) for step in (900, 904, 909, 955)] == [0.05, 0.25, 0.5, 0.25]
    assert plan.rate(999) < 0.001


@pytest.mark.parametrize("rates", ["keep", "rewarm", "continue"])
@pytest.mark.parametrize("fraction", [0, 0.3, 1])
def test_every_step_has_a_rate(rates, fraction):
    plan = train_schedule(7, fraction, rates=rates)
    assert all(0 < plan.rate(step) <= 1 for step in range(7))
    assert plan.switch == 7 - round(7 * fraction)


def test_schedule_refuses():
    with pytest.raises(ValueError, match="train_schedule: rates must be one of continue, keep, rewarm"):
        train_schedule(10, rates="up")
    with pytest.raises(ValueError, match="train_schedule: dense_fraction must be a finite number from 0 to 1"):
        train_schedule(10, 2)


def test_a_short_training_brings_the_outputs_nearer():
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16)).requires_grad_(False)
    batches = list(torch.randn(20, 32, 16))
    small = d2s_project(dense, 4)
    better = recover_monarch(small, dense, batches, steps=60, rate=2e-2)
    x = torch.randn(200, 16)
    before, after = ((model(x) - dense(x)).square().mean() for model in (small, better))
    assert after < 0.6 * before
    assert isinstance(better[0], MonarchLinear)
    assert not any(p.requires_grad for p in better.parameters())
    one, two = (recover_monarch(small, dense, batches, steps=5, seed=1) for _ in range(2))
    assert torch.equal(one(x), two(x))
    with pytest.raises(ValueError, match="the model has no MonarchLinear layer"):
        recover_monarch(dense, dense, batches, steps=1)
    with pytest.raises(ValueError, match="batches is empty"):
        recover_monarch(small, dense, [], steps=1)
