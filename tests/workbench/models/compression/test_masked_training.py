"""The training loop: one step by hand, masks that hold, equal seeds, refusals."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from workbench.models.compression.masked_training import accuracy, train

pytestmark = pytest.mark.usefixtures("one_thread")

DATA = (torch.randn(50, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 3)


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def test_two_steps_are_those_of_momentum_decay_and_cosine():
    model, twin = net(), net()
    train(model, DATA, epochs=2, batch=50, rate=0.2)
    speeds = {}
    for rate in (0.2, 0.1):  # 0.2 (1 + cos(0)) / 2 and 0.2 (1 + cos(pi / 2)) / 2
        loss = F.cross_entropy(twin(DATA[0]), DATA[1])
        gradients = torch.autograd.grad(loss, list(twin.parameters()))
        with torch.no_grad():
            for p, g in zip(twin.parameters(), gradients, strict=True):
                speeds[p] = 0.9 * speeds.get(p, 0) + g + 5e-4 * p
                p -= rate * speeds[p]
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_masked_weights_are_zero_after_every_step_and_others_learn():
    model = net()
    mask = torch.rand(8, 4, generator=torch.Generator().manual_seed(1)) < 0.4
    before, seen = model[1].weight.detach().clone(), []
    train(
        model, DATA, {"1": mask}, epochs=3, batch=16, report=lambda f, s: seen.append(model[1].weight.detach().clone())
    )
    assert len(seen) == 3 * 4 and all(bool((w[~mask] == 0).all()) and bool((w[mask] != 0).all()) for w in seen)
    assert not torch.equal(model[1].weight[mask], before[mask])
    untrained = net()
    train(untrained, DATA, {"1": mask}, epochs=0)
    assert bool((untrained[1].weight[~mask] == 0).all())


def test_equal_seeds_train_alike_and_the_history_is_whole():
    one, two, other = net(), net(), net()
    histories = [train(m, DATA, epochs=4, seed=s, test=DATA) for m, s in ((one, 5), (two, 5), (other, 6))]
    assert torch.equal(one[1].weight, two[1].weight) and not torch.equal(one[1].weight, other[1].weight)
    first = histories[0]
    assert len(first.losses) == len(first.seconds) == len(first.accuracies) == 4
    assert first.losses == histories[1].losses and first.losses[-1] < first.losses[0] and min(first.seconds) > 0
    assert first.accuracies[-1] == accuracy(one, DATA)


def test_accuracy_is_the_share_of_hits_in_evaluation_mode():
    class Told(nn.Module):
        def forward(self, x):
            assert not self.training
            return F.one_hot(x[:, 0].long(), 3).float()

    model = Told().train()
    assert accuracy(model, (torch.tensor([[0], [1], [2], [2]]), torch.tensor([0, 1, 1, 2]))) == 0.75
    assert model.training


def test_a_report_may_stop_the_training():
    def stop(fraction, step):
        raise KeyboardInterrupt(step)

    with pytest.raises(KeyboardInterrupt, match="epoch 1 of 9"):
        train(net(), DATA, epochs=9, report=stop)


def test_bad_masks_and_data_are_refused():
    with pytest.raises(KeyError, match="layer 0 that the model does not have"):
        train(net(), DATA, {"0": torch.ones(1)})
    with pytest.raises(ValueError, match=r"mask of 1 must have the shape of its weight \(8, 4\), got \(4, 8\)"):
        train(net(), DATA, {"1": torch.ones(4, 8, dtype=torch.bool)})
    with pytest.raises(ValueError, match="as many labels"):
        train(net(), (DATA[0], DATA[1][:4]))
    with pytest.raises(ValueError, match="batch"):
        train(net(), DATA, batch=0)
