"""SDDMM against its float64 reference and the dense product."""

import numpy as np
import pytest
from scipy import sparse

from kernels.matmul.sddmm import sddmm, sddmm_reference, sddmm_work


def random_csr(m, n, density, rng, index=np.int32, dtype=np.float32):
    a = sparse.random_array((m, n), density=density, format="csr", dtype=dtype, rng=rng)
    a.sort_indices()
    return sparse.csr_array((a.data, a.indices.astype(index), a.indptr.astype(index)), shape=a.shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [1, 16, 33, 64])
def test_sddmm_equals_reference(d, dtype, rng, assert_close):
    pattern = random_csr(45, 31, 0.3, rng)
    x, y = rng.standard_normal((45, d)).astype(dtype), rng.standard_normal((31, d)).astype(dtype)
    s = sddmm(pattern, x, y)
    assert s.dtype == dtype
    assert_close(s.data, sddmm_reference(pattern, x, y))
    assert_close(s.toarray()[pattern.nonzero()], (x @ y.T)[pattern.nonzero()])


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize(("m", "n", "d"), [(0, 3, 4), (3, 0, 4), (3, 4, 0), (1, 1, 1), (40, 9, 7), (300, 700, 530)])
def test_sizes_and_index_types(m, n, d, index, rng, assert_close):
    """The last one is wide enough for several blocks of y."""
    pattern = random_csr(m, n, 0.2, rng, index)
    x, y = rng.standard_normal((m, d)).astype(np.float32), rng.standard_normal((n, d)).astype(np.float32)
    found = sddmm(pattern, x, y)
    assert found.indices.dtype == index or found.nnz == 0
    assert_close(found.data, sddmm_reference(pattern, x, y).astype(np.float32))


@pytest.mark.parametrize("entries", range(18))
def test_an_entry_does_not_depend_on_its_neighbours(entries, rng):
    """Columns are taken several at once; each has the bits that it would have alone."""
    x, y = rng.standard_normal((1, 70)).astype(np.float32), rng.standard_normal((18, 70)).astype(np.float32)
    rows = [sparse.csr_array((np.ones(1, np.float32), [c], [0, 1]), shape=(1, 18)) for c in range(entries)]
    pattern = sparse.csr_array((np.ones(entries, np.float32), np.arange(entries), [0, entries]), shape=(1, 18))
    np.testing.assert_array_equal(sddmm(pattern, x, y).data, [sddmm(row, x, y).data[0] for row in rows])


def test_duplicates_rows_out_of_order_and_empty_rows(rng, assert_close):
    """Wide rows of y, whose blocks would be looked for in vain in a row that is out of order."""
    pattern = sparse.csr_array((np.ones(6, np.float32), [399, 0, 200, 200, 5, 398], [0, 4, 4, 6]), shape=(3, 400))
    x, y = rng.standard_normal((3, 1000)).astype(np.float32), rng.standard_normal((400, 1000)).astype(np.float32)
    found = sddmm(pattern, x, y)
    assert_close(found.data, sddmm_reference(pattern, x, y).astype(np.float32))
    assert found.data[2] == found.data[3]
    assert np.shares_memory(found.indices, pattern.indices)


def test_nan_and_infinity_stay_in_their_entries(rng):
    pattern = sparse.csr_array(np.ones((5, 20), np.float32))
    x, y = rng.standard_normal((5, 9)).astype(np.float32), rng.standard_normal((20, 9)).astype(np.float32)
    x[2, 8], y[7, 0] = np.nan, np.inf
    wrong = ~np.isfinite(sddmm(pattern, x, y).toarray())
    assert wrong[2].all() and wrong[:, 7].all() and wrong.sum() == 20 + 5 - 1


def test_same_bits_for_any_thread_count(rng):
    pattern = random_csr(700, 400, 0.1, rng)
    x, y = rng.standard_normal((700, 300)).astype(np.float32), rng.standard_normal((400, 300)).astype(np.float32)
    for threads in (2, 5):
        np.testing.assert_array_equal(
            sddmm(pattern, x, y, num_threads=threads).data, sddmm(pattern, x, y, num_threads=1).data
        )


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_work_counts(index, rng):
    pattern = random_csr(10, 20, 0.5, rng, index)
    found = sddmm_work(pattern, 8)
    assert found.flops == 2 * pattern.nnz * 8
    stored = pattern.nnz * (4 + index().itemsize) + 11 * index().itemsize  # values, indices and 11 row pointers
    assert found.bytes_streamed == stored + 4 * 8 * (10 + 20)  # x and y
    assert found.gathers == pattern.nnz


def test_bad_input_is_named(rng):
    pattern = random_csr(4, 5, 0.5, rng)
    with pytest.raises(TypeError, match="y must be a NumPy array of float64, got float32"):
        sddmm(pattern, np.zeros((4, 2)), np.zeros((5, 2), np.float32))
    with pytest.raises(ValueError, match="x has 2 columns, y has 3"):
        sddmm(pattern, np.zeros((4, 2), np.float32), np.zeros((5, 3), np.float32))
    with pytest.raises(ValueError, match="x has 3 rows, the pattern asks for 4"):
        sddmm(pattern, np.zeros((3, 2), np.float32), np.zeros((5, 2), np.float32))
    pattern.indices[0] = 99
    with pytest.raises(ValueError, match="not a valid CSR"):
        sddmm(pattern, np.zeros((4, 2), np.float32), np.zeros((5, 2), np.float32))
