"""Masks of the largest scores, their gradients and their growth, and what every kind of masked layer has."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kernels.matmul.spmm import spmm
from workbench.models.fine_tuning.adapt import adapt
from workbench.models.fine_tuning.magnitude import MagnitudeLinear
from workbench.models.fine_tuning.masked_linear import (
    MaskedLinear,
    SparsityScheduler,
    StraightThroughMask,
    binarize,
    convert,
    cubic_sparsity,
)
from workbench.models.fine_tuning.memory import saved_bytes
from workbench.models.fine_tuning.movement import MovementLinear
from workbench.models.fine_tuning.pst import PSTLinear
from workbench.models.fine_tuning.training import Checkpoint

KINDS = {"magnitude": MagnitudeLinear, "movement": MovementLinear, "pst": PSTLinear}


def layer(kind, m=12, n=10, dtype=torch.float64, **how):
    """Return a layer all of whose parameters are drawn, so that no factor is zero."""
    torch.manual_seed(0)
    made = KINDS[kind](nn.Linear(n, m, dtype=dtype), **how)
    for parameter in made.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    return made


# Masks ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["kthvalue", "argsort"])
def test_exactly_as_many_go_as_the_share_says_and_those_that_stay_are_nested(method):
    S, before = torch.randn(17, 23, generator=torch.Generator().manual_seed(0)), torch.ones(17, 23)
    for s in (0.0, 0.1, 0.29, 0.5, 0.9, 0.97, 0.999):
        mask = binarize(S, s, method)
        gone = int(17 * 23 * s)
        assert int((mask == 0).sum()) == gone and int((mask == 1).sum()) == 391 - gone
        assert not gone or S[mask == 0].max() < S[mask == 1].min()
        assert (mask <= before).all()
        before = mask


@pytest.mark.parametrize("method", ["kthvalue", "argsort"])
def test_of_equal_scores_the_first_ones_stay(method):
    assert binarize(torch.full((3, 4), 0.5), 0.6, method).flatten().tolist() == [1] * 5 + [0] * 7
    S = torch.tensor([[2.0, -0.0, 1.0], [0.0, 0.0, -1.0]])
    assert binarize(S, 0.5, method).tolist() == [[1, 1, 1], [0, 0, 0]]
    assert binarize(S.bfloat16(), 0.5, method).dtype == torch.bfloat16


def test_the_gradient_goes_straight_through_also_where_a_score_went():
    S = torch.tensor([3.0, 1.0, 2.0, 0.0], requires_grad=True)
    for mask in (binarize(S, 0.5), StraightThroughMask.apply(S, 0.5)):
        S.grad = None
        (mask * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
        assert mask.tolist() == [1, 0, 1, 0] and S.grad.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(("S", "s", "error", "message"), [
    (torch.ones(4), 1.0, ValueError, "sparsity must be a share"), (torch.ones(4), -0.1, ValueError, "sparsity"),
    (torch.ones(4), float("nan"), ValueError, "sparsity"), (torch.tensor([1.0, np.nan]), 0.5, ValueError, "NaN"),
    (torch.ones(4, dtype=torch.int32), 0.5, TypeError, "floating-point tensor"),
    (np.ones(4), 0.5, TypeError, "got ndarray"),
])  # fmt: skip
def test_what_is_no_score_or_share_is_refused(S, s, error, message):
    for method in ("kthvalue", "argsort"):
        with pytest.raises(error, match=rf"binarize: .*{message}"):
            binarize(S, s, method)
    with pytest.raises(ValueError, match="binarize: method"):
        binarize(torch.ones(4), 0.5, "sort")


# Layers ---------------------------------------------------------------------------------------------------------------
VARIANTS = [{}, {"score_grad_to_weight": False}, {"r_weight": 0}, {"r_score": 0}, {"a2": 0.0}, {"beta": 0.5, "a1": 2.0}]


@pytest.mark.parametrize(("kind", "how"), [("magnitude", {}), ("movement", {}), *(("pst", how) for how in VARIANTS)])
def test_keeping_bits_alone_gives_the_same_outputs_and_gradients(kind, how):
    x, results = torch.randn(3, 4, 10, dtype=torch.float64, requires_grad=True), []
    target = torch.randn(3, 4, 12, dtype=torch.float64)
    for efficient in (True, False):
        made = layer(kind, memory_efficient=efficient, sparsity=0.6, **how)
        x.grad = None
        out = made(x)
        (out * target).sum().backward()
        found = {name: p.grad for name, p in made.named_parameters()}
        assert all((found[name] is not None) == p.requires_grad for name, p in made.named_parameters())
        results.append([out.detach(), x.grad, *(g for g in found.values() if g is not None)])
    assert torch.equal(results[0][0], results[1][0])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kind", "copies"), [("magnitude", 2), ("movement", 2), ("pst", 3)])
def test_what_is_kept_for_the_backward_pass(kind, copies):
    m, n, x = 96, 64, torch.randn(50, 64, requires_grad=True)
    for efficient, wanted in ((True, m * n // 8), (False, copies * 4 * m * n)):
        made = layer(kind, m, n, torch.float32, memory_efficient=efficient, sparsity=0.5)
        assert saved_bytes(lambda made=made: made(x), [x, *made.parameters()]) == wanted
        assert saved_bytes(lambda made=made: made(x), [*made.parameters()]) == wanted + 4 * 50 * n


def test_a_parameter_that_changes_before_the_backward_pass_is_noticed():
    made = layer("pst")
    out = made(torch.randn(2, 10, dtype=torch.float64)).sum()
    with torch.no_grad():
        made.V += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


def test_inputs_have_gradients_where_nothing_is_trained():
    made, x = layer("pst", sparsity=0.5).requires_grad_(False), torch.randn(2, 10, dtype=torch.float64)
    made(x.requires_grad_()).sum().backward()
    torch.testing.assert_close(x.grad, made.weight_effective().sum(0).expand(2, -1))
    made.bias.requires_grad_(True)
    made(x).sum().backward()
    assert made.bias.grad.tolist() == [2] * 12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("s", [0.0, 0.37, 0.9])
def test_exported_forms_give_the_same(kind, s):
    made, x = layer(kind, dtype=torch.float32, sparsity=s), torch.randn(7, 10)
    kept = made.mask()
    assert int(kept.sum()) == 120 - int(120 * s) and torch.equal(made.weight_effective() != 0, kept)
    plain, rows = made.export(), made.export("csr")
    torch.testing.assert_close(plain(x), made(x), rtol=1e-6, atol=1e-6)
    assert type(plain) is nn.Linear and torch.equal(plain.weight != 0, kept) and not plain.weight.requires_grad
    assert torch.equal(made.merge().weight, plain.weight)
    assert rows.nnz == 120 - int(120 * s) and rows.has_sorted_indices and rows.dtype == np.float32
    np.testing.assert_array_equal(rows.toarray(), plain.weight)
    with torch.no_grad():
        found = spmm(rows, np.ascontiguousarray(x.numpy().T)).T + made.bias.numpy()
        np.testing.assert_allclose(found, made(x), atol=1e-5)
    torch.testing.assert_close(made.delta(), plain.weight - made.begin())
    with pytest.raises(ValueError, match=r"\.export: form"):
        made.export("coo")


def test_a_zero_that_stays_is_stored():
    made = MagnitudeLinear(nn.Linear(4, 2), sparsity=0.25)
    with torch.no_grad():
        made.weight.zero_()
    assert made.export("csr").nnz == 6


@pytest.mark.parametrize("kind", KINDS)
def test_layers_without_bias_and_of_half_precision(kind):
    made = KINDS[kind](nn.Linear(6, 5, bias=False, dtype=torch.bfloat16), sparsity=0.5)
    x = torch.randn(3, 6, dtype=torch.bfloat16)
    made(x).sum().backward()
    assert made.bias is None and made.export().bias is None
    torch.testing.assert_close(made.export()(x), made(x))
    assert made.export("csr").dtype == np.float32 and made.export("csr").nnz == 15


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_fit_is_refused(kind):
    for wrong in (1.0, -0.5):
        with pytest.raises(ValueError, match="Linear: sparsity must"):
            layer(kind).sparsity = wrong
    with pytest.raises(TypeError, match=r"base must be a torch\.nn\.Linear"):
        KINDS[kind](nn.Conv2d(1, 1, 1))
    made = layer(kind)
    with torch.no_grad():
        next(p for p in made.parameters() if p.requires_grad).fill_(np.nan)
    if kind != "movement":
        with pytest.raises(ValueError, match="binarize: S must hold no NaN"):
            made(torch.zeros(1, 10, dtype=torch.float64))


# Growth of the sparsity -----------------------------------------------------------------------------------------------
def test_the_schedule_by_hand():
    found = [cubic_sparsity(t, 100) for t in (0, 10, 11, 20, 40, 55, 70, 100)]
    np.testing.assert_allclose(found, [0, 0, 0.044254, 0.379167, 0.7875, 0.885938, 0.9, 0.9], atol=1e-6)
    every = np.array([cubic_sparsity(t, 1000, sf=0.97) for t in range(1001)])
    assert (np.diff(every) >= 0).all() and np.diff(every).max() < 0.97 * 3 / 600 + 1e-12
    assert cubic_sparsity(1, 4, iw=0, fw=0, s0=0.1, sf=0.5) == pytest.approx(0.5 - 0.4 * 0.75**3)
    for wrong in ({"iw": 0.5, "fw": 0.5}, {"t": 101}, {"t": -1}, {"iw": -0.1}, {"sf": 1.0}, {"s0": -0.1}, {"T": 0}):
        with pytest.raises(ValueError, match="cubic_sparsity: "):
            cubic_sparsity(**({"t": 5, "T": 100} | wrong))


def test_the_scheduler_sets_every_layer():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3), nn.ReLU())
    with pytest.raises(ValueError, match="must have a masked layer; put some in with convert"):
        SparsityScheduler(net)
    made = convert(net, MagnitudeLinear, ["0", "1"])
    schedule = SparsityScheduler(net, 0.8, iw=0.2, fw=0.2, s0=0.25)
    assert [each.sparsity for each in made.values()] == [0.25, 0.25]
    assert schedule.step(5, 10) == pytest.approx(0.8 - 0.55 * 0.5**3) == made["0"].sparsity == made["1"].sparsity
    schedule.step(10, 10)
    assert [int(each.mask().sum()) for each in made.values()] == [16 - 12, 12 - 9]


@pytest.mark.parametrize("kind", KINDS)
def test_conversion_in_place_freezes_the_rest(kind):
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    made = convert(net, KINDS[kind], ["0"], memory_efficient=False)
    assert isinstance(net[0], MaskedLinear) and made == {"0": net[0]} and not net[0].memory_efficient
    assert not any(p.requires_grad for p in net[2].parameters()) and not net[0].bias.requires_grad
    assert any(p.requires_grad for p in net[0].parameters())
    with pytest.raises(KeyError, match="'1' is no linear layer"):
        convert(net, KINDS[kind], ["1"])


def loss(model, step):
    draw = torch.Generator().manual_seed(step)
    x = torch.randn(20, 8, generator=draw)
    return F.mse_loss(model(x), x.flip(1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_that_was_stopped_goes_on_with_its_sparsity(kind, tmp_path):
    def training(steps, **how):
        torch.manual_seed(0)
        tuning = adapt(nn.Sequential(nn.Linear(8, 8)), kind, sf=0.5)
        with suppress(KeyboardInterrupt):
            tuning.train(loss, lambda step: step, steps=steps, rate=0.01, **how)
        return tuning

    def stop(fraction, step):
        if fraction > 0.45:
            raise KeyboardInterrupt

    kept, whole = Checkpoint(path=tmp_path / "state", every_s=0), training(20)
    part = training(20, checkpoint=kept, report=stop)
    assert 0 < part.layers["0"].sparsity < 0.5 and kept.path.exists()
    again = training(20, checkpoint=kept)
    assert torch.equal(again.layers["0"].weight_effective(), whole.layers["0"].weight_effective())
    assert again.layers["0"].sparsity == 0.5 and int(again.layers["0"].mask().sum()) == 32
