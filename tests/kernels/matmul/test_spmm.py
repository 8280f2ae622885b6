"""SpMM of CSR and of packed matrices against its float64 reference and SciPy."""

import numpy as np
import pytest
from scipy import sparse

from kernels.formats import packed_csr
from kernels.formats.packed_csr import PackedCSR
from kernels.matmul.sddmm import sddmm, sddmm_reference
from kernels.matmul.spmm import spmm, spmm_reference, spmm_work


def random_csr(m, n, density, rng, index=np.int32, dtype=np.float32):
    a = sparse.random_array((m, n), density=density, format="csr", dtype=dtype, rng=rng)
    a.sort_indices()
    return sparse.csr_array((a.data, a.indices.astype(index), a.indptr.astype(index)), shape=a.shape)


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize(("m", "k", "n"), [(0, 3, 4), (3, 0, 4), (1, 1, 1), (37, 50, 7), (70, 40, 133), (33, 21, 0)])
def test_spmm_equals_reference_and_scipy(m, k, n, index, rng, assert_close):
    a, b = random_csr(m, k, 0.2, rng, index), rng.standard_normal((k, n)).astype(np.float32)
    c = spmm(a, b)
    assert_close(c, spmm_reference(a, b))
    assert_close(c, a @ b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 9, 15, 16, 31, 33, 64, 100, 133, 300])
@pytest.mark.parametrize(("m", "k", "density"), [(300, 700, 0.4), (1300, 130, 0.1), (129, 1000, 0.05), (40, 97, 0.4)])
def test_every_form_adds_in_the_order_of_the_entries(m, k, density, n, dtype, rng, assert_close):
    """Packed beforehand, packed in the call, row by row: the same bits, those of one multiply-add after the other."""
    a, b = random_csr(m, k, density, rng, dtype=dtype), rng.standard_normal((k, n)).astype(dtype)
    c = spmm(a, b)
    assert c.dtype == dtype
    assert_close(c, a.astype(np.float64) @ b.astype(np.float64))
    np.testing.assert_array_equal(spmm(PackedCSR.from_csr(a), b), c)
    single = [spmm(a[i : i + 1], b)[0] for i in range(0, m, 37)]  # one row alone is not packed
    np.testing.assert_array_equal(c[::37], single)
    wide = sparse.csr_array((a.data, a.indices.astype(np.int64), a.indptr.astype(np.int64)), shape=a.shape)
    np.testing.assert_array_equal(spmm(wide, b), c)


