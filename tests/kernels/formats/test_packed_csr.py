"""Packing of CSR against cells worked out by hand, and what it refuses."""

import copy
import pickle

import numpy as np
import pytest
from scipy import sparse

from kernels.formats import packed_csr
from kernels.formats.packed_csr import PackedCSR


def random_csr(m, k, density, rng, index=np.int32, dtype=np.float32):
    a = sparse.random_array((m, k), density=density, format="csr", dtype=dtype, rng=rng)
    a.sort_indices()
    return sparse.csr_array((a.data, a.indices.astype(index), a.indptr.astype(index)), shape=a.shape)


@pytest.fixture
def three_columns(monkeypatch):
    """Blocks of three columns, so that cells can be worked out by hand."""
    monkeypatch.setattr(packed_csr, "BLOCK", 3)


def test_cells_worked_out_by_hand(three_columns):
    dense = np.zeros((258, 5), np.float32)
    dense[0] = [0, 1, 0, 2, 3]
    dense[2] = [4, 0, 5, 0, 0]
    dense[255] = [6, 7, 8, 0, 9]
    dense[257] = [0, 0, 0, 10, 11]
    a = PackedCSR.from_csr(sparse.csr_array(dense))
    np.testing.assert_array_equal(a.cells, [[0, 0], [3, 6], [5, 9], [5, 9], [6, 11]])  # (tile, block): 00 01 10 11
    np.testing.assert_array_equal(a.rows, [255, 2, 0, 0, 255, 1])
    np.testing.assert_array_equal(a.lengths, [3, 2, 1, 2, 1, 2])
    np.testing.assert_array_equal(a.columns, [0, 1, 2, 0, 2, 1, 0, 1, 1, 0, 1])
    np.testing.assert_array_equal(a.values, [6, 7, 8, 4, 5, 1, 2, 3, 9, 10, 11])
    assert (a.block, a.shape, a.dtype) == (3, (258, 5), np.float32)
    assert a.nbytes == 11 * 5 + 6 * 2 + 5 * 16
    np.testing.assert_array_equal(a.to_csr().toarray(), dense)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize(
    ("m", "k", "density"),
    [(0, 5, 0), (5, 0, 0), (1, 1, 1), (7, 96, 0.5), (256, 97, 1), (257, 300, 0.02), (600, 1000, 0.3), (513, 200, 0)],
)
def test_round_trip(m, k, density, index, dtype, rng):
    a = random_csr(m, k, density, rng, index, dtype)
    a.data[: a.nnz // 3] = [0, np.nan, np.inf][m % 3]  # zeros are kept, too
    found = PackedCSR.from_csr(a).to_csr()
    assert found.dtype == dtype and found.shape == (m, k)
    for part in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(found, part), getattr(a, part))


def test_spare_room_behind_the_last_entry_is_left_out(rng):
    a = random_csr(9, 20, 0.5, rng)
    roomy = sparse.csr_array((np.r_[a.data, a.data], np.r_[a.indices, a.indices], a.indptr), shape=a.shape)
    assert PackedCSR.from_csr(roomy).values.size == a.nnz
    np.testing.assert_array_equal(PackedCSR.from_csr(roomy).to_csr().toarray(), a.toarray())


