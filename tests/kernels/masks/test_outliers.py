"""Outliers: how many, which, exact values, what fills their places."""

import numpy as np
import pytest

from kernels.masks.outliers import extract_outliers, extract_outliers_reference, outlier_count


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
def test_outliers_equal_the_reference(axis, share, rng, assert_close):
    x = rng.standard_normal((20, 31, 42)).astype(np.float32)
    filled, found = extract_outliers(x, share, axis=axis)
    wanted, gone = extract_outliers_reference(x, share, axis)
    each = int(x.shape[axis] * share / 2 + 1e-9)
    assert found.places.shape[-1] == found.values.shape[-1] == 2 * each
    assert_close(filled, wanted.astype(np.float32))
    mask = np.zeros(np.moveaxis(x, axis, -1).shape, bool)
    np.put_along_axis(mask, found.places.astype(np.int64), True, -1)
    np.testing.assert_array_equal(np.moveaxis(mask, -1, axis), gone)
    np.testing.assert_array_equal(
        found.values, np.take_along_axis(np.moveaxis(x, axis, -1), found.places.astype(np.int64), -1)
    )


def test_two_entries_worked_by_hand():
    x = np.array([[1, 9, 3, -7, 2, 4]], np.float32)  # the mean is 2
    filled, found = extract_outliers(x, 0.34)
    np.testing.assert_array_equal(found.places, [[1, 3]])
    np.testing.assert_array_equal(found.values, [[9, -7]])
    np.testing.assert_array_equal(filled, [[1, 2, 3, 2, 2, 4]])
    assert found.places.dtype == np.uint16


def test_equal_entries_go_once_each_lowest_index_first():
    filled, found = extract_outliers(np.full((1, 10), 5, np.float32), 0.4)
    np.testing.assert_array_equal(found.places, [[0, 1, 2, 3]])
    np.testing.assert_array_equal(filled, np.full((1, 10), 5))


def test_counts():
    assert outlier_count(64, 0.02) == 0 and outlier_count(100, 0.02) == 1 and outlier_count(4096, 0.02) == 40
    assert outlier_count(64, 0.02, at_least=3) == 3 and outlier_count(5, 1.0, at_least=9) == 2


def test_places_take_32_bits_beyond_65536_entries():
    x = np.zeros((1, 2**16 + 2), np.float32)
    x[0, -1], x[0, -2] = 3, -3
    _, found = extract_outliers(x, 2 / x.size * 1.01)
    assert found.places.dtype == np.uint32 and found.places.tolist() == [[2**16, 2**16 + 1]]


def test_bad_input_is_named(rng):
    x = rng.standard_normal((3, 8)).astype(np.float32)
    with pytest.raises(TypeError, match="extract_outliers: x must be a NumPy array of float32"):
        extract_outliers(x.astype(np.float64), 0.1)
    with pytest.raises(ValueError, match=r"share must be a finite number from 0 to 1, got 1\.5"):
        extract_outliers(x, 1.5)
    x[1, 2] = np.nan
    for share in (0.0, 0.5):
        with pytest.raises(ValueError, match="extract_outliers: x must hold no NaN"):
            extract_outliers(x, share)
