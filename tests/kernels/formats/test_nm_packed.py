"""N:M packing against groups worked out by hand, and what it refuses."""

import copy
import pickle

import numpy as np
import pytest

from kernels.formats.nm_packed import NMPacked


def pruned(rows, columns, n, m, rng):
    """Return weights of which a random n of every m stay."""
    w = rng.standard_normal((rows, columns // m, m)).astype(np.float32)
    order = rng.random(w.shape).argsort(-1)
    return np.where(order < n, w, 0).reshape(rows, columns)


def test_groups_worked_out_by_hand():
    a = NMPacked.from_dense(np.array([[0, 5, 0, 6, 0, 0, 0, 7], [-0.0, 0, 0, 0, 1, 2, 0, 0]], np.float32), 2, 4)
    np.testing.assert_array_equal(a.values, [[5, 6, 0, 7], [0, 0, 1, 2]])
    np.testing.assert_array_equal(a.positions, [[1, 3, 0, 3], [0, 1, 0, 1]])
    assert (a.n, a.m, a.shape, a.nbytes) == (2, 4, (2, 8), 8 * 5)
    assert (a.values.dtype, a.positions.dtype) == (np.float32, np.uint8)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (1, 1), (3, 3), (5, 7), (1, 256), (256, 256)])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_round_trip(rows, n, m, rng):
    for groups in (0, 1, 3):
        w = pruned(rows, groups * m, n, m, rng)
        a = NMPacked.from_dense(w, n, m)
        assert a.values.shape == (rows, groups * n)
        np.testing.assert_array_equal(a.to_dense(), w)


def test_strided_input_nan_and_infinity_are_kept(rng):
    w = np.zeros((8, 6), np.float32)
    w[0, 1], w[5, 2] = np.nan, -np.inf
    a = NMPacked.from_dense(w.T, 1, 4)
    np.testing.assert_array_equal(a.to_dense(), w.T)


def test_nobody_can_change_it(rng):
    values, positions = np.ones((1, 2), np.float32), np.array([[0, 3]], np.uint8)
    a = NMPacked(values, positions, 2, 4, (1, 4))
    values[:], positions[:] = 9, 200
    for each in (a, copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
        np.testing.assert_array_equal(each.to_dense(), [[1, 0, 0, 1]])
        for array in (each.values, each.positions):
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.flags.writeable = True
    with pytest.raises(AttributeError):
        a.n = 1


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"values": np.ones((1, 4))}, TypeError, "values must be a NumPy array of float32"),
        ({"positions": np.ones((1, 4), np.int64)}, TypeError, "positions must be a NumPy array of uint8"),
        (
            {"values": np.ones((1, 3), np.float32)},
            ValueError,
            r"values has shape \(1, 3\); 2:4 of 1 x 8 needs \(1, 4\)",
        ),
        ({"shape": (1, 9)}, ValueError, "m must divide the 9 columns"),
        ({"shape": (2, 8)}, ValueError, "values has shape"),
        ({"n": 5}, ValueError, "n must be an int from 1 to 4"),
        ({"n": 0}, ValueError, "n must be an int from 1 to 4"),
        ({"m": 257}, ValueError, "m must be an int from 1 to 256"),
        ({"positions": np.array([[0, 4, 0, 1]], np.uint8)}, ValueError, "positions must lie in"),
        ({"positions": np.array([[0, 1, 2, 2]], np.uint8)}, ValueError, "rise strictly"),
        ({"positions": np.array([[0, 1, 2, 1]], np.uint8)}, ValueError, "rise strictly"),
    ],
)
def test_malformed_parts_are_named(change, error, told):
    good = {"values": np.ones((1, 4), np.float32), "positions": np.array([[0, 1, 0, 3]], np.uint8), "n": 2, "m": 4}
    NMPacked(**good, shape=(1, 8))
    with pytest.raises(error, match=f"^NMPacked: .*{told}"):
        NMPacked(**({"shape": (1, 8)} | good | change))


@pytest.mark.parametrize(
    ("w", "n", "error", "told"),
    [
        (np.ones((2, 8)), 2, TypeError, "float32, got float64"),
        (np.ones(8, np.float32), 2, ValueError, "two dimensions"),
        (np.ones((2, 6), np.float32), 4, ValueError, "m must divide the 6 columns"),
        (np.float32([[1, 0, 0, 0, 0, 1, 1, 1]]), 2, ValueError, r"w\[0, 4:8\] has more than 2 values"),
        (np.float32([[1, 0, 0, 0, 0, 1, 1, 1]]), 2.0, TypeError, "n must be an int"),
    ],
)
def test_what_cannot_be_packed_is_named(w, n, error, told):
    with pytest.raises(error, match=f"^NMPacked.from_dense: .*{told}"):
        NMPacked.from_dense(w, n, 4)
