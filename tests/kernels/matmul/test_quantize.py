"""Quantisation: hand-worked bytes, the reference, and the identity that the folded zero point stands on."""

import numpy as np
import pytest

from kernels.formats.block_groups import BlockGroupedWeight
from kernels.matmul.quantize import (
    fold_zero_point,
    quantize_activation_u8,
    quantize_activation_u8_reference,
    quantize_weight_s8_per_channel,
)
from kernels.matmul.spmm_int8 import spmm_int8


def test_bytes_by_hand():
    x = np.array([[-1.0, 0.0, 0.5, 1.5, 2.5, 254.0, 400.0, -9.0, np.nan]], np.float32)
    q, scale, zero = quantize_activation_u8(x, low=-1, high=254)
    assert (scale, zero) == (1.0, 1)
    assert q.tolist() == [[0, 1, 1, 3, 3, 255, 255, 0, 0]]  # halves to even, then the zero point


@pytest.mark.parametrize("shape", [(1,), (3, 5), (64, 33), (2, 50, 700)])
@pytest.mark.parametrize("shift", [-5, 0, 5])
def test_equals_reference(rng, shape, shift):
    x = (rng.standard_normal(shape) + shift).astype(np.float32)
    q, scale, zero = quantize_activation_u8(x)
    want, want_scale, want_zero = quantize_activation_u8_reference(x)
    assert (scale, zero) == (want_scale, want_zero)
    assert q.dtype == np.uint8
    apart = q != want  # where x / scale is a half up to the rounding of float32
    assert np.abs(q.astype(int) - want).max() <= 1
    assert apart.mean() < 1e-4
    assert np.abs((q.astype(float) - zero) * scale - x).max() <= scale * 0.5001
    for threads in (1, 3):
        np.testing.assert_array_equal(quantize_activation_u8(x, num_threads=threads)[0], q)


def test_range_is_found_at_every_place():
    for size in (1, 15, 16, 17, 40_000, 100_001):
        for at in {0, size // 2, size - 1}:
            for value in (-3.0, 3.0):
                x = np.zeros(size, np.float32)
                x[at] = value
                q, scale, zero = quantize_activation_u8(x)
                assert (scale, zero, q[at]) == (3 / 255, 255 if value < 0 else 0, 0 if value < 0 else 255)
            for value in (np.nan, np.inf, -np.inf):
                x[at] = value
                with pytest.raises(ValueError, match="x must be finite"):
                    quantize_activation_u8(x)


def test_zeros_tiny_values_and_nothing():
    for x in (np.zeros((2, 3), np.float32), np.zeros((0, 4), np.float32)):
        q, scale, zero = quantize_activation_u8(x)
        assert (q.shape, scale, zero, int(q.sum())) == (x.shape, 1.0, 0, 0)
    q, scale, zero = quantize_activation_u8(np.array([1e-40, 0], np.float32))
    assert (scale, zero, q.tolist()) == (1e-30, 0, [0, 0])
    huge = np.array([-3.4e38, 3.4e38], np.float32)
    q, scale, zero = quantize_activation_u8(huge)
    assert np.isfinite(scale)
    assert q.tolist() == [0, 255]


@pytest.mark.parametrize(
    ("x", "options", "error", "told"),
    [
        (np.zeros(3), {}, TypeError, "float32"),
        (np.zeros((3, 3), np.float32).T[1:], {}, ValueError, "C-contiguous"),
        (np.zeros(3, np.float32), {"low": 0}, ValueError, "both or not at all"),
        (np.zeros(3, np.float32), {"high": 1}, ValueError, "both or not at all"),
        (np.zeros(3, np.float32), {"low": 2, "high": 1}, ValueError, "low must be at most high"),
        (np.zeros(3, np.float32), {"low": np.nan, "high": 1}, ValueError, "low must be a finite number"),
    ],
)
def test_activation_refuses(x, options, error, told):
    with pytest.raises(error, match=f"quantize_activation_u8: .*{told}"):
        quantize_activation_u8(x, **options)


def test_weight_by_hand():
    w = np.array([[127, -254, 1, 3, 0], [0, 0, 0, 0, 0], [-1, 0.5, 0.25, 0, 0]], np.float32)
    q, scale = quantize_weight_s8_per_channel(w)
    assert scale.tolist() == [2.0, 1.0, np.float32(1 / 127)]
    assert q.tolist() == [[64, -127, 0, 2, 0], [0] * 5, [-127, 64, 32, 0, 0]]
    assert (q.dtype, scale.dtype) == (np.int8, np.float32)
    assert quantize_weight_s8_per_channel(np.zeros((2, 0)))[1].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("w", "error", "told"),
    [
        (np.zeros(3, np.float32), ValueError, "two-dimensional"),
        (np.full((1, 1), np.nan), ValueError, "finite"),
        (np.full((1, 1), 1e300), ValueError, "scale it down"),
        (np.zeros((1, 1), np.int8), TypeError, "float32 or float64"),
    ],
)
def test_weight_refuses(w, error, told):
    with pytest.raises(error, match=f"quantize_weight_s8_per_channel: .*{told}"):
        quantize_weight_s8_per_channel(w)


