"""SNELL against matrices worked out by hand, exact counts, gradients, and bytes that are kept."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from workbench.models.fine_tuning import snell
from workbench.models.fine_tuning.memory import saved_bytes
from workbench.models.fine_tuning.snell import (
    KLoRALinear,
    SNELLLinear,
    competition_sparsify,
    competition_threshold,
)

HAND = torch.tensor([[0.0, 0.5], [-1.3, -0.8]])
RESULTS = {
    "code": [[0, 0], [-1.69, -0.64]],
    "paper": [[0, 0], [-1.04, -0.24]],
    "hard": [[0, 0], [-1.3, -0.8]],
}


@pytest.mark.parametrize("mode", RESULTS)
def test_a_competition_worked_out_by_hand(mode):
    torch.testing.assert_close(competition_sparsify(HAND, 0.5, mode), torch.tensor(RESULTS[mode]))


@pytest.mark.parametrize("s", [0.0, 0.1, 0.37, 0.5, 0.9, 0.999])
def test_exactly_as_many_go_as_the_share_says(s):
    W, size = torch.randn(17, 23, generator=torch.Generator().manual_seed(0)), 17 * 23
    assert int((competition_sparsify(W, s, "code") == 0).sum()) == math.floor(s * (size - 1)) + 1
    for mode in ("paper", "hard"):
        assert int((competition_sparsify(W, s, mode) == 0).sum()) == math.ceil(s * size)
    assert competition_threshold(W, s, "code") == pytest.approx(float(torch.quantile(W.abs().double(), s)), rel=1e-6)


def test_more_competition_keeps_a_part_of_what_stays():
    W = torch.randn(30, 30, generator=torch.Generator().manual_seed(0))
    kept = [competition_sparsify(W, s, "hard") != 0 for s in (0.2, 0.5, 0.8)]
    assert (kept[2] <= kept[1]).all() and (kept[1] <= kept[0]).all()
    assert not competition_sparsify(torch.full((4, 4), -0.3), 0.5).any()  # all alike: none is above


def test_more_entries_than_torch_takes_for_a_quantile():
    W = torch.arange(2**24 + 8, dtype=torch.float32)
    with pytest.raises(RuntimeError):
        torch.quantile(W, 0.25)
    assert competition_threshold(W, 0.5, "hard") == float(W[2**23 + 3])


@pytest.mark.parametrize("mode", ["paper", "hard"])
def test_gradients_with_a_threshold_that_stands_still(mode, monkeypatch):
    monkeypatch.setattr(snell, "competition_threshold", lambda W, s, mode: 0.5)
    W = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: competition_sparsify(w, 0.5, mode), (W,))


def test_the_released_gradient_is_the_magnitude_where_an_entry_stays():
    W = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    out = competition_sparsify(W, 0.5, "code")
    out.sum().backward()
    torch.testing.assert_close(W.grad, torch.where(out != 0, W.detach().abs(), 0.0))


def layer(m=24, n=16, **how):
    torch.manual_seed(0)
    return SNELLLinear(nn.Linear(n, m), **({"r": 8} | how))


def test_points_begin_as_published():
    made = layer(m=200, n=300)
    assert made.A.shape == (2, 300, 4) and made.B.shape == (2, 200, 4)
    for points, size in ((made.A, 300), (made.B, 200)):
        bound = 1 / math.sqrt(size * 4)
        assert 0.95 * bound < points.abs().max() <= bound
    assert made.alphas.tolist() == pytest.approx([0.1, -0.1]) and not made.alphas.requires_grad


@pytest.mark.parametrize("mode", ["paper", "code"])
def test_forward_is_the_base_and_the_update(mode):
    made, x = layer(s=0.75, mode=mode), torch.randn(3, 5, 16)
    torch.testing.assert_close(made(x), made.base(x) + F.linear(x, made.delta()))
    torch.testing.assert_close(made.merge()(x), made(x))
    assert made.density == pytest.approx(0.25, abs=0.003) and made.support().nnz == int((made.delta() != 0).sum())


def test_the_kernel_alone_keeps_every_entry():
    made = KLoRALinear(nn.Linear(16, 24))
    torch.testing.assert_close(made.delta(), made.merged())
    assert made.s == 0 and made.density == 1


@pytest.mark.parametrize("how", [{"s": 0.9}, {"s": 0.9, "mode": "code"}, {"s": 0.0}])
def test_computing_again_gives_the_same_bits_and_keeps_no_matrix(how):
    x, results, kept = torch.randn(7, 16, requires_grad=True), [], []
    for again in (True, False):
        made = layer(checkpoint=again, learn_alpha=True, **how)
        kept.append(saved_bytes(lambda made=made: made(x), [*made.parameters()]))
        made(x).square().sum().backward()
        results.append([made(x), made.A.grad, made.B.grad, made.alphas.grad])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    maps = 2 + (2 if how["s"] else 1)  # the distances, the slope of the competition, the update itself
    assert kept == [4 * 7 * 16, 4 * (7 * 16 + maps * 16 * 24)]


def test_training_may_leave_out_inputs_and_whole_updates():
    made, x = layer(dropout=0.5, drop_path=0.5), torch.randn(400, 3, 16)
    made.train()
    update = (made(x) - made.base(x)).abs().sum((1, 2))
    assert 0.35 < float((update == 0).float().mean()) < 0.65
    made.eval()
    assert torch.equal(made(x), made(x)) and not torch.equal(made(x), made.base(x))


@pytest.mark.parametrize(("how", "error", "message"), [
    ({"s": 1.0}, ValueError, "s must be a share"), ({"s": -0.1}, ValueError, "SNELLLinear: s"),
    ({"r": 7}, ValueError, "divisible by P=2, got 7"), ({"r": 0}, ValueError, "r must"),
    ({"mode": "soft"}, ValueError, "mode"), ({"base": nn.ReLU()}, TypeError, "base must be"),
    ({"base": nn.Linear(2, 2).requires_grad_(False)}, None, ""),
])  # fmt: skip
def test_what_does_not_fit_is_refused(how, error, message):
    given = {"base": nn.Linear(4, 4), "r": 2} | how
    if error is None:
        with torch.no_grad():
            given["base"].weight[0, 0] = math.nan
        error, message = ValueError, "finite weights"
    with pytest.raises(error, match=message):
        SNELLLinear(**given)


def test_a_competition_of_what_is_no_matrix_is_refused():
    for W in (np.ones(3), torch.ones(3, dtype=torch.int32)):
        with pytest.raises(TypeError, match="must be a floating-point tensor"):
            competition_sparsify(W, 0.5)
    for W in (torch.ones(0), torch.tensor([math.nan, 1.0])):
        with pytest.raises(ValueError, match=r"competition_sparsify|NaN"):
            competition_sparsify(W, 0.5)
