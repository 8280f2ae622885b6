"""Pixels against the formula and numpy.bincount; blocks against the dense pattern; malformed input refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import kernels
from kernels.raster import (
    bin_areas,
    bin_edges,
    bit_block_density,
    block_density,
    block_density_reference,
    raster,
    raster_bits,
    raster_bits_reference,
    raster_reference,
    raster_work,
    window_entries,
)


def random_csr(rng, m, n, density=0.1, index=np.int32, canonical=True):
    nnz = int(m * n * density)
    rows = np.sort(rng.integers(0, max(m, 1), nnz)) if nnz else np.zeros(0, int)
    columns = rng.integers(0, max(n, 1), nnz).astype(index)
    indptr = np.searchsorted(rows, np.arange(m + 1)).astype(index)
    a = sparse.csr_array((rng.standard_normal(nnz), columns, indptr), shape=(m, n))
    if canonical:
        a.sum_duplicates()
    return a


WINDOWS = (None, (0, 0, 0, 0), (3, 3, 0, 5), (1, 18, 2, 29), (0, 37, 30, 31), (36, 37, 0, 53))


@pytest.mark.parametrize("index", (np.int32, np.int64))
@pytest.mark.parametrize("canonical", (True, False))
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("shape", ((512, 512), (7, 5), (1, 1), (37, 3)))
def test_equals_the_formula(rng, index, canonical, window, shape):
    a = random_csr(rng, 37, 53, index=index, canonical=canonical)
    found = raster(a, window, shape)
    np.testing.assert_array_equal(found, raster_reference(a, window, shape))
    if window is None:
        assert found.sum() == a.nnz


def test_equals_numpy_bincount_on_a_million_entries(rng):
    m, n, nnz = 30_011, 70_001, 1_000_000
    rows = np.sort(rng.integers(0, m, nnz))
    columns = rng.integers(0, n, nnz)
    indptr = np.searchsorted(rows, np.arange(m + 1))
    a = sparse.csr_array((np.ones(nnz, np.float32), columns, indptr), shape=(m, n))
    wanted = np.bincount(rows * 512 // m * 512 + columns * 512 // n, minlength=512 * 512).reshape(512, 512)
    np.testing.assert_array_equal(raster(a), wanted)


def test_one_to_one_is_the_matrix(rng):
    a = random_csr(rng, 300, 400)
    np.testing.assert_array_equal(raster(a, (10, 210, 33, 390), (512, 512)), a.toarray()[10:210, 33:390] != 0)


def test_same_for_any_number_of_threads(rng):
    a = random_csr(rng, 200, 150, 0.3)
    pictures = [raster(a, shape=(33, 31), num_threads=t) for t in (1, 2, 5)]
    kernels.set_num_threads(3)
    pictures.append(raster(a, shape=(33, 31)))
    for picture in pictures[1:]:
        np.testing.assert_array_equal(picture, pictures[0])


@given(size=st.integers(1, 2**40), bins=st.integers(1, 8192), seed=st.integers(0, 2**32 - 1))
def test_wide_columns_fall_into_the_exact_bin(size, bins, seed):
    """Columns next to bin edges, for widths up to 2^40: the multiply-and-shift never slips by one."""
    edges = bin_edges(size, bins)
    rng = np.random.default_rng(seed)
    near = rng.choice(edges, 32)
    columns = np.unique(np.clip(np.concatenate([near - 1, near, near + 1]), 0, size - 1))
    a = sparse.csr_array((np.ones(len(columns)), columns, np.array([0, len(columns)])), shape=(1, size))
    wanted = np.zeros(len(edges) - 1, np.uint32)
    np.add.at(wanted, np.searchsorted(edges, columns, side="right") - 1, 1)
    np.testing.assert_array_equal(raster(a, None, (1, bins))[0], wanted)


@pytest.mark.parametrize(("size", "bins"), ((1, 1), (5, 8), (8, 8), (1000, 512), (513, 512), (0, 4)))
def test_bins_partition_evenly(size, bins):
    edges = bin_edges(size, bins)
    widths = np.diff(edges)
    assert edges[-1] == size and widths.sum() == size
    if size:
        assert widths.min() >= 1 and widths.max() - widths.min() <= 1


def test_full_matrix_shades_without_moire():
    a = sparse.csr_array(np.ones((700, 611)))
    areas = bin_areas((0, 700, 0, 611), (512, 512))
    np.testing.assert_array_equal(raster(a) / areas, np.ones((512, 512)))
    assert areas.sum() == a.nnz


def test_marginals_sum_to_the_entries_of_the_window(rng):
    a = random_csr(rng, 333, 222, 0.05)
    window = (11, 300, 5, 201)
    picture = raster(a, window, (64, 64))
    inside = np.count_nonzero(a.toarray()[11:300, 5:201])
    assert picture.sum(axis=0).sum() == picture.sum(axis=1).sum() == inside


def test_window_entries_are_those_of_the_matrix(rng):
    a = random_csr(rng, 40, 50)
    rows, columns, values = window_entries(a, (5, 20, 10, 45))
    dense = np.zeros(a.shape)
    dense[rows, columns] = values
    wanted = np.zeros(a.shape)
    wanted[5:20, 10:45] = a.toarray()[5:20, 10:45]
    np.testing.assert_array_equal(dense, wanted)


@pytest.mark.parametrize("shape", ((70, 131), (9, 64), (33, 200), (5, 1), (0, 8), (4, 0), (3, 65)))
@pytest.mark.parametrize("pixels", ((512, 512), (7, 11), (1, 3)))
def test_bits_equal_the_unpacked_mask(rng, shape, pixels):
    mask = rng.random(shape) < 0.4
    bits = np.packbits(mask, axis=1, bitorder="little")
    windows = [None, (shape[0] // 3, shape[0], shape[1] // 4, max(shape[1] // 4, shape[1] - 1))]
    for window in windows:
        found = raster_bits(bits, shape[1], window, pixels)
        np.testing.assert_array_equal(found, raster_bits_reference(bits, shape[1], window, pixels))


def test_bits_past_the_last_column_do_not_count():
    bits = np.full((3, 2), 255, np.uint8)
    assert raster_bits(bits, 11, shape=(1, 1))[0, 0] == 33


@pytest.mark.parametrize("block", (1, 3, 4, 16, 100))
@pytest.mark.parametrize("shape", ((37, 53), (64, 64), (1, 9), (0, 4), (5, 0)))
def test_block_density_equals_the_reference(rng, block, shape):
    a = random_csr(rng, *shape, 0.2)
    found, wanted = block_density(a, block), block_density_reference(a, block)
    np.testing.assert_array_equal(found.histogram, wanted.histogram)
    for field in ("block_size", "blocks", "kept", "full", "covered", "nnz"):
        assert getattr(found, field) == getattr(wanted, field), field


def test_block_density_of_a_dense_matrix_is_all_full():
    found = block_density(sparse.csr_array(np.ones((65, 33))), 16)
    assert found.kept == found.full == found.blocks == 5 * 3
    assert found.fill == 1 and found.kept_share == 1 and found.histogram[9] == 15


def test_work_counts_indices_once(rng):
    a = random_csr(rng, 37, 53)
    assert raster_work(a).gathers == a.nnz
    assert raster_work(a, shape=(4, 4)).bytes_streamed == a.nnz * 4 + 38 * 4 + 64


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    (
        ({"window": (0, 38, 0, 5)}, ValueError, "leaves the matrix"),
        ({"window": (5, 4, 0, 5)}, ValueError, "leaves the matrix"),
        ({"window": (0, 1, 0)}, ValueError, "r0, r1, c0, c1"),
        ({"window": (0.0, 1, 0, 2)}, TypeError, "must be an int"),
        ({"shape": (0, 5)}, ValueError, "1 to 8192"),
        ({"shape": (5, 9000)}, ValueError, "1 to 8192"),
        ({"num_threads": 0}, ValueError, "num_threads must be an int from 1 to 256"),
    ),
)
def test_bad_arguments_are_named(rng, arguments, error, words):
    with pytest.raises(error, match=words):
        raster(random_csr(rng, 37, 53), **arguments)


def test_malformed_matrices_are_refused(rng):
    a = random_csr(rng, 37, 53)
    a.indices[3] = 53
    for function in (raster, lambda x: block_density(x, 4), lambda x: window_entries(x, (0, 1, 0, 1))):
        with pytest.raises(ValueError, match="not a valid CSR"):
            function(a)
    with pytest.raises(TypeError, match="csr_array"):
        raster(random_csr(rng, 3, 4).tocoo())
    with pytest.raises(ValueError, match="sum_duplicates"):
        block_density(random_csr(rng, 37, 53, 0.5, canonical=False), 4)
    with pytest.raises(ValueError, match="bytes a row"):
        raster_bits(np.zeros((3, 2), np.uint8), 17)
    with pytest.raises(TypeError, match="uint8"):
        raster_bits(np.zeros((3, 2)), 16)


@pytest.mark.parametrize("block", (1, 4, 8, 16))
def test_blocks_of_bits_equal_those_of_the_unpacked_mask(rng, block):
    mask = rng.random((48, 80)) < 0.1
    mask[16:32, 16:32] = True
    found = bit_block_density(np.packbits(mask, axis=1, bitorder="little"), 80, block)
    wanted = block_density(sparse.csr_array(mask), block)
    np.testing.assert_array_equal(found.histogram, wanted.histogram)
    for field in ("block_size", "blocks", "kept", "full", "covered", "nnz"):
        assert getattr(found, field) == getattr(wanted, field), field


def test_blocks_of_bits_must_divide_the_mask():
    with pytest.raises(ValueError, match="must divide 6 x 16"):
        bit_block_density(np.zeros((6, 2), np.uint8), 16, 4)
