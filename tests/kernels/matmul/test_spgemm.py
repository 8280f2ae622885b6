"""SpGEMM: every method against the reference, SciPy and GraphBLAS, on shapes and values that break loops."""

import numpy as np
import pytest
from scipy import sparse

import kernels
from kernels.matmul.spgemm import row_flops, spgemm, spgemm_reference, spgemm_work, symbolic_nnz

METHODS = ["auto", "hash", "dense", "inner", "outer", "merge", "smash-v1", "smash-v2", "smash-v3"]
RTOL = {"float32": 1e-5, "float64": 1e-12}


def random_csr(rng, shape, density, dtype="float64", index="int32"):
    a = sparse.random_array(shape, density=density, format="csr", rng=rng, dtype=dtype)
    return with_indices(a, index)


def with_indices(a, index):
    return sparse.csr_array((a.data, a.indices.astype(index), a.indptr.astype(index)), shape=a.shape)


def assert_product(c, a, b, rtol=1e-12):
    """Structure and values of c against the reference in float64; NaN must stand at the same places."""
    want = spgemm_reference(a, b)
    got = c.copy()
    got.sort_indices()
    got.check_format(full_check=True)
    assert c.shape == (a.shape[0], b.shape[1])
    assert c.dtype == a.dtype
    assert got.indptr.tolist() == want.indptr.tolist()
    assert got.indices.tolist() == want.indices.tolist()
    size = (
        spgemm_reference(abs(a.astype(float)), abs(b.astype(float))).data if np.isfinite(want.data).all() else want.data
    )
    finite = np.isfinite(want.data)
    np.testing.assert_array_equal(np.where(finite, 0, want.data), np.where(finite, 0, got.data))
    assert np.all(np.abs(got.data[finite] - want.data[finite]) <= rtol * np.abs(size)[finite])


def stencil(n):
    t = sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n))
    eye = sparse.eye_array(n)
    return sparse.csr_array(sparse.kron(eye, t) + sparse.kron(t, eye))


def banded(n, half, rng):
    return sparse.csr_array(
        sparse.diags_array([rng.random(n) for _ in range(2 * half + 1)], offsets=range(-half, half + 1), shape=(n, n))
    )


@pytest.fixture
def worked_example():
    a = sparse.csr_array(np.array([[1, 0, 2], [0, 0, 3], [4, 5, 0.0]]))
    b = sparse.csr_array(np.array([[0, 6], [7, 0], [8, 9.0]]))
    return a, b


@pytest.mark.parametrize("method", METHODS)
def test_worked_example(worked_example, method):
    a, b = worked_example
    assert spgemm(a, b, method=method).toarray().tolist() == [[16, 24], [24, 27], [35, 24]]
    assert row_flops(a, b).tolist() == [3, 2, 2]
    assert symbolic_nnz(a, b).tolist() == [2, 2, 2]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("index", ["int32", "int64"])
def test_random_shapes(rng, method, dtype, index):
    for m, k, n in [
        (0, 0, 0),
        (0, 3, 2),
        (3, 0, 2),
        (3, 2, 0),
        (1, 1, 1),
        (1, 70, 1),
        (13, 31, 67),
        (50, 50, 50),
        (65, 9, 130),
    ]:
        a, b = random_csr(rng, (m, k), 0.2, dtype, index), random_csr(rng, (k, n), 0.3, dtype, index)
        c = spgemm(a, b, method=method)
        assert c.indices.dtype == index
        assert_product(c, a, b, RTOL[dtype])


@pytest.mark.parametrize("method", METHODS)
def test_structures_with_a_form_of_their_own(rng, method):
    wide = random_csr(rng, (40, 40), 0.1)
    wide_b = random_csr(rng, (40, 9000), 0.01)
    for a, b in [
        (stencil(9), stencil(9)),
        (banded(90, 1, rng), banded(90, 3, rng)),
        (banded(150, 20, rng), banded(150, 20, rng)),
        (sparse.csr_array(np.ones((9, 9))), sparse.csr_array(np.ones((9, 200)))),
        (sparse.csr_array(sparse.eye_array(80)), random_csr(rng, (80, 30), 0.3)),
        (wide, wide_b),
    ]:
        assert_product(spgemm(a, b, method=method), a, b)
        assert_product(
            spgemm(a.astype("float32"), b.astype("float32"), method=method),
            a.astype("float32"),
            b.astype("float32"),
            1e-5,
        )


