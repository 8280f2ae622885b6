"""One training loop: what a kill leaves, what goes on from it, and what is refused."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from workbench.models.fine_tuning import training
from workbench.models.fine_tuning.training import Checkpoint, cosine, falling, steady, train


class Stop(Exception):
    pass


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 3)).train()


def batch_of(step):
    draw = torch.Generator().manual_seed(step)
    return torch.randn(5, 6, generator=draw), torch.randint(3, (5,), generator=draw)


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def stop_at(last):
    def report(fraction, step):
        if step.startswith(f"training step {last} "):
            raise Stop

    return report


def run(model, **how):
    return train(model, loss, batch_of, steps=12, rate=0.05, schedule=cosine(0.2), seed=3, **how)


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


class Counter:
    """A part of a method's state that a checkpoint must hold."""

    def __init__(self):
        self.count = 0

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path):
    whole, cut, kept = net(), net(), Checkpoint(path=tmp_path / "a" / "state.pt", every_s=0)
    told, counters = run(whole), [Counter(), Counter()]

    def count(which):
        def after(step, steps):
            counters[which].count += step

        return after

    with pytest.raises(Stop):
        run(cut, checkpoint=kept, report=stop_at(8), after_step=count(0), state={"counter": counters[0]})
    assert kept.path.is_file()
    fresh = net(seed=9)  # another process has other weights when it begins
    found = run(fresh, checkpoint=kept, after_step=count(1), state={"counter": counters[1]})
    assert equal(whole, fresh) and counters[1].count == sum(range(1, 13))
    np.testing.assert_array_equal(told.losses, found.losses)
    assert not list(kept.path.parent.iterdir())  # nothing is left when it is done


def test_a_write_that_fails_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    model, kept = net(), Checkpoint(path=tmp_path / "state.pt", every_s=0)
    with pytest.raises(Stop):
        run(model, checkpoint=kept, report=stop_at(4))
    before = kept.path.read_bytes()

    def broken(content, file):
        file.write(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(training.torch, "save", broken)
    with pytest.raises(OSError, match="full"):
        run(net(), checkpoint=kept)
    assert kept.path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    kept = Checkpoint(path=tmp_path / "state.pt", every_s=0)
    with pytest.raises(Stop):
        run(net(), checkpoint=kept, report=stop_at(4))
    with pytest.raises(ValueError, match=r"another training \(rate\); delete it"):
        train(net(), loss, batch_of, steps=12, rate=0.01, seed=3, checkpoint=kept)
    with pytest.raises(ValueError, match=r"another training \(other parts"):
        run(net(), checkpoint=kept, state={"counter": Counter()})


def test_the_loop_is_that_of_the_optimiser(assert_close):
    ours, theirs = net().eval(), net().eval()
    found = train(ours, loss, batch_of, steps=5, rate=0.1, weight_decay=0.1, clip=0.5, schedule=falling)
    made = torch.optim.AdamW(theirs.parameters(), lr=0.1, weight_decay=0.1)
    for step in range(5):
        for group in made.param_groups:
            group["lr"] = 0.1 * (1 - step / 5)
        made.zero_grad()
        value = loss(theirs, batch_of(step))
        assert found.losses[step] == value.item()
        value.backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        made.step()
    assert equal(ours, theirs) and all(p.grad is None for p in ours.parameters())


def test_groups_have_their_own_rates_and_hooks_see_gradients():
    model, seen = net().eval(), []
    still = model[0].weight.clone()
    groups = [{"params": [model[0].weight], "lr": 0.0}, {"params": [model[3].weight], "lr": 0.1}]

    def after(step, steps):
        seen.append((step, steps, model[3].weight.grad is not None))

    train(model, loss, batch_of, steps=2, rate=0.1, parameters=groups, after_step=after)
    assert torch.equal(model[0].weight, still) and seen == [(1, 2, True), (2, 2, True)]


def test_schedules():
    rate = cosine(0.25, 0.1)
    assert [rate(x) for x in (0, 0.125, 0.25)] == [0, 0.5, 1]
    assert rate(0.625) == pytest.approx(0.1 + 0.9 * 0.5) and rate(1) == pytest.approx(0.1)
    assert cosine()(0) == 1 and falling(0.25) == 0.75 and steady(0.9) == 1


def test_the_random_numbers_of_others_are_as_before():
    model = net()
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    run(model)
    assert torch.equal(torch.rand(3), want)


@pytest.mark.parametrize(("change", "error", "message"), [
    ({"steps": -1}, ValueError, "train: steps"), ({"rate": 0}, ValueError, "train: rate"),
    ({"parameters": []}, ValueError, "nothing asks for gradients"), ({"loss": 3}, TypeError, "loss"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(change, error, message):
    given = {"model": net(), "loss": loss, "batch_of": batch_of, "steps": 1, "rate": 0.1} | change
    with pytest.raises(error, match=message):
        train(**given)


def test_a_loss_that_is_not_finite_says_where():
    def spoilt(model, batch):
        return loss(model, batch) * (math.nan if batch[1].sum() >= 0 else 1)

    with pytest.raises(FloatingPointError, match="at step 0; take a smaller rate"):
        train(net(), spoilt, batch_of, steps=3, rate=0.1)