def layer(rng):
    kept = np.kron(rng.random((9, 41)) < 0.4, np.ones((4, 1), bool))
    kept[8:12] = False
    w = np.where(kept, rng.standard_normal((36, 41)), 0).astype(np.float32)
    q, scale = quantize_weight_s8_per_channel(w)
    return q, scale, BlockGroupedWeight.from_dense(q)


def test_folding_by_hand():
    weight = BlockGroupedWeight.from_dense(np.array([[1, 0, -3], [0, 0, 5]], np.int8), block=(2, 1))
    step = np.array([0.5, 2], np.float32)
    folded, scale = fold_zero_point(weight, x_scale=0.25, x_zero=10, weight_scale=step, bias=np.array([1.0, 1.25]))
    assert scale.tolist() == [0.125, 0.5]
    assert folded.tolist() == [8 + 20, 2 - 50]  # 1.25 / 0.5 is a half, rounded to even
    for zero in (0, 10, 255):
        folded, _ = fold_zero_point(weight, x_scale=0.25, x_zero=zero, weight_scale=step)
        assert folded.tolist() == [2 * zero, -5 * zero]


def test_quantised_layer_equals_the_product_of_what_the_bytes_stand_for(rng):
    q, weight_scale, weight = layer(rng)
    x = (rng.standard_normal((41, 70)) + 1).astype(np.float32)
    bias = rng.standard_normal(36).astype(np.float32)
    bytes_, x_scale, x_zero = quantize_activation_u8(x)
    folded, scale = fold_zero_point(weight, x_scale=x_scale, x_zero=x_zero, weight_scale=weight_scale, bias=bias)
    found = spmm_int8(weight, bytes_, bias=folded, scale=scale, out_dtype="float32")
    meant = (q * weight_scale[:, None].astype(float)) @ ((bytes_.astype(float) - x_zero) * x_scale) + bias[:, None]
    half_a_step = scale[:, None] / 2  # the bias is rounded to whole steps
    assert np.all(np.abs(found - meant) <= half_a_step * 1.001 + 1e-6 * np.abs(meant).max())


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"weight": np.zeros((36, 41), np.int8)}, TypeError, "BlockGroupedWeight of int8"),
        ({"weight": BlockGroupedWeight.from_dense(np.zeros((36, 1), np.float32))}, TypeError, "BlockGroupedWeight of"),
        ({"x_scale": 0.0}, ValueError, "x_scale"),
        ({"x_zero": 256}, ValueError, "x_zero"),
        ({"weight_scale": np.ones(35, np.float32)}, ValueError, r"shape \(36,\)"),
        ({"weight_scale": np.full(36, np.nan, np.float32)}, ValueError, "above 0"),
        ({"weight_scale": np.full(36, -1, np.float32)}, ValueError, "above 0"),
        ({"x_scale": 1e30, "weight_scale": np.full(36, 1e30, np.float32)}, ValueError, "float32's range"),
        ({"bias": np.full(36, np.inf)}, ValueError, "within int32"),
        ({"bias": np.full(36, 1e12)}, ValueError, "within int32"),
        ({"bias": np.ones(35)}, ValueError, r"shape \(36,\)"),
        ({"bias": np.ones(36, int)}, TypeError, "float32 or float64"),
    ],
)
def test_folding_refuses(rng, change, error, told):
    good = {"weight": layer(rng)[2], "x_scale": 0.5, "x_zero": 3, "weight_scale": np.ones(36, np.float32)}
    fold_zero_point(**good)
    with pytest.raises(error, match=f"fold_zero_point: .*{told}"):
        fold_zero_point(**(good | change))
