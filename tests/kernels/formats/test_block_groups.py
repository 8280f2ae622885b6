"""BlockGroupedWeight: hand-worked groups, there and back, bytes, and what it refuses."""

import dataclasses

import numpy as np
import pytest

from kernels.formats.block_groups import BlockGroupedWeight


def block_sparse(rng, m, k, block, density, dtype=np.int8):
    br, bc = block
    kept = np.kron(rng.random((m // br, k // bc)) < density, np.ones(block, bool))
    return np.where(kept, rng.integers(-127, 128, (m, k)), 0).astype(dtype)


def test_groups_by_hand():
    w = np.zeros((8, 9), np.int8)
    w[4:, [0, 2, 3, 5, 8]] = np.arange(1, 21).reshape(4, 5)
    weight = BlockGroupedWeight.from_dense(w)
    assert weight.indptr.tolist() == [0, 0, 2]
    assert weight.indices.tolist() == [0, 2, 3, 5, 8, 8, 8, 8]
    assert weight.data[0].tolist() == [[1, 2, 3, 4], [6, 7, 8, 9], [11, 12, 13, 14], [16, 17, 18, 19]]
    assert weight.data[1].tolist() == [[5, 0, 0, 0], [10, 0, 0, 0], [15, 0, 0, 0], [20, 0, 0, 0]]
    assert (weight.nnz_blocks, weight.padding) == (5, 3)
    assert weight.nbytes == 3 * 8 + 8 * 2 + 32
    assert weight.positions is weight.indices


def test_wide_blocks_by_hand():
    w = np.zeros((2, 8), np.int8)
    w[1, 5], w[1, 6], w[0, 0] = 7, 9, 3
    weight = BlockGroupedWeight.from_dense(w, block=(2, 2), group=2)
    assert weight.indices.tolist() == [0, 2, 3, 3]
    assert weight.data.tolist() == [[[3, 0, 0, 0], [0, 0, 0, 7]], [[0, 0, 0, 0], [9, 0, 0, 0]]]
    assert weight.positions.tolist() == [0, 1, 4, 5, 6, 7, 6, 7]
    assert weight.positions.dtype == np.uint16


@pytest.mark.parametrize("dtype", [np.int8, np.float32])
@pytest.mark.parametrize(
    ("block", "group"), [((4, 1), 4), ((8, 1), 4), ((1, 1), 3), ((1, 4), 1), ((2, 2), 2), ((3, 1), 5)]
)
def test_there_and_back(rng, block, group, dtype):
    for rows, columns, density in ((5, 7, 0.3), (1, 1, 1), (6, 9, 0), (4, 8, 1), (0, 3, 1), (3, 0, 1), (20, 50, 0.02)):
        w = block_sparse(rng, rows * block[0], columns * block[1], block, density, dtype)
        weight = BlockGroupedWeight.from_dense(w, block=block, group=group)
        np.testing.assert_array_equal(weight.to_dense(), w)
        assert weight.to_dense().dtype == weight.data.dtype == dtype
        kept = (w.reshape(rows, block[0], columns, block[1]) != 0).any(axis=(1, 3))
        assert weight.nnz_blocks == kept.sum()
        np.testing.assert_array_equal(weight.row_sums, w.sum(axis=1, dtype=float))
        assert weight.padding == -kept.sum(axis=1) @ np.ones(rows, int) + group * int(weight.indptr[-1])
        assert np.array_equal(np.diff(weight.indptr), -(-kept.sum(axis=1) // group))


def test_indices_take_two_bytes_up_to_65536_columns():
    for columns, dtype in ((1 << 16, np.uint16), ((1 << 16) + 1, np.int32)):
        w = np.zeros((1, columns), np.int8)
        w[0, -1] = 5
        weight = BlockGroupedWeight.from_dense(w, block=(1, 1))
        assert weight.indices.dtype == dtype
        assert weight.indices.tolist() == [columns - 1] * 4
        assert weight.nbytes == 16 + 4 * np.dtype(dtype).itemsize + 4
        np.testing.assert_array_equal(weight.to_dense(), w)


def test_what_counts_for_the_index_dtype_are_columns_of_blocks():
    weight = BlockGroupedWeight.from_dense(np.ones((1, 1 << 17), np.int8), block=(1, 2), group=2)
    assert (weight.indices.dtype, weight.positions.dtype) == (np.uint16, np.int32)
    assert weight.positions.tolist() == list(range(1 << 17))


def test_nan_is_kept_and_an_empty_row_after_the_last_group_is_empty():
    w = np.zeros((8, 4), np.float32)
    w[0, 1] = np.nan
    weight = BlockGroupedWeight.from_dense(w)
    assert weight.indptr.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(weight.to_dense(), w)


def good():
    w = np.zeros((8, 9), np.int8)
    w[0, [1, 2, 4, 5, 7]], w[7, 3] = 1, 2
    return BlockGroupedWeight.from_dense(w)


INDICES = good().indices
LOW, TWICE, EARLY, FELL, WHOLE = (INDICES.copy() for _ in range(5))
LOW[0] = 9
TWICE[2] = 2
EARLY[5] = 8
FELL[4] = 3
WHOLE[4:8] = 5
FILLED = good().data.copy()
FILLED[1, 0, 3] = 1


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"indptr": np.array([0, 2, 2])}, ValueError, "groups need data"),
        ({"indptr": np.array([1, 2, 3])}, ValueError, "indptr must rise"),
        ({"indptr": np.array([0, 4, 3])}, ValueError, "indptr must rise"),
        ({"indptr": np.array([0, 3])}, ValueError, "indptr must rise"),
        ({"indptr": np.array([0, 2, 3], np.int32)}, TypeError, "indptr must be a NumPy array of int64"),
        ({"indices": INDICES.astype(np.int32)}, TypeError, "indices must be a NumPy array of uint16"),
        ({"indices": INDICES[:-1]}, ValueError, "12 indices"),
        ({"indices": np.repeat(INDICES, 2)[::2]}, ValueError, "contiguous"),
        ({"indices": LOW}, ValueError, r"\[0, 9\)"),
        ({"indices": TWICE}, ValueError, "must rise"),
        ({"indices": EARLY}, ValueError, "must rise"),
        ({"indices": FELL}, ValueError, "must rise"),
        ({"indices": WHOLE}, ValueError, "must rise"),
        ({"data": FILLED}, ValueError, "must be 0"),
        ({"data": good().data.astype(np.int16)}, TypeError, "int8 or float32"),
        ({"data": good().data[:, :, :3]}, ValueError, "contiguous"),
        ({"data": good().data[:2]}, ValueError, "need data of shape"),
        ({"shape": (9, 9)}, ValueError, "9 rows must be a multiple"),
        ({"shape": (8, 9.0)}, TypeError, "must be an int"),
        ({"block": (4,)}, ValueError, "block must be 2 ints"),
        ({"group": 0}, ValueError, "group must be"),
        ({"nnz_blocks": 5}, ValueError, "nnz_blocks is 5, the indices hold 6"),
    ],
)
def test_refuses(change, error, told):
    fields = {field.name: getattr(good(), field.name) for field in dataclasses.fields(BlockGroupedWeight)}
    BlockGroupedWeight(**fields)
    with pytest.raises(error, match=f"BlockGroupedWeight: .*{told}"):
        BlockGroupedWeight(**(fields | change))


@pytest.mark.parametrize(
    ("w", "options", "error", "told"),
    [
        (np.zeros((6, 4), np.int8), {}, ValueError, "6 rows must be a multiple of the block's 4"),
        (np.zeros((4, 6), np.int8), {"block": (1, 4)}, ValueError, "6 columns must be a multiple"),
        (np.zeros(4, np.int8), {}, ValueError, "two-dimensional"),
        (np.zeros((4, 4)), {}, TypeError, "int8 or float32"),
        (np.ma.masked_array(np.zeros((4, 4), np.int8)), {}, TypeError, "masked"),
        (np.zeros((4, 4), np.int8), {"block": (4, 0)}, ValueError, "each of block"),
        (np.zeros((4, 4), np.int8), {"group": 2.0}, TypeError, "group must be an int"),
    ],
)
def test_from_dense_refuses(w, options, error, told):
    with pytest.raises(error, match=f"BlockGroupedWeight.from_dense: .*{told}"):
        BlockGroupedWeight.from_dense(w, **options)
