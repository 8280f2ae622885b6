"""OMP against scikit-learn, a loop of least squares, hand-worked vectors, and what must hold of any residual."""

import numpy as np
import pytest

from kernels.factor.codes import SparseCodes
from kernels.factor.omp import omp, omp_reference, omp_work


def unit(rng, d, k, dtype=np.float64):
    atoms = rng.standard_normal((d, k))
    return (atoms / np.linalg.norm(atoms, axis=0)).astype(dtype)


def dense(codes):
    """Return codes as a matrix (k, n)."""
    return codes.as_csr().toarray().T


def test_two_atoms_by_hand():
    """Atoms (1, 0) and (0.6, 0.8); (2, 1) has the products 2 and 2: the first comes first and leaves (0, 1).

    With the second as well, x_2 = 1 / 0.8 and x_1 = 2 - 0.6 x_2.
    """
    atoms, y = np.array([[1.0, 0.6], [0.0, 0.8]]), np.array([[2.0, 0.0], [1.0, 1.0]])
    one, two = omp(atoms, y, 1), omp(atoms, y, 2)
    assert one.indices.tolist() == [[0], [1]]
    np.testing.assert_allclose(one.values, [[2], [0.8]], rtol=1e-15)
    assert two.indices.tolist() == [[0, 1], [1, 0]]
    np.testing.assert_allclose(two.values, [[1.25, 1.25], [1.25, -0.75]], rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("d", "k", "n", "s"), [(1, 1, 1, 1), (7, 5, 3, 5), (20, 33, 17, 6), (30, 130, 9, 12), (64, 64, 40, 3)]
)
def test_equals_the_loop_of_least_squares(d, k, n, s, dtype, rng):
    atoms, y = unit(rng, d, k, dtype), rng.standard_normal((d, n)).astype(dtype)
    codes = omp(atoms, y, s)
    assert codes.values.dtype == dtype and codes.indices.shape == (n, s) and codes.atoms == k
    assert (codes.counts == s).all()
    np.testing.assert_allclose(
        dense(codes), omp_reference(atoms, y, s), rtol=0, atol=3e-5 if dtype == np.float32 else 1e-10
    )


def test_equals_scikit_learn(rng):
    linear_model = pytest.importorskip("sklearn.linear_model")
    atoms, y = unit(rng, 48, 96), rng.standard_normal((48, 60))
    codes = omp(atoms, y, 12)
    wanted = linear_model.orthogonal_mp(atoms, y, n_nonzero_coefs=12)
    found = dense(codes)
    assert ((found != 0) == (wanted != 0)).all()
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_the_residual_is_orthogonal_to_the_atoms_taken_and_shrinks(rng):
    atoms, y = unit(rng, 40, 100), rng.standard_normal((40, 25))
    before = np.inf
    for s in (1, 2, 7, 20):
        codes = omp(atoms, y, s)
        residual = y - atoms @ dense(codes)
        for i in range(25):
            assert np.abs(atoms[:, codes.indices[i]].T @ residual[:, i]).max() < 1e-10
        assert np.linalg.norm(residual) < before
        before = np.linalg.norm(residual)


@pytest.mark.parametrize("s", [1, 2, 3])
def test_planted_combinations_of_orthonormal_atoms_are_found(s, rng):
    atoms = np.linalg.qr(rng.standard_normal((32, 16)))[0]
    x = np.zeros((16, 2000))
    for column in x.T:
        column[rng.choice(16, s, replace=False)] = rng.standard_normal(s)
    y = atoms @ x
    codes = omp(atoms, y, s)
    assert np.linalg.norm(y - atoms @ dense(codes)) < 1e-10 * np.linalg.norm(y)
    assert ((dense(codes) != 0) == (x != 0)).all()


def test_columns_as_atoms_code_themselves_and_equal_columns_get_equal_codes(rng):
    w = rng.standard_normal((12, 20))
    w[:, 7] = w[:, 3]
    codes = omp(w / np.linalg.norm(w, axis=0), w, 1)
    np.testing.assert_allclose(w / np.linalg.norm(w, axis=0) @ dense(codes), w, atol=1e-12)
    assert codes.indices[7, 0] == codes.indices[3, 0] == 3  # of equal products the lower index


def test_what_is_represented_takes_no_more_atoms_and_rows_are_filled_up(rng):
    atoms = np.linalg.qr(rng.standard_normal((9, 6)))[0]
    y = np.stack([3 * atoms[:, 4], atoms[:, 1] - atoms[:, 5], np.zeros(9)], axis=1)
    codes = omp(atoms, y, 4)
    assert codes.counts.tolist() == [1, 2, 0]
    assert codes.indices[0].tolist() == [4, 0, 1, 2] and codes.values[0, 1:].tolist() == [0, 0, 0]
    assert sorted(codes.indices[1, :2]) == [1, 5] and codes.indices[2].tolist() == [0, 1, 2, 3]
    assert codes.nnz == 3 and codes.as_csr().nnz == 3
    twice = np.concatenate([atoms, atoms], axis=1)
    full = omp(twice, rng.standard_normal((9, 30)), 8)
    assert (full.counts == 6).all() and np.isfinite(full.values).all()  # the span has six dimensions