@pytest.mark.parametrize("method", METHODS)
def test_unsorted_duplicate_and_zero_entries(rng, method):
    def scrambled(m, n, nnz):
        rows = np.sort(rng.integers(0, m, nnz))
        indptr = np.searchsorted(rows, np.arange(m + 1))
        values = rng.choice([0.0, 1.5, -1.5, 2.0], nnz)
        return sparse.csr_array((values, rng.integers(0, n, nnz).astype(np.int64), indptr), shape=(m, n))

    a, b = scrambled(20, 15, 90), scrambled(15, 30, 120)
    before = [x.copy() for x in (a.indices, a.data, b.indices, b.data)]
    assert_product(spgemm(a, b, method=method), a, b)
    for x, y in zip(before, (a.indices, a.data, b.indices, b.data), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("method", METHODS)
def test_cancelled_entries_stay_unless_dropped(method):
    a = sparse.csr_array(np.array([[1.0, 1.0], [2.0, 0.0]]))
    b = sparse.csr_array(np.array([[1.0, 3.0], [-1.0, 1.0]]))
    assert spgemm(a, b, method=method).indices.tolist() == [0, 1, 0, 1]
    dropped = spgemm(a, b, method=method, drop_zeros=True)
    assert dropped.indices.tolist() == [1, 0, 1]
    assert dropped.data.tolist() == [4.0, 2.0, 6.0]


@pytest.mark.parametrize("method", METHODS)
def test_nan_and_infinity_stay_where_they_meet(rng, method):
    for a in (banded(70, 3, rng), random_csr(rng, (40, 40), 0.2), stencil(8)):
        a.data[[1, 5]] = np.nan, np.inf
        assert_product(spgemm(a, a, method=method), a, a)


@pytest.mark.parametrize("method", METHODS)
def test_threads_change_no_bit(rng, method):
    a, b = random_csr(rng, (3000, 200), 0.02), random_csr(rng, (200, 400), 0.05)
    first = spgemm(a, b, method=method, num_threads=1)
    for threads in range(2, 6):
        c = spgemm(a, b, method=method, num_threads=threads)
        assert c.indptr.tobytes() == first.indptr.tobytes()
        assert c.indices.tobytes() == first.indices.tobytes()
        assert c.data.tobytes() == first.data.tobytes()


@pytest.mark.parametrize("method", ["hash", "smash-v1", "smash-v2", "smash-v3"])
def test_small_tables_take_several_passes(rng, method):
    a, b = random_csr(rng, (30, 60), 0.3), random_csr(rng, (60, 500), 0.3)
    for load in (0.05, 0.5, 1.0):
        assert_product(spgemm(a, b, method=method, log2_slots=4, load=load), a, b)
        assert_product(spgemm(a, b, method=method, log2_slots=9, load=load, sort=False), a, b)


def test_hashing_selects_the_version(rng):
    a = random_csr(rng, (60, 60), 0.1)
    for hashing, version in (("high", "smash-v1"), ("low", "smash-v2")):
        one = spgemm(a, a, method="hash", hashing=hashing, sort=False)
        other = spgemm(a, a, method=version, sort=False)
        assert one.indices.tolist() == other.indices.tolist()


@pytest.mark.parametrize(
    ("method", "columns"), [("smash-v1", [2, 17, 30]), ("smash-v2", [17, 2, 30]), ("smash-v3", [2, 30, 17])]
)
def test_unsorted_rows_come_as_the_table_holds_them(method, columns):
    """One row of 32 columns in 16 slots, products 2 30 | 2 17. High bits keep the order; low bits put 17 at slot 1 and
    30 at 14; with dense segments entries stay in the order in which they were claimed."""
    a = sparse.csr_array(np.array([[1.0, 10.0]]))
    b = sparse.csr_array((np.array([1.0, 2.0, 3.0, 4.0]), np.array([2, 30, 2, 17]), np.array([0, 2, 4])), shape=(2, 32))
    c = spgemm(a, b, method=method, sort=False, log2_slots=4, load=1.0)
    assert c.indices.tolist() == columns
    assert dict(zip(c.indices.tolist(), c.data.tolist(), strict=True)) == {2: 31.0, 30: 2.0, 17: 40.0}


def test_sorted_output_is_sorted(rng):
    a = random_csr(rng, (80, 80), 0.1)
    for method in METHODS:
        c = spgemm(a, a, method=method)
        rows = np.repeat(np.arange(80), np.diff(c.indptr))
        assert np.all(np.diff(rows * 80 + c.indices) > 0)


def test_tags_that_do_not_fit_raise_overflow():
    huge = 2**62
    a = sparse.csr_array((np.ones(2), np.array([0, 0]), np.array([0, 1, 2])), shape=(2, 1))
    b = sparse.csr_array((np.ones(1), np.array([huge - 1]), np.array([0, 1])), shape=(1, huge))
    with pytest.raises(OverflowError, match="63-bit tags"):
        spgemm(a, b, method="hash")
    c = spgemm(a, b)
    assert c.indices.tolist() == [huge - 1, huge - 1]
    assert symbolic_nnz(a, b).tolist() == [1, 1]


def test_columns_far_apart_need_no_memory_for_the_gap():
    a = sparse.csr_array(np.ones((1, 3)))
    b = sparse.csr_array((np.ones(3), np.array([0, 2**40, 2**40]), np.array([0, 1, 2, 3])), shape=(3, 2**41))
    c = spgemm(a, b)
    assert c.indices.tolist() == [0, 2**40]
    assert c.data.tolist() == [1.0, 2.0]


def test_identity_and_dense_counts():
    eye, full = sparse.csr_array(sparse.eye_array(17)), sparse.csr_array(np.ones((6, 6)))
    assert row_flops(eye, eye).sum() == symbolic_nnz(eye, eye).sum() == 17
    assert row_flops(full, full).sum() == 6**3
    assert symbolic_nnz(full, full).sum() == 36


def test_counts_against_brute_force(rng):
    a, b = random_csr(rng, (50, 50), 0.05), random_csr(rng, (50, 50), 0.08)
    pattern_a, pattern_b = a.toarray() != 0, b.toarray() != 0
    products = pattern_a.astype(int) @ pattern_b.astype(int)
    assert row_flops(a, b).tolist() == products.sum(axis=1).tolist()
    assert symbolic_nnz(a, b).tolist() == (products > 0).sum(axis=1).tolist()
    assert row_flops(a, b).sum() == (pattern_a.sum(axis=0) * pattern_b.sum(axis=1)).sum()


def test_algebra(rng):
    a, b = random_csr(rng, (40, 60), 0.2), random_csr(rng, (60, 30), 0.2)
    transposed = spgemm(sparse.csr_array(b.T), sparse.csr_array(a.T))
    np.testing.assert_allclose(spgemm(a, b).toarray().T, transposed.toarray(), rtol=1e-12, atol=1e-15)
    x = rng.random(30)
    np.testing.assert_allclose(spgemm(a, b) @ x, a @ (b @ x), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_against_scipy_and_graphblas(rng, dtype):
    graphblas = pytest.importorskip("graphblas")
    a = random_csr(rng, (400, 500), 0.02, dtype)
    b = random_csr(rng, (500, 300), 0.03, dtype)
    c, want = spgemm(a, b), a @ b
    want.sort_indices()
    assert c.indices.tolist() == want.indices.tolist()
    np.testing.assert_allclose(c.data, want.data, rtol=RTOL[dtype])
    g = graphblas.io.from_scipy_sparse(a).mxm(graphblas.io.from_scipy_sparse(b)).new()
    other = graphblas.io.to_scipy_sparse(g, "csr")
    other.sort_indices()
    assert c.indices.tolist() == other.indices.tolist()
    np.testing.assert_allclose(c.data, other.data, rtol=RTOL[dtype])


def test_work_counts(worked_example):
    a, b = worked_example
    work = spgemm_work(a, b)
    assert work.flops == 14
    assert work.gathers == 14
    assert work.bytes_streamed == (5 + 4 + 6) * 12 + (4 + 4 + 4) * 4


def test_int32_and_int64_operands_mix(rng):
    a, b = random_csr(rng, (20, 30), 0.2, index="int32"), random_csr(rng, (30, 10), 0.2, index="int64")
    assert_product(spgemm(a, b), a, b)
    assert_product(spgemm(sparse.csr_matrix(a), b), a, b)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"method": "fast"}, ValueError, "method must be one of auto"),
        ({"hashing": "low"}, ValueError, "with method='hash'"),
        ({"method": "hash", "hashing": "middle"}, ValueError, "'low' or 'high'"),
        ({"log2_slots": 3}, ValueError, "int from 4 to 26"),
        ({"log2_slots": 27}, ValueError, "int from 4 to 26"),
        ({"log2_slots": 8.5}, TypeError, "must be an int"),
        ({"load": 0}, ValueError, "load must be a finite number above 0 and up to 1"),
        ({"load": float("nan")}, ValueError, "load must be a finite number above 0 and up to 1"),
        ({"num_threads": 0}, ValueError, "num_threads must be an int from 1 to 256"),
        ({"num_threads": 1.5}, TypeError, "num_threads must be an int"),
    ],
)
def test_bad_options(rng, change, error, words):
    a = random_csr(rng, (5, 5), 0.3)
    with pytest.raises(error, match=words):
        spgemm(a, a, **change)


