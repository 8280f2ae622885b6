"""The int8 layer against dequantised products in float64."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from kernels.matmul.quantize import quantize_activation_u8
from kernels.matmul.spmm_int8 import spmm_int8
from workbench.models.sparse_inference.sparse_linear import SparseLinear


def linear(inputs=24, outputs=16, bias=True, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs, bias=bias)


def inputs(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dequantised(layer, x):
    """Return W x + b with the layer's own quantised weight and inputs, in float64."""
    q, scale, zero = quantize_activation_u8(np.ascontiguousarray(x.numpy().T), low=layer.low, high=layer.high)
    weight = layer.weight.to_dense() * layer.weight_scale[:, None].astype(np.float64)
    bias = 0 if layer.bias is None else layer.bias[:, None].astype(np.float64)
    return (weight @ (scale * (q.astype(np.float64) - zero)) + bias).T


@pytest.mark.parametrize("range_", [None, (-3.0, 3.5), (0.5, 2.0)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("block", [(4, 1), (2, 2), (1, 4)])
def test_the_zero_point_is_folded_into_the_bias(block, bias, range_):
    low, high = range_ or (None, None)
    layer = SparseLinear.from_linear(linear(bias=bias), sparsity=0.5, block=block, low=low, high=high)
    x = inputs(9, 24)
    want = dequantised(layer, x)
    step = float(layer.weight_scale.max()) * 6.5 / 255  # of the sums: the bias is rounded to half of it
    np.testing.assert_allclose(layer(x).numpy(), want, rtol=1e-4, atol=step)


def test_it_is_near_the_pruned_layer_in_float():
    dense = linear(256, 64)
    layer = SparseLinear.from_linear(dense, sparsity=0.75)
    pruned = copy.deepcopy(dense)
    kept = torch.from_numpy(layer.weight.to_dense() != 0)
    pruned.weight.data.mul_(kept)
    x = inputs(32, 256)
    with torch.no_grad():
        want = pruned(x)
    assert (layer(x) - want).norm() < 0.015 * want.norm()


def test_pruned_by_size_of_whole_blocks():
    dense = linear()
    layer = SparseLinear.from_linear(dense, sparsity=0.5)
    worth = dense.weight.detach().abs().reshape(4, 4, 24).mean(1)
    kept = (layer.weight.to_dense().reshape(4, 4, 24) != 0).any(1)
    assert layer.sparsity == 0.5
    assert worth[kept].min() > worth[~torch.from_numpy(kept)].max()


def test_without_a_sparsity_it_takes_the_zeros_that_there_are():
    dense = linear()
    with torch.no_grad():
        dense.weight[4:12, 3:] = 0
    layer = SparseLinear.from_linear(dense)
    assert layer.sparsity == pytest.approx(2 * 21 / 96)
    assert layer.nbytes == layer.weight.nbytes + 2 * 64
    without = SparseLinear.from_linear(linear(bias=False))
    assert without.nbytes == without.weight.nbytes + 64
    assert "24, out_features=16, 43.8% 4x1 sparse" in repr(layer)


def test_an_empty_layer_gives_its_bias():
    dense = linear()
    dense.weight.data.zero_()
    x = inputs(3, 24)
    layer = SparseLinear.from_linear(dense)
    # In whole steps of the sums; a row of zeros has step 1.
    torch.testing.assert_close(layer(x), dense.bias.detach().expand(3, 16), rtol=0, atol=float(x.max() - x.min()) / 510)


def test_shapes_layouts_and_gradients():
    layer = SparseLinear.from_linear(linear(), sparsity=0.5, low=-3, high=3)
    x = inputs(2, 5, 24)
    out = layer(x)
    assert out.shape == (2, 5, 16) and not out.requires_grad
    torch.testing.assert_close(layer(x[1, 3]), out[1, 3], rtol=0, atol=0)
    torch.testing.assert_close(layer(x.transpose(0, 1)), out.transpose(0, 1), rtol=0, atol=0)
    torch.testing.assert_close(layer(x.clone().requires_grad_(True)), out, rtol=0, atol=0)
    assert layer(x[:0]).shape == (0, 5, 16)
    with pytest.raises(ValueError, match=r"24 features, got shape \(5, 48\)"):
        layer(inputs(5, 48))
    for other in (torch.float64, torch.bfloat16):
        with pytest.raises(TypeError, match=r"must be float32, got torch\.\w+; pass x\.float"):
            layer(x.to(other))


def test_inputs_beyond_the_range_are_cut():
    layer = SparseLinear.from_linear(linear(), sparsity=0.5, low=-1, high=1)
    torch.testing.assert_close(layer(inputs(4, 24) * 100), layer((inputs(4, 24) * 100).clamp(-1, 1)), rtol=0, atol=0)


def test_a_new_range_is_not_given_the_old_bias():
    layer = SparseLinear.from_linear(linear(), sparsity=0.5)
    first, second = inputs(6, 24), inputs(6, 24, seed=2) * 7 + 3
    before = layer(first)
    np.testing.assert_allclose(layer(second).numpy(), dequantised(layer, second), rtol=1e-3, atol=0.05)
    torch.testing.assert_close(layer(first), before, rtol=0, atol=0)


def test_columns_take_the_kernels_epilogue():
    layer = SparseLinear.from_linear(linear(), sparsity=0.5, low=-3, high=3)
    q, scale, zero = quantize_activation_u8(np.ascontiguousarray(inputs(7, 24).numpy().T), low=-3, high=3)
    plain = layer.columns(q, scale, zero)
    assert plain.dtype == np.float32 and plain.shape == (16, 7)
    residual = np.ones_like(plain)
    np.testing.assert_allclose(layer.columns(q, scale, zero, append=residual, post=("relu",)),
                               np.maximum(plain + 1, 0), rtol=1e-6)  # fmt: skip
    assert layer.columns(q, scale, zero, out_dtype="uint8", out_scale=0.02, out_zero=3).dtype == np.uint8
    sums = spmm_int8(layer.weight, q)
    assert np.array_equal(sums, layer.weight.to_dense().astype(np.int32) @ q.astype(np.int32))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"block": (4, 3)}, "1, 2 or 4 inputs wide"),
        ({"block": (3, 1)}, "multiple of the block"),
        ({"low": 0.0}, "both or not at all"),
        ({"low": 2.0, "high": 1.0}, "high"),
        ({"sparsity": 1.5}, "sparsity"),
    ],
)
def test_what_cannot_be_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        SparseLinear.from_linear(linear(), **wrong)