def test_a_tolerance_ends_a_vector_as_soon_as_its_residual_is_short(rng):
    atoms, y = unit(rng, 30, 60), rng.standard_normal((30, 50))
    codes, all_of_them = omp(atoms, y, 25, tol=0.4), omp(atoms, y, 25)
    assert codes.counts.min() < 25
    for i in range(50):
        count = codes.counts[i]
        assert (codes.indices[i, :count] == all_of_them.indices[i, :count]).all()
        left = np.linalg.norm(y[:, i] - atoms @ dense(codes)[:, i]) / np.linalg.norm(y[:, i])
        assert left <= 0.4 + 1e-12
        if count:
            fewer = omp(atoms, y[:, i : i + 1], int(count) - 1) if count > 1 else None
            assert fewer is None or np.linalg.norm(y[:, i] - atoms @ dense(fewer)[:, 0]) > 0.4 * np.linalg.norm(y[:, i])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_and_memory_order_change_nothing(dtype, rng):
    atoms, y = unit(rng, 33, 70, dtype), rng.standard_normal((33, 91)).astype(dtype)
    found = [omp(atoms, y, 9, num_threads=threads) for threads in (1, 2, 5)]
    for each in found[1:]:
        assert (each.indices == found[0].indices).all() and (each.values == found[0].values).all()
    turned = omp(np.asfortranarray(atoms), np.ascontiguousarray(y.T).T, 9)
    assert (turned.indices == found[0].indices).all()


def test_no_vectors_and_one_atom():
    assert omp(np.ones((1, 1)), np.empty((1, 0)), 1).indices.shape == (0, 1)
    codes = omp(np.ones((1, 1), np.float32), np.array([[3.0, -2.0]], np.float32), 1)
    assert codes.values.tolist() == [[3], [-2]]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"s": 0}, "omp: s must be an int from 1 to 4"),
        ({"s": 5}, "omp: s must be an int from 1 to 4"),
        ({"tol": 1.0}, "omp: tol must be below 1"),
        ({"tol": -0.1}, "omp: tol must be a finite number"),
        ({"dictionary": np.ones((2, 4))}, r"dictionary must be \(d, k\) and vectors \(d, n\).*transpose"),
        ({"vectors": np.full((3, 2), np.nan)}, "omp: vectors must be finite"),
        ({"dictionary": np.full((3, 4), np.inf)}, "omp: dictionary must be finite"),
    ],
)
def test_bad_arguments(change, told):
    with pytest.raises(ValueError, match=told):
        omp(**({"dictionary": np.ones((3, 4)), "vectors": np.ones((3, 2)), "s": 2} | change))


def test_dtypes_must_agree():
    with pytest.raises(TypeError, match="omp: dictionary must be a NumPy array of float32"):
        omp(np.ones((3, 4)), np.ones((3, 2), np.float32), 1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"indices": np.array([[0, 0]], np.int32)}, "at most once in a row"),
        ({"indices": np.array([[0, 9]], np.int32)}, r"indices must be in \[0, 3\), got 0 to 9"),
        ({"indices": np.array([[-1, 1]], np.int32)}, r"indices must be in \[0, 3\)"),
        ({"counts": np.array([3], np.int32)}, "counts must be from 0 to 2"),
        ({"counts": np.array([1], np.int32)}, "behind the count of their row must be 0"),
        ({"counts": np.array([1, 1], np.int32)}, r"counts must be \(1,\)"),
        ({"values": np.ones((1, 3))}, r"must both be \(n, s\)"),
    ],
)
def test_codes_are_checked(change, told):
    good = {"indices": np.array([[2, 1]], np.int32), "values": np.ones((1, 2)), "counts": np.array([2], np.int32)}
    with pytest.raises(ValueError, match=f"SparseCodes: .*{told}"):
        SparseCodes(**(good | {"atoms": 3} | change))


def test_codes_as_a_matrix_have_rising_columns():
    codes = SparseCodes(indices=np.array([[2, 1], [0, 2]], np.int32), values=np.array([[5.0, 6], [7, 0]]),
                        counts=np.array([2, 1], np.int32), atoms=3)  # fmt: skip
    matrix = codes.as_csr()
    assert matrix.indices.tolist() == [1, 2, 0] and matrix.data.tolist() == [6, 5, 7]
    assert matrix.indptr.tolist() == [0, 2, 3] and matrix.shape == (2, 3)


def test_work_by_hand():
    """2 atoms of 3 numbers, 5 vectors, 2 steps: 2 3 2 7 flops of products, 2 (2 (1 + 2) + 2 + 2) for a vector."""
    work = omp_work(3, 2, 5, 2)
    assert work.flops == 84 + 5 * 20 and work.gathers == 10
    assert work.bytes_streamed == 4 * (6 + 15 + 10) + 4 * 15
