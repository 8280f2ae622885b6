"""Products with a bitmap against the reference and SciPy, and its format against what it was made of."""

import numpy as np
import pytest
from scipy import sparse

from kernels.formats.bitmap_rows import BitmapRows
from kernels.formats.storage import bitmap_bits
from kernels.matmul.bitmap_spmm import bitmap_spmm, bitmap_spmm_reference, bitmap_spmm_work


def matrix(rng, m, k, density):
    return sparse.csr_array(rng.standard_normal((m, k)) * (rng.random((m, k)) < density)).astype(np.float32)


def test_by_hand():
    a = BitmapRows.from_csr(sparse.csr_array(np.array([[0, 2, 3], [0, 0, 0], [4, 0, 5]], np.float32)))
    assert a.values.tolist() == [2, 3, 4, 5] and a.bits.tolist() == [[6, 0], [0, 0], [5, 0]]
    assert a.starts.tolist() == [0, 2, 2, 4] and a.nnz == 4 and a.nbytes == 16 + 6 + 32
    assert bitmap_spmm(a, np.array([[1, 10, 100]], np.float32)).tolist() == [[320, 0, 504]]
    assert 8 * (a.values.nbytes + a.bits.nbytes) == bitmap_bits((3, 16), 4, value_bits=32)  # columns padded to 16


@pytest.mark.parametrize("tokens", [0, 1, 2, 3, 7, 8, 15, 33])
@pytest.mark.parametrize(("m", "k"), [(1, 1), (5, 16), (67, 33), (130, 128), (9, 200)])
def test_equals_reference_and_scipy(m, k, tokens, rng, assert_close):
    a = matrix(rng, m, k, 0.5)
    x = rng.standard_normal((tokens, k)).astype(np.float32)
    found = bitmap_spmm(BitmapRows.from_csr(a), x)
    assert found.dtype == np.float32 and found.shape == (tokens, m)
    assert_close(found, bitmap_spmm_reference(BitmapRows.from_csr(a), x).astype(np.float32))
    assert_close(found, (a.astype(np.float64) @ x.T.astype(np.float64)).T.astype(np.float32))


@pytest.mark.parametrize("density", [0.0, 0.03, 1.0])
def test_any_density(density, rng, assert_close):
    a = matrix(rng, 40, 90, density)
    x = rng.standard_normal((5, 90)).astype(np.float32)
    packed = BitmapRows.from_csr(a)
    assert packed.nnz == a.nnz and (packed.as_csr() != a).nnz == 0
    assert_close(bitmap_spmm(packed, x), (a @ x.T).T)


def test_every_pattern_of_a_register_is_spread(rng, assert_close):
    """All 256 patterns of eight places, in both halves of sixteen."""
    marks = (np.arange(256)[:, None] >> np.arange(8)) & 1
    dense = np.concatenate([marks, marks[::-1]], axis=1) * rng.standard_normal((256, 16))
    x = rng.standard_normal((1, 16)).astype(np.float32)
    packed = BitmapRows.from_csr(sparse.csr_array(dense.astype(np.float32)))
    assert_close(bitmap_spmm(packed, x), x @ dense.astype(np.float32).T)


def test_threads_change_nothing_and_stored_zeros_stay(rng):
    a, x = matrix(rng, 1500, 300, 0.5), rng.standard_normal((9, 300)).astype(np.float32)
    packed = BitmapRows.from_csr(a)
    found = [bitmap_spmm(packed, x, num_threads=t) for t in (1, 2, 5)]
    assert all((each == found[0]).all() for each in found[1:])
    kept = sparse.csr_array((np.array([0, 1], np.float32), np.array([0, 2]), np.array([0, 2])), shape=(1, 3))
    assert BitmapRows.from_csr(kept).nnz == 2


def test_nobody_can_write_to_what_the_kernel_trusts(rng):
    packed = BitmapRows.from_csr(matrix(rng, 4, 20, 0.5))
    for array in (packed.values, packed.bits, packed.starts):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"values": np.ones(3, np.float32)}, "as many as the 2 bits that are set, got 3"),
        ({"bits": np.array([[8, 0]], np.uint8)}, "0 behind the last column, 3"),
        ({"bits": np.array([[5]], np.uint8)}, r"bits \(1, 2\) for shape 1 x 3"),
        ({"values": np.ones((2, 1), np.float32)}, "values must be one-dimensional"),
    ],
)
def test_parts_that_do_not_fit(change, told):
    good = {"values": np.ones(2, np.float32), "bits": np.array([[5, 0]], np.uint8), "shape": (1, 3)}
    BitmapRows(**good)
    with pytest.raises(ValueError, match=f"BitmapRows: .*{told}"):
        BitmapRows(**(good | change))


def test_bad_operands(rng):
    packed = BitmapRows.from_csr(matrix(rng, 4, 20, 0.5))
    with pytest.raises(ValueError, match=r"x must be C-contiguous and \(n, 20\), got shape \(3, 4\)"):
        bitmap_spmm(packed, np.ones((3, 4), np.float32))
    with pytest.raises(ValueError, match="C-contiguous"):
        bitmap_spmm(packed, np.ones((20, 3), np.float32).T)
    with pytest.raises(TypeError, match=r"use BitmapRows\.from_csr"):
        bitmap_spmm(np.eye(3), np.ones((3, 3), np.float32))
    shuffled = sparse.csr_array((np.ones(2, np.float32), np.array([1, 0]), np.array([0, 2])), shape=(1, 2))
    with pytest.raises(ValueError, match="strictly rising"):
        BitmapRows.from_csr(shuffled)


def test_work_by_hand(rng):
    packed = BitmapRows.from_csr(matrix(rng, 4, 20, 0.5))
    work = bitmap_spmm_work(packed, 3)
    assert work.flops == 2 * 4 * 32 * 3 and work.gathers == 0
    assert work.bytes_streamed == packed.nbytes + 4 * 3 * 24
