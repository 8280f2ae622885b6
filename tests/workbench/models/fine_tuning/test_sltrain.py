"""SLTrain against hand-worked numbers, PyTorch's own gradients, and what the paper says of support and rank."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from workbench.models.fine_tuning.sltrain import (
    LowRankLinear,
    SLTrainLinear,
    apply_sltrain,
    random_support,
    sparse_lowrank_linear,
)

FORMS = ["dense", "sddmm"]


def layer_of(form="dense", dtype=torch.float64, **how):
    torch.manual_seed(0)
    layer = SLTrainLinear(7, 5, 3, delta=0.3, alpha=6, seed=1, dtype=dtype, backward=form, **how)
    nn.init.normal_(layer.B)
    return layer


@pytest.mark.parametrize("form", FORMS)
def test_numbers_worked_by_hand(form):
    B, A = torch.tensor([[1.0], [2.0]], requires_grad=True), torch.tensor([[1.0, 0.0, -1.0]], requires_grad=True)
    v, x = torch.tensor([10.0, 20.0], requires_grad=True), torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = sparse_lowrank_linear(x, B, A, v, torch.tensor([1, 5]), 2.0, backward=form)
    y.backward(torch.ones(2))
    assert y.tolist() == [16, 52]
    assert x.grad.tolist() == [6, 10, 14] and v.grad.tolist() == [2, 3]
    assert A.grad.tolist() == [[6, 12, 18]] and B.grad.tolist() == [[-4], [-4]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lead", [(), (4,), (2, 3), (0,)])
def test_output_is_that_of_the_dense_weight(form, bias, lead):
    layer = layer_of(form, bias=bias)
    x = torch.randn(*lead, 7, dtype=torch.float64)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight_dense(), layer.bias))
    torch.testing.assert_close(layer.merge()(x), layer(x))
    want = layer.low_rank() + torch.from_numpy(layer.sparse_csr().toarray())
    torch.testing.assert_close(layer.weight_dense(), want)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("trainable", [True, False])
def test_gradients(form, trainable):
    layer = layer_of(form, trainable_scale=trainable)
    x = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def call(x, *weights):
        return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *layer.parameters()))


@pytest.mark.parametrize("wants", [True, False])
def test_both_backward_forms_agree_in_float32(wants):
    found = []
    for form in FORMS:
        layer = layer_of(form, torch.float32)
        x = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(3)).requires_grad_(wants)
        layer(x).square().sum().backward()
        assert (x.grad is not None) == wants
        found.append([p.grad for p in layer.parameters()] + ([x.grad] if wants else []))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_only_the_input_is_kept_for_the_backward_pass(form):
    layer, x, kept = layer_of(form, torch.float32), torch.randn(9, 7), {}
    known = {t.data_ptr() for t in (*layer.parameters(), layer.I)}

    def keep(t):
        kept[t.data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        layer(x)
    assert sum(size for at, size in kept.items() if at not in known) == x.numel() * 4


@pytest.mark.parametrize(("m", "n", "delta"), [(64, 48, 0.03), (5, 7, 0.3), (10, 10, 0.0101)])
def test_support(m, n, delta):
    places = random_support(m, n, delta, 4)
    assert len(places) == int(delta * m * n) and places.dtype == torch.int32
    assert (places.diff() > 0).all() and places[0] >= 0 and places[-1] < m * n
    assert torch.equal(places, random_support(m, n, delta, 4))
    assert random_support(m, n, delta, 4, index_dtype="int64").dtype == torch.int64


def test_support_is_uniform():
    hits = np.zeros(60)
    for seed in range(2000):
        hits[random_support(6, 10, 0.1, seed).numpy()] += 1
    assert abs(hits - 200).max() < 5 * np.sqrt(180)


def test_start_and_scale():
    layer = SLTrainLinear(40, 30, 4, delta=0.1, seed=0)
    assert np.array_equal(layer.weight_dense().numpy(), layer.sparse_csr().toarray())
    assert layer.v.abs().max() <= 40**-0.5 and layer.v.std() > 0.4 * 40**-0.5
    one, two = layer_of(), layer_of()
    two.scale *= 2
    torch.testing.assert_close(two.low_rank(), 2 * one.low_rank())
    torch.testing.assert_close(two.weight_dense() - one.weight_dense(), one.low_rank())


@pytest.mark.parametrize(("delta", "least", "most"), [(0.1, 99, 100), (0.01, 0, 0)])
def test_random_sparse_part_makes_the_rank_full(delta, least, most):
    full = 0
    for seed in range(100):
        torch.manual_seed(seed)
        layer = SLTrainLinear(64, 64, 4, delta=delta, seed=seed, dtype=torch.float64)
        nn.init.normal_(layer.B)
        full += int(torch.linalg.matrix_rank(layer.weight_dense()) == 64)
    assert least <= full <= most


def test_apply_takes_the_named_layers_with_supports_of_their_own():
    model = nn.ModuleDict({"attn": nn.Linear(20, 20), "mlp": nn.Linear(20, 20, bias=False), "head": nn.Linear(20, 3)})
    found = apply_sltrain(model, r=2, delta=0.1, seed=3)
    assert list(found) == ["attn", "mlp"] and type(model["head"]) is nn.Linear
    assert model["attn"] is found["attn"] and model["mlp"].bias is None
    assert not torch.equal(found["attn"].I, found["mlp"].I)
    with pytest.raises(ValueError, match="has a name with one of"):
        apply_sltrain(model, ("conv",), r=2)


def test_low_rank_baseline_can_learn_from_its_start():
    layer, x = LowRankLinear(9, 6, 2), torch.randn(4, 9)
    torch.testing.assert_close(layer(x), x @ (layer.B @ layer.A).T + layer.bias)
    layer(x).square().sum().backward()
    assert layer.A.grad.abs().max() > 0 and layer.B.grad.abs().max() > 0


@pytest.mark.parametrize(("change", "message"), [
    ({"r": 0}, "r must"), ({"r": 6}, "r must"), ({"delta": 0.0}, "delta must"), ({"delta": 1.0}, "delta must"),
    ({"delta": 0.001}, "keeps no entry"), ({"backward": "fast"}, "backward must"),
    ({"support": torch.tensor([1, 1])}, "rise strictly"), ({"support": torch.tensor([3, 35])}, "rise strictly"),
    ({"support": torch.tensor([-1, 3])}, "rise strictly"),
])  # fmt: skip
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SLTrainLinear(**({"in_features": 7, "out_features": 5, "r": 2, "delta": 0.3} | change))


def test_inputs_that_do_not_fit_are_refused():
    layer = layer_of()
    with pytest.raises(ValueError, match=r"x must be \(\.\.\., 7\)"):
        layer(torch.zeros(2, 6, dtype=torch.float64))
    with pytest.raises(TypeError, match="they must be equal"):
        layer(torch.zeros(2, 7))
    with pytest.raises(TypeError, match="int32 or int64"):
        sparse_lowrank_linear(torch.zeros(2, 7), layer.B, layer.A, layer.v, layer.I.float(), 1.0)
