"""SpMM of blocks (BSR): the product of dense matrices, bfloat16, odd shapes, and what it refuses."""

import numpy as np
import pytest
import torch
from scipy import sparse

from kernels.check import as_bsr
from kernels.matmul.bsr_spmm import bsr_spmm, bsr_spmm_reference, bsr_spmm_work

SHAPES = [(4, 1), (16, 1), (4, 4), (16, 16), (32, 32), (1, 1), (3, 5), (7, 2), (1, 4)]


def blocks(rng, rows, columns, shape, density=0.3):
    kept = np.kron(rng.random((rows, columns)) < density, np.ones(shape, bool))
    return sparse.bsr_array(np.where(kept, rng.standard_normal(kept.shape), 0).astype(np.float32), blocksize=shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [1, 64, 131])
def test_equals_the_dense_product(rng, assert_close, shape, n):
    for rows, columns, density in ((9, 20, 0.3), (1, 1, 1), (3, 4, 0)):
        a = blocks(rng, rows, columns, shape, density)
        b = rng.standard_normal((a.shape[1], n)).astype(np.float32)
        found = bsr_spmm(a, b)
        assert found.dtype == np.float32
        want = a.toarray().astype(np.float64) @ b
        assert_close(found, want)
        assert_close(bsr_spmm_reference(a, b), want.astype(np.float64))


@pytest.mark.parametrize("shape", [(4, 1), (4, 4), (3, 5)])
def test_bfloat16_is_what_its_bits_say(rng, assert_close, shape):
    a = blocks(rng, 9, 20, shape)
    b = rng.standard_normal((a.shape[1], 70)).astype(np.float32)
    half = torch.from_numpy(a.data).bfloat16()
    a16 = sparse.bsr_array((half.view(torch.uint16).numpy(), a.indices, a.indptr), shape=a.shape)
    a32 = sparse.bsr_array((half.float().numpy(), a.indices, a.indptr), shape=a.shape)
    np.testing.assert_array_equal(bsr_spmm(a16, b), bsr_spmm(a32, b))
    assert_close(bsr_spmm_reference(a16, b), a32.toarray().astype(np.float64) @ b)


def test_duplicates_disorder_and_wide_indices(assert_close):
    data = np.arange(1, 9, dtype=np.float32).reshape(4, 2, 1)
    b = np.arange(6, dtype=np.float32).reshape(3, 2) + 1
    want = [
        [1 * 5 + 3 * 1 + 5 * 5, 1 * 6 + 3 * 2 + 5 * 6],
        [2 * 5 + 4 * 1 + 6 * 5, 2 * 6 + 4 * 2 + 6 * 6],
        [0, 0],
        [0, 0],
        [21, 28],
        [24, 32],
    ]
    for index in (np.int32, np.int64):
        a = sparse.bsr_array((data, np.array([2, 0, 2, 1], index), np.array([0, 3, 3, 4], index)), shape=(6, 3))
        a.indices, a.indptr = a.indices.astype(index), a.indptr.astype(index)
        assert_close(bsr_spmm(a, b), np.array(want, np.float32))
        assert bsr_spmm(sparse.bsr_matrix(a), b).shape == (6, 2)


def test_empty_sizes():
    for m, k, n in ((0, 4, 3), (4, 0, 3), (4, 4, 0)):
        a = sparse.bsr_array((m, k), blocksize=(2, 2), dtype=np.float32)
        found = bsr_spmm(a, np.ones((k, n), np.float32))
        assert found.shape == (m, n)
        assert not found.any()


def test_nan_and_infinity_stay_in_their_rows_and_columns():
    a = sparse.bsr_array(np.kron(np.eye(3, dtype=np.float32), np.ones((2, 2), np.float32)), blocksize=(2, 2))
    b = np.ones((6, 66), np.float32)
    b[0, 1], b[5, 65] = np.nan, np.inf
    found = bsr_spmm(a, b)
    assert np.argwhere(np.isnan(found)).tolist() == [[0, 1], [1, 1]]
    assert np.argwhere(np.isinf(found)).tolist() == [[4, 65], [5, 65]]


def test_threads_change_no_bit(rng):
    a = blocks(rng, 200, 300, (4, 1))
    b = rng.standard_normal((300, 333)).astype(np.float32)
    first = bsr_spmm(a, b, num_threads=1)
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(bsr_spmm(a, b, num_threads=threads), first)


def test_spare_room_behind_the_last_block_is_not_read(rng):
    a = blocks(rng, 5, 6, (4, 1))
    b = rng.standard_normal((6, 5)).astype(np.float32)
    roomy = a.copy()
    roomy.data = np.concatenate([a.data, np.full((2, 4, 1), np.nan, np.float32)])
    roomy.indices = np.concatenate([a.indices, np.array([99, -1], a.indices.dtype)])
    np.testing.assert_array_equal(bsr_spmm(roomy, b), bsr_spmm(a, b))
    assert as_bsr(roomy, function="f", name="a").data.shape == a.data.shape
    assert bsr_spmm_work(roomy, 5) == bsr_spmm_work(a, 5)


def test_work():
    a = sparse.bsr_array(np.kron(np.eye(3, dtype=np.float32), np.ones((2, 4), np.float32)), blocksize=(2, 4))
    work = bsr_spmm_work(a, 10)
    assert (work.flops, work.gathers) == (2 * 24 * 10, 3)
    assert work.bytes_streamed == 24 * 4 + 3 * 8 + 4 * 8 + 4 * 10 * (6 + 12)


def changed(part, value):
    a = sparse.bsr_array(np.kron(np.eye(3, dtype=np.float32), np.ones((2, 2), np.float32)), blocksize=(2, 2))
    setattr(a, part, value)
    return a


GOOD = np.ones((6, 4), np.float32)


@pytest.mark.parametrize(
    ("a", "b", "error", "told"),
    [
        (sparse.csr_array(np.eye(6, dtype=np.float32)), GOOD, TypeError, "must be a scipy.sparse bsr_array"),
        (np.eye(6, dtype=np.float32), GOOD, TypeError, r"use bsr_array\(a, blocksize"),
        (sparse.bsr_array(np.eye(6)), GOOD, TypeError, "a.data must have dtype float32, uint16"),
        (changed("indices", np.array([0, 1, 3], np.int32)), GOOD, ValueError, r"valid BSR.*indices\[2\] is 3"),
        (changed("indptr", np.array([0, 2, 1, 3], np.int32)), GOOD, ValueError, "indptr decreases"),
        (changed("indptr", np.array([0, 1, 2], np.int32)), GOOD, ValueError, "3 rows need 4"),
        (changed("data", np.ones((3, 4), np.float32)), GOOD, ValueError, "three-dimensional"),
        (changed("data", np.ones((2, 2, 2), np.float32)), GOOD, ValueError, "2 values but 3 indices"),
        (changed("data", np.ones((3, 4, 2), np.float32)), GOOD, ValueError, "do not divide"),
        (changed("data", np.ones((3, 2, 4), np.float32)[:, :, ::2]), GOOD, ValueError, "contiguous"),
        (changed("data", np.ones((3, 2, 2), np.float32)), GOOD[:5], ValueError, "b has 5 rows"),
        (changed("data", np.ones((3, 2, 2), np.float32)), GOOD.astype(float), TypeError, "b must be"),
    ],
)
def test_refuses(a, b, error, told):
    with pytest.raises(error, match=f"bsr_spmm: .*{told}"):
        bsr_spmm(a, b)
