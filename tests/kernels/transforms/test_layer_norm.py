"""Layer normalisation of columns against its reference, torch, and by hand."""

import numpy as np
import pytest
import torch

from kernels.transforms.layer_norm import (
    layer_norm_columns,
    layer_norm_columns_reference,
    layer_norm_columns_work,
)


@pytest.mark.parametrize("n", [0, 1, 3, 15, 16, 17, 64, 65, 130, 1000])
@pytest.mark.parametrize("width", [1, 2, 33, 384])
def test_it_equals_the_reference_and_torch(width, n, rng, assert_close):
    x = (3 * rng.standard_normal((width, n)) + 2).astype(np.float32)
    weight, bias = rng.standard_normal((2, width)).astype(np.float32)
    found = layer_norm_columns(x, weight, bias, eps=1e-3)
    assert_close(found, layer_norm_columns_reference(x, weight, bias, 1e-3))
    wanted = torch.nn.functional.layer_norm(
        torch.from_numpy(x.T.copy()), (width,), *map(torch.from_numpy, (weight, bias)), 1e-3
    )
    assert_close(found, wanted.numpy().T)


def test_a_column_by_hand():
    x = np.array([[1.0, 5], [3, 5], [5, 5], [7, 5]], np.float32)  # mean 4, variance 5; and equal values
    found = layer_norm_columns(x, np.full(4, 2, np.float32), np.arange(4, dtype=np.float32), eps=4.0)
    np.testing.assert_allclose(found[:, 0], [-2, 1 - 2 / 3, 2 + 2 / 3, 3 + 2], rtol=1e-6)
    np.testing.assert_allclose(found[:, 1], [0, 1, 2, 3], rtol=1e-6)


def test_a_large_mean_leaves_the_variance_exact_enough(rng):
    x = (1000 + rng.standard_normal((384, 40))).astype(np.float32)
    ones = np.ones(384, np.float32)
    found = layer_norm_columns(x, ones, 0 * ones)
    assert np.abs(found - layer_norm_columns_reference(x, ones, 0 * ones)).max() < 2e-3


def test_nan_and_infinity_stay_in_their_column(rng):
    x = rng.standard_normal((20, 70)).astype(np.float32)
    x[3, 5], x[7, 66], x[0, 69] = np.nan, np.inf, -np.inf
    found = layer_norm_columns(x, *np.ones((2, 20), np.float32))
    assert np.flatnonzero(np.isnan(found).all(axis=0)).tolist() == [5, 66, 69]
    assert np.isnan(found).any(axis=0).sum() == 3
    assert np.isnan(layer_norm_columns(np.ones((4, 2), np.float32), *np.ones((2, 4), np.float32), eps=0)).all()


def test_same_bits_for_any_thread_count_and_place(rng):
    x = rng.standard_normal((100, 900)).astype(np.float32)
    weight, bias = rng.standard_normal((2, 100)).astype(np.float32)
    whole = layer_norm_columns(x, weight, bias, num_threads=1)
    np.testing.assert_array_equal(layer_norm_columns(x, weight, bias, num_threads=3), whole)
    part = np.ascontiguousarray(x[:, 896:])  # fewer columns than a vector has
    np.testing.assert_array_equal(layer_norm_columns(part, weight, bias), whole[:, 896:])


def test_work_counts():
    work = layer_norm_columns_work(10, 6)
    assert (work.flops, work.bytes_streamed, work.gathers) == (480, 10 * 6 * 8 + 80, 0)


def test_bad_input_is_named(rng):
    x, row = np.zeros((4, 6), np.float32), np.zeros(4, np.float32)
    with pytest.raises(TypeError, match="x must be a NumPy array of float32, got float64"):
        layer_norm_columns(x.astype(float), row, row)
    with pytest.raises(ValueError, match=r"weight must be contiguous and of shape \(4,\), got \(3,\)"):
        layer_norm_columns(x, row[:3], row)
    with pytest.raises(ValueError, match="bias must be contiguous"):
        layer_norm_columns(x, row, np.zeros(8, np.float32)[::2])
    with pytest.raises(ValueError, match="C-contiguous"):
        layer_norm_columns(x.T, np.zeros(6, np.float32), np.zeros(6, np.float32))
    with pytest.raises(ValueError, match="have a row"):
        layer_norm_columns(x[:0], row[:0], row[:0])
    with pytest.raises(ValueError, match="eps"):
        layer_norm_columns(x, row, row, eps=-1)