def test_bad_operands(rng):
    a = random_csr(rng, (4, 5), 0.5)
    with pytest.raises(ValueError, match="b has 4 rows, a has 5 columns"):
        spgemm(a, a)
    for bad in (a.toarray(), a.tocsc(), a.astype(complex), a.astype(int), None):
        with pytest.raises(TypeError, match="spgemm: a"):
            spgemm(bad, a)
    with pytest.raises(TypeError, match="a is float64, b is float32"):
        spgemm(a, random_csr(rng, (5, 2), 0.5, "float32"))


def test_results_do_not_share_memory(rng):
    a = random_csr(rng, (500, 500), 0.2)
    first = spgemm(a, a)
    kept = first.data.copy()
    for _ in range(3):
        spgemm(a, a).data[:] = 0
    np.testing.assert_array_equal(first.data, kept)
    assert first.data.flags.writeable
    assert kernels.get_num_threads() >= 1


@pytest.mark.parametrize("method", METHODS)
def test_duplicates_that_meet_infinity_are_multiplied_one_by_one(method, rng):
    """2 inf + (-3) inf is NaN; the sum of the duplicates times inf would be -inf."""
    values = np.array([2.0, -3.0, 1.0, np.inf, 5.0, -5.0, np.nan, 1.0])
    for columns in ([0, 0, 1, 2, 1, 1, 3, 3], [3, 1, 3, 0, 1, 0, 2, 2]):
        a = sparse.csr_array((values, columns, [0, 4, 8]), shape=(2, 4))
        b = sparse.csr_array(
            (np.array([np.inf, 1.0, -1.0, np.inf, np.inf, 0.0]), [0, 1, 1, 0, 2, 2], [0, 2, 3, 4, 6]), shape=(4, 3)
        )
        wanted = spgemm_reference(a, b)
        found = spgemm(a, b, method=method)
        np.testing.assert_array_equal(found.indices, wanted.indices)
        np.testing.assert_array_equal(found.data, wanted.data)
