"""Movement and magnitude pruning: gradients by hand, and what each of them is blind to."""

import pytest
import torch
from torch import nn

from workbench.models.fine_tuning.adapt import adapt
from workbench.models.fine_tuning.magnitude import MagnitudeLinear
from workbench.models.fine_tuning.movement import MovementLinear

W = torch.tensor([[0.1, -2.0], [3.0, 0.2]])


def base():
    made = nn.Linear(2, 2)
    with torch.no_grad():
        made.weight.copy_(W)
    return made


@pytest.mark.parametrize("efficient", [True, False])
def test_gradients_by_hand(efficient):
    x, G = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 6.0], [-1.0, -2.0]])  # of the outputs 3 and -1
    magnitude = MagnitudeLinear(base(), memory_efficient=efficient, sparsity=0.5)
    movement = MovementLinear(base(), memory_efficient=efficient, sparsity=0.5)
    with torch.no_grad():
        movement.score.copy_(torch.tensor([[4.0, 1.0], [2.0, 3.0]]))
    for made in (magnitude, movement):
        made(x).backward(torch.tensor([[3.0, -1.0]]))
        assert made.bias.grad is None
    assert magnitude.mask().tolist() == [[False, True], [True, False]]
    assert magnitude.weight.grad.tolist() == [[0, 6], [-1, 0]]
    assert movement.mask().tolist() == [[True, False], [False, True]]
    assert movement.weight.grad.tolist() == [[3, 0], [0, -2]]
    torch.testing.assert_close(movement.score.grad, G * W)


def test_scores_gather_the_movement_away_from_zero():
    made, x, t = MovementLinear(base()), torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    optimizer = torch.optim.SGD([{"params": [made.score], "lr": 0.5}], lr=0.5)
    gathered = torch.zeros(2, 2)
    for _ in range(3):
        optimizer.zero_grad()
        (made(x) - t).square().sum().backward()
        error = made(x).detach() - t
        gathered -= 0.5 * 2 * error.T @ x * W
        optimizer.step()
    torch.testing.assert_close(made.score.detach(), gathered)


def test_scores_have_a_rate_of_their_own():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    tuning = adapt(net, "movement", targets=["0"], also=["1"], score_rate=5.0)
    groups = tuning.groups(1e-3, 2e-2)
    assert [group["lr"] for group in groups] == [1e-3, pytest.approx(5e-3), 2e-2]
    assert groups[0]["params"][0] is tuning.layers["0"].weight and groups[1]["params"][0] is tuning.layers["0"].score
    assert [len(group["params"]) for group in groups] == [1, 1, 2]
    before = tuning.layers["0"].score.detach().clone()
    tuning.train(lambda m, step: m(torch.ones(1, 4)).sum(), lambda step: step, steps=1, rate=1e-3, also_rate=1e-3)
    torch.testing.assert_close((tuning.layers["0"].score.detach() - before).abs().max(), torch.tensor(5e-3))
    with pytest.raises(ValueError, match="movement: score_rate must"):
        adapt(net, "movement", score_rate=0.0)


def test_the_readers_weight_is_copied_and_its_change_is_known():
    for key in ("magnitude", "movement"):
        net = nn.Sequential(nn.Linear(4, 4))
        tuning = adapt(net, key)
        made = tuning.layers["0"]
        assert (
            made.weight.data_ptr() != net[0].weight.data_ptr() and made.begin().data_ptr() == net[0].weight.data_ptr()
        )
        assert made.bias.data_ptr() == net[0].bias.data_ptr() and not made.delta().any()
        assert tuning.trainable == (16 if key == "magnitude" else 32)
