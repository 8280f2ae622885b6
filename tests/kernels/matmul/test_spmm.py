"""SpMM and SDDMM against their float64 references, SciPy and each other's gradients."""

import numpy as np
import pytest
from scipy import sparse

from kernels.matmul.sddmm import sddmm, sddmm_reference, sddmm_work
from kernels.matmul.spmm import spmm, spmm_reference, spmm_work


def random_csr(m, n, density, rng, index=np.int32, dtype=np.float32):
    a = sparse.random_array((m, n), density=density, format="csr", dtype=dtype, rng=rng)
    return sparse.csr_array((a.data, a.indices.astype(index), a.indptr.astype(index)), shape=a.shape)


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize(("m", "k", "n"), [(0, 3, 4), (3, 0, 4), (1, 1, 1), (37, 50, 7), (70, 40, 133), (33, 21, 0)])
def test_spmm_equals_reference_and_scipy(m, k, n, index, rng, assert_close):
    a, b = random_csr(m, k, 0.2, rng, index), rng.standard_normal((k, n)).astype(np.float32)
    c = spmm(a, b)
    assert_close(c, spmm_reference(a, b))
    assert_close(c, a @ b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 15, 16, 33, 64, 100, 133, 300])
@pytest.mark.parametrize(("m", "k", "density"), [(300, 700, 0.4), (260, 130, 0.1), (129, 1000, 0.05), (40, 700, 0.4)])
def test_panels_and_rows_add_in_the_order_of_the_entries(m, k, density, n, dtype, rng, assert_close):
    """Shapes on both sides of the choice between panels and rows; a row that is out of order is taken row by row."""
    a, b = random_csr(m, k, density, rng, dtype=dtype), rng.standard_normal((k, n)).astype(dtype)
    a.sort_indices()
    c = spmm(a, b)
    assert c.dtype == dtype
    assert_close(c, a.astype(np.float64) @ b.astype(np.float64))
    single = [spmm(a[i : i + 1], b)[0] for i in range(0, m, 37)]  # one row alone never makes a panel
    np.testing.assert_array_equal(c[::37], single)
    i = int(np.argmax(np.diff(a.indptr)))
    swap = a.indptr[i] + np.array([0, 1])
    a.indices[swap], a.data[swap] = a.indices[swap[::-1]], a.data[swap[::-1]]
    assert_close(spmm(a, b), a.astype(np.float64) @ b.astype(np.float64))


def test_panels_take_duplicates_empty_rows_and_empty_columns(rng, assert_close):
    a = random_csr(256, 512, 0.5, rng).tolil()
    a[7], a[:, 5], a[200:210] = 0, 0, 0
    a = sparse.csr_array(a)
    starts = a.indptr[:-1][np.diff(a.indptr) > 1]
    a.indices[starts + 1] = a.indices[starts]
    b = rng.standard_normal((512, 40)).astype(np.float32)
    assert not a.has_canonical_format
    assert_close(spmm(a, b), spmm_reference(a, b))
    assert not spmm(a, b)[200:210].any()


def test_what_one_panel_holds_does_not_reach_another(rng):
    a, b = random_csr(200, 400, 0.3, rng), rng.standard_normal((400, 70)).astype(np.float32)
    b[:, 69], b[3, 0] = np.nan, np.inf
    c = spmm(a, b)
    assert np.isfinite(c[:, 1:69]).all()
    assert np.isnan(c[np.diff(a.indptr) > 0, 69]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [1, 16, 33, 64])
def test_sddmm_equals_reference(d, dtype, rng, assert_close):
    pattern = random_csr(45, 31, 0.3, rng)
    x, y = rng.standard_normal((45, d)).astype(dtype), rng.standard_normal((31, d)).astype(dtype)
    s = sddmm(pattern, x, y)
    assert s.dtype == dtype
    assert_close(s.data, sddmm_reference(pattern, x, y))
    assert_close(s.toarray()[pattern.nonzero()], (x @ y.T)[pattern.nonzero()])


def test_duplicates_unsorted_and_explicit_zeros_count(assert_close):
    a = sparse.csr_array((np.array([1, 2, 0, 3], np.float32), [2, 0, 1, 2], [0, 4]), shape=(1, 3))
    b = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert_close(spmm(a, b), np.array([[16.0, 22.0]], np.float32))


def test_nan_and_infinity_stay_in_their_row(rng):
    a = random_csr(20, 20, 0.3, rng)
    a.data[0] = np.nan
    row = np.searchsorted(a.indptr, 0, side="right") - 1
    c = spmm(a, np.ones((20, 5), np.float32))
    assert np.isnan(c[row]).all() and np.isfinite(np.delete(c, row, 0)).all()


def test_same_bits_for_any_thread_count(rng):
    a, b = random_csr(300, 200, 0.1, rng), rng.standard_normal((200, 70)).astype(np.float32)
    for threads in (2, 5):
        np.testing.assert_array_equal(spmm(a, b, num_threads=threads), spmm(a, b, num_threads=1))


def test_work_counts(rng):
    a = random_csr(10, 20, 0.5, rng)
    assert spmm_work(a, 8).flops == 2 * a.nnz * 8
    assert sddmm_work(a, 8).flops == 2 * a.nnz * 8
    pattern = a.nnz * (4 + 8) + 11 * 8  # float32 values, int64 indices and 11 row pointers
    assert spmm_work(a, 8).bytes_streamed == pattern + 4 * 8 * (20 + 10)  # B and C
    assert sddmm_work(a, 8).bytes_streamed == pattern + 4 * 8 * (10 + 20)  # x and y
    assert spmm_work(a, 8).gathers == sddmm_work(a, 8).gathers == a.nnz


def test_bad_input_is_named(rng):
    a, b = random_csr(4, 5, 0.5, rng), np.zeros((5, 2), np.float32)
    with pytest.raises(TypeError, match="b must be a NumPy array of float32, got float64"):
        spmm(a, b.astype(np.float64))
    with pytest.raises(TypeError, match="b must be a NumPy array of float64, got float32"):
        spmm(a.astype(np.float64), b)
    with pytest.raises(TypeError, match="y must be a NumPy array of float64, got float32"):
        sddmm(a, np.zeros((4, 2)), np.zeros((5, 2), np.float32))
    with pytest.raises(ValueError, match="b has 4 rows"):
        spmm(a, b[:4])
    with pytest.raises(ValueError, match="C-contiguous"):
        spmm(a, np.asfortranarray(np.zeros((5, 3), np.float32)))
    with pytest.raises(ValueError, match="x has 2 columns, y has 3"):
        sddmm(a, np.zeros((4, 2), np.float32), np.zeros((5, 3), np.float32))
    a.indices[0] = 99
    with pytest.raises(ValueError, match="not a valid CSR"):
        spmm(a, b)
