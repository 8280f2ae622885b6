"""Monarch layers against torch's dense products and Fourier transforms; gradients, and the state of an optimiser."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from workbench.models import bridge
from workbench.models.compression.monarch import (
    MonarchFFT,
    MonarchLinear,
    MonarchOrderP,
    d2s_project,
    monarch_conv,
    reverse_sparsify,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(3)


@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
def test_chain_has_right_gradients(kind):
    x, *weights = (
        torch.randn(shape, dtype=kind, requires_grad=True) for shape in ((2, 12), (4, 2, 3), (2, 3, 4), (6, 2, 1))
    )
    assert torch.autograd.gradcheck(lambda x, *w: bridge.block_chain(x, w, [1, 2, 3]), (x, *weights))


def test_chain_passes_the_operator_checks():
    x, w1, w2 = (torch.randn(s, requires_grad=True) for s in ((5, 8), (2, 6, 4), (4, 2, 3)))
    torch.library.opcheck(bridge._block_chain, (x, [w1, w2], [1, 4]))


@pytest.mark.parametrize(
    ("sizes", "nblocks", "first", "second"),
    [
        ((384, 384), 4, (4, 96, 96), (4, 96, 96)),  # 73,728 weights, half of them
        ((384, 1536), 4, (4, 96, 96), (4, 384, 96)),  # 184,320
        ((1536, 384), 4, (4, 96, 384), (4, 96, 96)),
        ((10, 7), 3, (3, 3, 4), (3, 3, 3)),
    ],
)
def test_sizes_of_the_papers_layer(sizes, nblocks, first, second):
    layer = MonarchLinear(*sizes, nblocks)
    assert (layer.w1.shape, layer.w2.shape) == (first, second)
    assert layer.saving == (layer.w1.numel() + layer.w2.numel()) / (sizes[0] * sizes[1])


def test_initial_values_have_the_width_of_a_block_as_fan_in():
    layer = MonarchLinear(1536, 384, 4)
    for values, fan in ((layer.w1, 384), (layer.w2, 96), (layer.bias, 384)):
        assert 0.95 * fan**-0.5 < values.abs().max() <= fan**-0.5
        assert float(values.detach().std()) == pytest.approx(fan**-0.5 / 3**0.5, rel=0.1)


def test_layer_pads_what_it_reads_and_cuts_what_it_writes(assert_close):
    layer = MonarchLinear(10, 7, 3).double()
    x = torch.randn(2, 5, 10, dtype=torch.float64)
    y = torch.zeros(2, 5, 9, dtype=torch.float64)
    for j in range(3):
        for k in range(3):
            part = x.new_zeros(2, 5, 4)
            part[..., : len(range(4 * k, min(10, 4 * k + 4)))] = x[..., 4 * k : 4 * k + 4]
            y[..., j::3] += part @ layer.w1[k, j::3].T @ layer.w2[j][:, k : k + 1].T if layer.w1.shape[1] == 3 else 0
    assert_close(layer(x), y[..., :7] + layer.bias)
    assert_close(layer(x), layer.to_linear()(x))


@pytest.mark.parametrize(("m", "n", "nblocks", "rank"), [(16, 16, 4, None), (9, 14, 3, 2), (30, 12, 4, None)])
def test_projection_of_a_layer(m, n, nblocks, rank, assert_close):
    linear = nn.Linear(n, m).double()
    layer = MonarchLinear.from_linear(linear, nblocks, rank=rank)
    apart = (layer.dense_weight() - linear.weight).norm() / linear.weight.norm()
    assert float(apart) <= layer.error + 1e-12  # which counts what was put beside the weight, and cut off
    if m % nblocks == n % nblocks == 0:
        assert float(apart) == pytest.approx(layer.error)
    x = torch.randn(4, n, dtype=torch.float64)
    assert_close(layer(x), layer.to_linear()(x))
    exact = MonarchLinear.from_linear(linear, nblocks, rank=min(-(-m // nblocks), -(-n // nblocks)))
    assert_close(exact(x), linear(x))


def test_half_precision_in_and_out(assert_close):
    layer = MonarchLinear(24, 24, 4)
    x = torch.randn(3, 24)
    assert layer(x.bfloat16()).dtype == torch.bfloat16
    assert_close(layer(x.bfloat16()), layer(x.bfloat16().float()))


@pytest.mark.parametrize("n", [16, 48, 85, 512])
@pytest.mark.parametrize("norm", ["ortho", "backward", "forward"])
@pytest.mark.parametrize("inverse", [False, True])
def test_fourier_transform_is_torchs(n, norm, inverse, assert_close):
    x = torch.randn(3, n, dtype=torch.complex128)
    found = MonarchFFT(n, inverse, norm, dtype=torch.float64)(x)
    want = (torch.fft.ifft if inverse else torch.fft.fft)(x, norm=norm)
    assert_close(torch.view_as_real(found.detach()), torch.view_as_real(want))
    single = torch.view_as_real(MonarchFFT(n, inverse, norm)(x.to(torch.complex64)).detach())
    assert (single - torch.view_as_real(want)).abs().max() < 1e-4 * want.abs().max()


def test_only_a_learnable_transform_has_parameters():
    assert len(list(MonarchFFT(16).parameters())) == 2
    fixed = MonarchFFT(16, learnable=False)
    assert not list(fixed.parameters())
    assert {"w1", "w2", "order"} <= set(fixed.state_dict())


@pytest.mark.parametrize("n", [16, 60])
def test_convolution_is_circular(n, assert_close):
    x, kernel = torch.randn(3, n, dtype=torch.float64), torch.randn(n, dtype=torch.float64)
    want = torch.stack([sum(kernel[j] * x[:, (i - j) % n] for j in range(n)) for i in range(n)], 1)
    assert_close(monarch_conv(x, kernel), want)
    found = monarch_conv(x.to(torch.complex64), kernel.float())
    assert found.is_complex()
    assert (found.real - want).abs().max() < 1e-5 * want.abs().max()


def test_order_p_is_linear_in_its_steps(assert_close):
    layer = MonarchOrderP(27, 3).double()
    assert layer.weights.numel() == 3 * 81  # p n^(1 + 1/p)
    x = torch.randn(2, 27, dtype=torch.float64)
    view = x.view(2, 3, 3, 3)
    view = torch.einsum("abij,nabj->nabi", layer.weights[0].view(3, 3, 3, 3), view)
    view = torch.einsum("acij,najc->naic", layer.weights[1].view(3, 3, 3, 3), view)
    view = torch.einsum("bcij,njbc->nibc", layer.weights[2].view(3, 3, 3, 3), view)
    assert_close(layer(x), view.reshape(2, 27))
    assert torch.autograd.gradcheck(layer, (x.requires_grad_(),))


def net():
    return nn.Sequential(MonarchLinear(12, 16, 4), nn.ReLU(), nn.LayerNorm(16), MonarchLinear(16, 6, 2))


def test_densify_keeps_outputs_and_the_state_of_what_stays(assert_close):
    model, x = net(), torch.randn(9, 12)
    slow, fast = [model[2].weight, model[2].bias], [*model[0].parameters(), *model[3].parameters()]
    optimiser = torch.optim.AdamW([{"params": slow, "lr": 1e-3}, {"params": fast, "lr": 1e-2}])
    for _ in range(3):
        optimiser.zero_grad()
        model(x).square().sum().backward()
        optimiser.step()
    before, moments = model(x).detach(), optimiser.state[model[0].bias]["exp_avg"].clone()
    assert reverse_sparsify(model, optimiser) == ["0", "3"]
    assert_close(model(x), before)
    assert all(type(model[i]) is nn.Linear for i in (0, 3))
    assert torch.equal(optimiser.state[model[0].bias]["exp_avg"], moments)
    assert not optimiser.state.get(model[0].weight)
    inside = {id(p) for group in optimiser.param_groups for p in group["params"]}
    assert inside == {id(p) for p in model.parameters()}
    assert [len(group["params"]) for group in optimiser.param_groups] == [2, 4]
    assert len(optimiser.state) == 4  # two biases, and the layer of normalisation
    optimiser.zero_grad()
    model(x).square().sum().backward()
    weight = model[3].weight.detach().clone()
    optimiser.step()
    assert not torch.equal(model[3].weight, weight)


def test_projection_of_a_model_changes_a_copy(assert_close):
    dense = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 6))
    before = copy.deepcopy(dense.state_dict())
    small = d2s_project(dense, 2)
    assert [type(layer).__name__ for layer in small] == ["MonarchLinear", "ReLU", "MonarchLinear"]
    assert small[0].error > 0
    assert torch.equal(small[2].bias, dense[2].bias)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), dense.state_dict().values(), strict=True))
    assert isinstance(d2s_project(nn.Linear(4, 4), 2), MonarchLinear)
    only = d2s_project(dense, 2, layers=["2"])
    assert type(only[0]) is nn.Linear
    exact = d2s_project(dense, 2, rank=3, layers=["2"])
    x = torch.randn(5, 12)
    assert_close(exact(x), dense(x))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: MonarchLinear(8, 8, 0), "nblocks must be an int of at least 1, got 0"),
        (lambda: MonarchLinear(8, 8, 2)(torch.ones(3, 7)), "x has 7 features, the layer reads 8"),
        (lambda: MonarchFFT(13), "only factors 1 and n"),
        (lambda: MonarchFFT(16, norm="unit"), "norm must be one of ortho, backward, forward; got 'unit'"),
        (lambda: MonarchFFT(16)(torch.ones(3, 15)), "x has 15 numbers, the transform is of 16"),
        (lambda: MonarchOrderP(10, 2), "n is 10, which is no power of 2; the nearest are 9 and 16"),
        (lambda: monarch_conv(torch.ones(2, 6), torch.ones(4)), "kernel has 4 numbers, x has 6"),
        (lambda: reverse_sparsify(nn.Sequential(nn.Linear(2, 2))), "no MonarchLinear layer; it is dense already"),
        (lambda: d2s_project(nn.Sequential(nn.ReLU())), "the model has no torch.nn.Linear"),
        (lambda: MonarchLinear.from_linear(nn.Linear(8, 8), 4, rank=3), "rank must be an int from 1 to 2"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_layer_that_stands_in_two_places_stays_one():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model.append(model[0])
    small, x = d2s_project(model, 2), torch.randn(3, 4)
    assert isinstance(small[0], MonarchLinear) and small[2] is small[0]
    optimiser, before = torch.optim.SGD(small.parameters()), small(x)
    assert reverse_sparsify(small, optimiser) == ["0"]
    assert isinstance(small[0], nn.Linear) and small[2] is small[0]
    assert {id(p) for p in optimiser.param_groups[0]["params"]} == {id(p) for p in small.parameters()}
    torch.testing.assert_close(small(x), before)


def test_numbers_of_a_layer_equal_its_parts_by_hand(assert_close):
    layer = MonarchLinear(4, 4, 2, bias=False).double()
    with torch.no_grad():
        layer.w1.copy_(torch.tensor([[[1.0, 2], [3, 4]], [[5, 6], [7, 8]]]))
        layer.w2.copy_(torch.tensor([[[1.0, 0], [0, 1]], [[1, 1], [1, -1]]]))
    # R x = (5, 11 | 17, 23) for x = (1, 2, 1, 2); block 0 of L reads (5, 17), block 1 reads (11, 23).
    assert_close(layer(torch.tensor([1.0, 2, 1, 2], dtype=torch.float64)), np.array([5.0, 34, 17, -12]))
