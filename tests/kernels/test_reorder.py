"""Orderings are permutations that keep the entries; statistics against the dense pattern."""

import numpy as np
import pytest
from scipy import sparse

from kernels.raster import block_density
from kernels.reorder import METHODS, bit_statistics, permuted, reorder, statistics, statistics_reference


def some(rng, m, n, density=0.1):
    return sparse.random_array((m, n), density=density, format="csr", rng=rng, dtype=np.float64)


def grid(k):
    line = sparse.diags_array([np.ones(k - 1), np.ones(k), np.ones(k - 1)], offsets=[-1, 0, 1])
    eye = sparse.eye_array(k)
    return sparse.csr_array(sparse.kron(line, eye) + sparse.kron(eye, line))


@pytest.mark.parametrize("shape", ((40, 40), (17, 60), (60, 17), (1, 1), (0, 0), (3, 0)))
@pytest.mark.parametrize("method", METHODS)
def test_orderings_are_permutations_and_keep_every_entry(rng, shape, method):
    a = some(rng, *shape)
    ordering = reorder(a, method, seed=3)
    np.testing.assert_array_equal(np.sort(ordering.rows), np.arange(shape[0]))
    np.testing.assert_array_equal(np.sort(ordering.columns), np.arange(shape[1]))
    found = permuted(a, ordering)
    np.testing.assert_array_equal(found.toarray(), a.toarray()[np.ix_(ordering.rows, ordering.columns)])
    if shape[0] == shape[1]:
        np.testing.assert_array_equal(ordering.rows, ordering.columns)


@pytest.mark.parametrize("method", METHODS)
def test_equal_seed_gives_equal_ordering(rng, method):
    a = some(rng, 50, 50)
    np.testing.assert_array_equal(reorder(a, method, seed=5).rows, reorder(a, method, seed=5).rows)


def test_cuthill_mckee_narrows_a_shuffled_grid(rng):
    shuffled = permuted(grid(12), reorder(grid(12), "random", seed=1))
    assert statistics(permuted(shuffled, reorder(shuffled, "rcm"))).bandwidth <= 24 < statistics(shuffled).bandwidth


def test_degree_puts_the_longest_rows_first(rng):
    a = some(rng, 30, 20)
    lengths = np.diff(permuted(a, reorder(a, "degree")).indptr)
    assert (np.diff(lengths) <= 0).all()


def test_morton_visits_quadrants_one_after_the_other():
    order = reorder(sparse.csr_array((16, 16)), "morton").rows
    np.testing.assert_array_equal(order[:8], [0, 1, 4, 5, 2, 3, 6, 7])


def test_cluster_gathers_equal_rows(rng):
    kinds = rng.integers(0, 4, 64)
    dense = np.zeros((64, 80))
    for row, kind in enumerate(kinds):
        dense[row, kind * 20 : kind * 20 + 20] = 1
    clustered = permuted(sparse.csr_array(dense), reorder(sparse.csr_array(dense), "cluster"))
    assert block_density(clustered, 4).fill > 0.8 > block_density(sparse.csr_array(dense), 4).fill


@pytest.mark.parametrize("shape", ((31, 31), (20, 33), (33, 20), (1, 1), (0, 0), (4, 0)))
def test_statistics_equal_the_reference(rng, shape):
    a = some(rng, *shape, 0.15)
    found, wanted = statistics(a), statistics_reference(a)
    for field in ("shape", "nnz", "bandwidth", "profile"):
        assert getattr(found, field) == getattr(wanted, field), field
    np.testing.assert_array_equal(found.row_lengths, wanted.row_lengths)
    np.testing.assert_equal(found.symmetric_share, wanted.symmetric_share)


def test_symmetric_share_of_known_patterns():
    assert statistics(grid(5)).symmetric_share == 1
    assert statistics(sparse.csr_array(np.triu(np.ones((6, 6))))).symmetric_share == 0
    assert statistics(sparse.eye_array(4, format="csr")).symmetric_share == 1


@pytest.mark.parametrize("method", ("none", "rcm", "degree", "random", "morton", "cluster"))
def test_half_precision_is_moved_as_any_other(rng, method):
    a = some(rng, 31, 31, 0.2)
    half = sparse.csr_array((a.data.astype(np.float16), a.indices, a.indptr), shape=a.shape)
    found = permuted(half, reorder(half, method))
    wanted = permuted(a, reorder(a, method))
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found.data, wanted.data.astype(np.float16))
    np.testing.assert_array_equal(found.indices, wanted.indices)


def test_unknown_method_is_named(rng):
    with pytest.raises(ValueError, match="none, rcm"):
        reorder(some(rng, 3, 3), "rcn")


@pytest.mark.parametrize("shape", ((31, 31), (20, 77), (2100, 9), (1, 1), (4, 0), (0, 8)))
def test_bit_statistics_equal_those_of_the_unpacked_mask(rng, shape):
    mask = rng.random(shape) < 0.05
    found = bit_statistics(np.packbits(mask, axis=1, bitorder="little"), shape[1])
    wanted = statistics(sparse.csr_array(mask))
    for field in ("shape", "nnz", "bandwidth", "profile"):
        assert getattr(found, field) == getattr(wanted, field), field
    np.testing.assert_array_equal(found.row_lengths, wanted.row_lengths)


def test_bit_statistics_refuse_another_width():
    with pytest.raises(ValueError, match="do not fit 20 columns"):
        bit_statistics(np.zeros((3, 2), np.uint8), 20)