@pytest.mark.parametrize("block", [1, 7, 96, 255])
@pytest.mark.parametrize("n", [5, 70])
def test_the_block_does_not_show(block, n, rng, monkeypatch):
    a, b = random_csr(300, 301, 0.3, rng), rng.standard_normal((301, n)).astype(np.float32)
    want = spmm(a, b)
    monkeypatch.setattr(packed_csr, "BLOCK", block)
    packed = PackedCSR.from_csr(a)
    assert block / 2 < packed.block <= block and len(packed.cells) == 2 * -(-301 // block) + 1
    np.testing.assert_array_equal(spmm(packed, b), want)


@pytest.mark.parametrize("n", [1, 4, 40])
def test_rows_out_of_order_are_summed_as_they_come(n, rng, assert_close):
    a, b = random_csr(300, 700, 0.4, rng), rng.standard_normal((700, n)).astype(np.float32)
    i = int(np.argmax(np.diff(a.indptr)))
    swap = a.indptr[i] + np.array([0, 1])
    a.indices[swap], a.data[swap] = a.indices[swap[::-1]], a.data[swap[::-1]]
    assert_close(spmm(a, b), a.astype(np.float64) @ b.astype(np.float64))


def test_one_by_one_in_the_order_of_the_entries(rng):
    """Sums that differ in any other order, with and without fused multiply-adds."""
    a = sparse.csr_array((np.float32([1e8, 1, -1e8, 1]), [0, 97, 98, 300], [0, 4]), shape=(1, 301))
    tall = sparse.csr_array(sparse.vstack([a] * 130))
    for n in (1, 40):
        b = np.ones((301, n), np.float32)
        for form in (a, tall, PackedCSR.from_csr(a), PackedCSR.from_csr(tall)):
            np.testing.assert_array_equal(spmm(form, b), 1)  # 1e8 + 1 is 1e8 in float32


def test_empty_rows_empty_columns_and_duplicates(rng, assert_close):
    a = random_csr(256, 512, 0.5, rng).tolil()
    a[7], a[:, 5], a[200:210] = 0, 0, 0
    a = sparse.csr_array(a)
    b = rng.standard_normal((512, 40)).astype(np.float32)
    packed = spmm(PackedCSR.from_csr(a), b)
    assert_close(packed, spmm_reference(a, b))
    assert not packed[200:210].any()
    starts = a.indptr[:-1][np.diff(a.indptr) > 1]
    a.indices[starts + 1] = a.indices[starts]
    assert not a.has_canonical_format
    assert_close(spmm(a, b), spmm_reference(a, b))
    assert not spmm(a, b)[200:210].any()


def test_what_one_panel_holds_does_not_reach_another(rng):
    a, b = random_csr(200, 400, 0.3, rng), rng.standard_normal((400, 70)).astype(np.float32)
    b[:, 69], b[3, 0] = np.nan, np.inf
    for form in (a, PackedCSR.from_csr(a)):
        c = spmm(form, b)
        assert np.isfinite(c[:, 1:69]).all()
        assert np.isnan(c[np.diff(a.indptr) > 0, 69]).all()


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


@pytest.mark.parametrize("n", [3, 70, 300])
def test_same_bits_for_any_thread_count(n, rng):
    a, b = random_csr(1500, 400, 0.1, rng), rng.standard_normal((400, n)).astype(np.float32)
    for form in (a, PackedCSR.from_csr(a)):
        for threads in (2, 5):
            np.testing.assert_array_equal(spmm(form, b, num_threads=threads), spmm(form, b, num_threads=1))


@pytest.mark.usefixtures("level")
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_every_instruction_set_computes_it(dtype, tolerance, rng):
    a = sparse.csr_array(sparse.random_array((300, 500), density=0.2, rng=rng, dtype=dtype))
    a.sum_duplicates()
    packed = PackedCSR.from_csr(a)
    for n in (1, 3, 6, 31, 33, 70):
        b = rng.standard_normal((500, n)).astype(dtype)
        want = a.astype(float) @ b.astype(float)
        for form in (a, packed):
            np.testing.assert_allclose(spmm(form, b), want, rtol=tolerance, atol=tolerance * np.abs(want).max())
        np.testing.assert_array_equal(spmm(a, b), spmm(packed, b))
        x = rng.standard_normal((300, n)).astype(dtype)
        want = sddmm_reference(a, x, b)
        np.testing.assert_allclose(sddmm(a, x, b).data, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_work_counts(index, rng):
    a = random_csr(10, 20, 0.5, rng, index)
    found = spmm_work(a, 8)
    assert found.flops == 2 * a.nnz * 8
    pattern = a.nnz * (4 + index().itemsize) + 11 * index().itemsize  # float32 values, indices and 11 row pointers
    assert found.bytes_streamed == pattern + 4 * 8 * (20 + 10)  # B and C
    assert found.gathers == a.nnz
    packed = spmm_work(PackedCSR.from_csr(a), 8)
    segments = np.count_nonzero(np.diff(a.indptr))  # one cell: a segment for each row that is not empty
    assert packed.bytes_streamed == a.nnz * 5 + segments * 2 + 2 * 16 + 4 * 8 * (20 + 10)
    assert (packed.flops, packed.gathers) == (found.flops, found.gathers)


def test_bad_input_is_named(rng):
    a, b = random_csr(4, 5, 0.5, rng), np.zeros((5, 2), np.float32)
    with pytest.raises(TypeError, match="b must be a NumPy array of float32, got float64"):
        spmm(a, b.astype(np.float64))
    with pytest.raises(TypeError, match="b must be a NumPy array of float64, got float32"):
        spmm(a.astype(np.float64), b)
    with pytest.raises(ValueError, match="b has 4 rows"):
        spmm(a, b[:4])
    with pytest.raises(ValueError, match="C-contiguous"):
        spmm(a, np.asfortranarray(np.zeros((5, 3), np.float32)))
    packed = PackedCSR.from_csr(a)
    with pytest.raises(TypeError, match="spmm: b must be a NumPy array of float32, got float64"):
        spmm(packed, b.astype(np.float64))
    with pytest.raises(ValueError, match="spmm: b has 4 rows"):
        spmm(packed, b[:4])
    with pytest.raises(TypeError, match=r"spmm: a must be a scipy\.sparse csr_array or csr_matrix"):
        spmm(a.toarray(), b)
    a.indices[0] = 99
    with pytest.raises(ValueError, match="not a valid CSR"):
        spmm(a, b)