def test_nobody_can_change_it(rng):
    csr = random_csr(30, 20, 0.5, rng)
    a, dense = PackedCSR.from_csr(csr), csr.toarray()
    csr.data[:] = 9
    for each in (a, copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
        np.testing.assert_array_equal(each.to_csr().toarray(), dense)
        for name in ("values", "columns", "rows", "lengths", "cells"):
            with pytest.raises(ValueError, match="WRITEABLE"):
                getattr(each, name).flags.writeable = True
    with pytest.raises(AttributeError):
        a.block = 4


# Rows 0, 1 and 3 of 4; columns 0..2 and 3..4 in two cells.
GOOD = {
    "values": np.ones(8, np.float32),
    "columns": np.array([0, 1, 2, 0, 2, 1, 0, 1], np.uint8),
    "rows": np.array([0, 1, 3, 2], np.uint8),
    "lengths": np.array([3, 2, 1, 2], np.uint8),
    "cells": np.array([[0, 0], [3, 6], [4, 8]]),
    "block": 3,
    "shape": (4, 5),
}


def changed(name, where, value):
    array = GOOD[name].copy()
    array[where] = value
    return {name: array}


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"values": np.ones(8, np.float16)}, TypeError, "values must be a NumPy array of float32 or float64"),
        ({"columns": np.ones(8, np.int64)}, TypeError, "columns must be a NumPy array of uint8"),
        ({"cells": GOOD["cells"].astype(np.int32)}, TypeError, "cells must be a NumPy array of int64"),
        ({"rows": GOOD["rows"].reshape(2, 2)}, ValueError, "rows has 2 dimensions; use PackedCSR.from_csr"),
        ({"block": 256}, ValueError, "block must be an int from 1 to 255"),
        ({"block": 0}, ValueError, "block must be an int from 1 to 255"),
        ({"shape": (4, 7)}, ValueError, r"cells has shape \(3, 2\); 3 cells need \(4, 2\)"),
        ({"shape": (4,)}, ValueError, "shape must be 2 ints"),
        ({"rows": GOOD["rows"][:3]}, ValueError, "3 rows and 4 lengths"),
        ({"values": np.ones(7, np.float32)}, ValueError, "7 values and 8 columns"),
        (changed("cells", (1, 0), 5), ValueError, "must rise from 0 to the 4 segments"),
        (changed("cells", (0, 0), 1), ValueError, "must rise from 0 to the 4 segments"),
        (changed("cells", (2, 0), 3), ValueError, "must rise from 0 to the 4 segments"),
        (changed("cells", (1, 1), 5), ValueError, "must be the sums of lengths"),
        (changed("cells", (2, 1), 7), ValueError, "must be the sums of lengths"),
        (changed("lengths", 3, 1), ValueError, "must be the sums of lengths"),
        (changed("lengths", slice(0, 3), [2, 3, 1]), ValueError, "never rise within a cell"),
        (changed("lengths", slice(0, 3), [3, 3, 0]), ValueError, "at least 1"),
        (changed("rows", 1, 0), ValueError, "rows must differ within a cell"),
        (changed("rows", 3, 4), ValueError, "lie within the 4 of the matrix"),
        (changed("columns", 1, 2), ValueError, "columns must rise strictly"),
        (changed("columns", 0, 1), ValueError, "columns must rise strictly"),
        (changed("columns", 5, 3), ValueError, "lie in its block of 3 columns"),
        (changed("columns", 7, 2), ValueError, "or in the matrix, which has 5"),
    ],
)
def test_malformed_parts_are_named(change, error, told):
    PackedCSR(**GOOD)
    with pytest.raises(error, match=f"^PackedCSR: .*{told}"):
        PackedCSR(**(GOOD | change))


def test_what_cannot_be_packed_is_named(rng):
    with pytest.raises(TypeError, match=r"^PackedCSR.from_csr: a must be a scipy.sparse csr_array or csr_matrix"):
        PackedCSR.from_csr(np.eye(3))
    unsorted = sparse.csr_array((np.ones(2, np.float32), [1, 0], [0, 2]), shape=(1, 2))
    twice = sparse.csr_array((np.ones(2, np.float32), [1, 1], [0, 2]), shape=(1, 2))
    for a in (unsorted, twice):
        with pytest.raises(ValueError, match=r"^PackedCSR.from_csr: .*a.sum_duplicates\(\)"):
            PackedCSR.from_csr(a)
    with pytest.raises(ValueError, match=r"^PackedCSR.from_csr: a has 0 entries in \d+ cells"):
        PackedCSR.from_csr(sparse.csr_array((3, 2**40), dtype=np.float32))
    outside = sparse.csr_array((np.ones(1, np.float32), [5], [0, 1]), shape=(1, 9))
    outside.indices[0] = 9
    with pytest.raises(ValueError, match="not a valid CSR"):
        PackedCSR.from_csr(outside)
