import numpy as np
import pytest
import scipy.sparse as sp

from workbench.data.matrices import MATRICES, banded, erdos_renyi, poisson2d, poisson3d, power_law, rmat, w0


def is_canonical(matrix):
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    keys = rows * max(matrix.shape[1], 1) + matrix.indices
    return bool(np.all(np.diff(keys) > 0))


def test_w0_has_the_counts_of_the_reference_workload():
    a, b = w0()
    ones = sp.csr_array((np.ones(b.nnz), b.indices, b.indptr), shape=b.shape)
    assert a.shape == b.shape == (16384, 16384)
    assert (a.nnz, b.nnz) == (254_968, 254_893)
    assert np.diff(b.indptr)[a.indices].sum() == 5_731_470
    assert (a @ ones).nnz == 5_222_541
    assert is_canonical(a) and is_canonical(b)
    assert set(np.unique(a.data)) == {1.0}


def test_rmat_follows_the_definition_edge_by_edge():
    a, b, c, d, scale, factor, seed = 0.4, 0.3, 0.2, 0.1, 3, 2, 5
    rng = np.random.default_rng(seed)
    draws = [rng.random(factor * 2**scale) for _ in range(scale)]
    want = np.zeros((8, 8))
    for edge in range(factor * 2**scale):
        i = j = 0
        for level in range(scale):
            u = draws[level][edge]
            quadrant = 0 if u < a else 1 if u < a + b else 2 if u < a + b + c else 3
            i, j = 2 * i + quadrant // 2, 2 * j + quadrant % 2
        want[i, j] = 1
    got = rmat(scale, factor, a, b, c, d, seed=seed)
    np.testing.assert_array_equal(got.toarray(), want)


def test_rmat_depends_on_its_seed_alone():
    first = rmat(8, 4, seed=3, values="uniform")
    again, other = rmat(8, 4, seed=3, values="uniform"), rmat(8, 4, seed=4, values="uniform")
    assert (first != again).nnz == 0
    assert (first != other).nnz > 0
    assert first.data.min() > 0 and first.data.max() <= 1


def test_rmat_permute_relabels_rows_and_columns_alike():
    plain, moved = rmat(6, 4, seed=2), rmat(6, 4, seed=2, permute=True)
    assert plain.nnz == moved.nnz
    assert plain.trace() == moved.trace()
    assert sorted(np.diff(plain.indptr)) == sorted(np.diff(moved.indptr))
    assert (plain != moved).nnz > 0
    assert is_canonical(moved)


@pytest.mark.parametrize("scale", [0, 1])
def test_rmat_of_one_or_two_vertices(scale):
    assert rmat(scale, 1).shape == (2**scale, 2**scale)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"scale": 2.0}, TypeError, "scale must be an int"),
        ({"scale": -1}, ValueError, "from 0 to 24"),
        ({"scale": 3, "a": 0.9}, ValueError, "sum to 1"),
        ({"scale": 3, "edge_factor": 0}, ValueError, "edge_factor"),
        ({"scale": 3, "values": "normal"}, ValueError, "values must be"),
        ({"scale": 24, "edge_factor": 64}, ValueError, "limit"),
    ],
)
def test_rmat_says_what_it_wanted(arguments, error, words):
    with pytest.raises(error, match=words):
        rmat(**arguments)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize(("make", "dimensions"), [(poisson2d, 2), (poisson3d, 3)])
def test_poisson_is_the_grid_laplacian(make, dimensions, n):
    got = make(n)
    points = np.stack(np.meshgrid(*[np.arange(n)] * dimensions, indexing="ij"), -1).reshape(-1, dimensions)
    distance = np.abs(points[:, None] - points[None]).sum(-1)
    want = 2.0 * dimensions * (distance == 0) - (distance == 1)
    np.testing.assert_array_equal(got.toarray(), want)
    assert is_canonical(got)


@pytest.mark.parametrize(("n", "width"), [(0, 2), (1, 3), (5, 0), (9, 2), (4, 40)])
def test_banded_fills_the_band_and_nothing_else(n, width):
    got = banded(n, width).toarray() != 0
    i, j = np.indices((n, n))
    np.testing.assert_array_equal(got, np.abs(i - j) <= width)


def test_banded_density_is_the_filled_fraction():
    full, half = banded(2000, 5), banded(2000, 5, density=0.5)
    assert abs(half.nnz / full.nnz - 0.5) < 0.02


@pytest.mark.parametrize("make", [erdos_renyi, power_law])
@pytest.mark.parametrize(("m", "n"), [(0, 0), (0, 5), (5, 0), (1, 1), (40, 7), (7, 40)])
def test_random_matrices_of_any_shape_are_canonical(make, m, n):
    got = make(m, n, 3.0, seed=1)
    assert got.shape == (m, n)
    assert is_canonical(got)
    assert (got != make(m, n, 3.0, seed=1)).nnz == 0


def test_power_law_rows_are_skewed_and_uniform_ones_are_not():
    heavy = np.diff(power_law(20_000, nnz_per_row=8, exponent=2.0).indptr)
    light = np.diff(erdos_renyi(20_000, nnz_per_row=8).indptr)
    assert 5 < heavy.mean() < 9
    assert heavy.max() > 100 * np.median(heavy)
    assert light.max() < 40


@pytest.mark.slow
@pytest.mark.parametrize("key", MATRICES)
def test_every_matrix_of_the_menu_is_canonical_with_32_bit_indices(key):
    matrix = MATRICES[key].load()
    assert is_canonical(matrix)
    assert matrix.indices.dtype == matrix.indptr.dtype == np.int32
