"""Tiled-CSL times few columns: both forms against the reference, SciPy and dense products."""

import numpy as np
import pytest
from scipy import sparse

from kernels.formats.tiled_csl import TiledCSL
from kernels.matmul.skinny_spmm import skinny_spmm, skinny_spmm_reference, skinny_spmm_work


def weights(m, k, density, rng):
    return np.where(rng.random((m, k)) < density, rng.standard_normal((m, k)), 0).astype(np.float16)


def columns(k, n, rng):
    return rng.standard_normal((k, n)).astype(np.float32)


@pytest.mark.parametrize("reorder", [True, False])
@pytest.mark.parametrize("n", [0, 1, 2, 15, 16, 17, 33, 48, 64, 65, 130])
@pytest.mark.parametrize(
    ("m", "k", "tiling"), [(128, 64, {}), (37, 200, {"tile_m": 16, "tile_k": 128}), (5, 90, {"tile_m": 8, "vector": 1})]
)
def test_both_forms_equal_a_dense_product(m, k, tiling, n, reorder, rng, assert_close):
    w, b = weights(m, k, 0.3, rng), columns(k, n, rng)
    a = TiledCSL.encode(w, reorder=reorder, pad=True, **tiling)
    wanted = w.astype(np.float64) @ b.astype(np.float64)
    for method in ("auto", "dense_tile") if reorder else ("auto", "dense_tile", "entries"):
        c = skinny_spmm(a, b, method=method)
        assert c.dtype == np.float32
        assert_close(c, wanted, label=method)


@pytest.mark.parametrize("density", [0.0, 0.02, 1.0])
@pytest.mark.parametrize(("m", "k"), [(128, 64), (9, 70)])
def test_reference_and_scipy_agree_from_empty_to_full(m, k, density, rng, assert_close):
    w, b = weights(m, k, density, rng), columns(k, 7, rng)
    for reorder in (True, False):
        a = TiledCSL.encode(w, reorder=reorder, pad=True)
        assert_close(skinny_spmm(a, b), skinny_spmm_reference(a, b))
    assert_close(skinny_spmm_reference(a, b), sparse.csr_array(w.astype(np.float32)) @ b)


@pytest.mark.parametrize("shape", [(0, 64), (128, 0), (0, 0)])
def test_empty_matrices(shape):
    a = TiledCSL.encode(np.zeros(shape, np.float16))
    for split_k in (1, 3):
        c = skinny_spmm(a, np.ones((shape[1], 3), np.float32), split_k=split_k)
        np.testing.assert_array_equal(c, np.zeros((shape[0], 3)))


def test_rows_longer_than_what_is_taken_apart_at_once(rng, assert_close):
    w, b = weights(3, 4096, 0.9, rng), columns(4096, 5, rng)
    w[1] = 0
    a = TiledCSL.encode(w, 3, 4096, reorder=False)
    assert_close(skinny_spmm(a, b), w.astype(np.float64) @ b)


def test_every_half_precision_value_is_read_exactly():
    bits = np.arange(65536, dtype=np.uint32)
    finite = bits[(bits & 0x7C00) != 0x7C00].astype(np.uint16).view(np.float16)
    w = np.zeros((len(finite) // 64, 64), np.float16)
    for column in range(64):  # one value a row: the sum is the value
        w[:] = 0
        w[:, column] = finite.reshape(-1, 64)[:, column]
        for reorder in (True, False):
            c = skinny_spmm(TiledCSL.encode(w, reorder=reorder, pad=True), np.ones((64, 1), np.float32))
            np.testing.assert_array_equal(c[:, 0], w[:, column].astype(np.float32))


def test_words_of_a_row_are_added_in_four_chains():
    w = np.zeros((1, 64), np.float16)
    w[0, :5] = 1
    b = np.zeros((64, 1), np.float32)
    b[:5, 0] = 1, 2.0**25, 1, -(2.0**25), 1  # (1 + 1 + 2^25) + (1 - 2^25): the pair (2, 2^25) is exact
    a = TiledCSL.encode(w, 1, 64, reorder=False)
    assert skinny_spmm(a, b)[0, 0] == np.float32(2.0**25 + 2) + np.float32(1 - 2.0**25)
    assert skinny_spmm(a, b, method="dense_tile")[0, 0] == 1  # 1 + 2^25 + 1 rounds to 2^25


def test_split_k_adds_groups_of_tiles_in_order(rng, assert_close):
    w, b = weights(20, 64 * 7, 0.3, rng), columns(64 * 7, 9, rng)
    for reorder in (True, False):
        a = TiledCSL.encode(w, 16, 64, reorder=reorder, pad=True)
        for split_k in (2, 3, 7, 100):
            width = 64 * -(-7 // min(split_k, 7))
            parts = []
            for start in range(0, 64 * 7, width):
                piece = np.ascontiguousarray(w[:, start : start + width])
                tiles = TiledCSL.encode(piece, 16, 64, reorder=reorder, pad=True)
                parts.append(skinny_spmm(tiles, b[start : start + width]))
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            np.testing.assert_array_equal(skinny_spmm(a, b, split_k=split_k), total)


@pytest.mark.parametrize("reorder", [True, False])
@pytest.mark.parametrize("split_k", [1, 2])
def test_same_bits_for_any_thread_count(split_k, reorder, rng):
    w, b = weights(300, 256, 0.2, rng), columns(256, 70, rng)
    a = TiledCSL.encode(w, reorder=reorder, pad=True)
    for threads in (2, 5):
        np.testing.assert_array_equal(
            skinny_spmm(a, b, split_k=split_k, num_threads=threads), skinny_spmm(a, b, split_k=split_k, num_threads=1)
        )


def test_infinity_and_nan_reach_the_rows_that_meet_them(rng):
    w, b = weights(100, 100, 0.05, rng), columns(100, 20, rng)
    b[7, 3], b[9, 19] = np.nan, np.inf
    rows = TiledCSL.encode(w, reorder=False, pad=True)
    c = skinny_spmm(rows, b)
    np.testing.assert_array_equal(np.isnan(c[:, 3]), w[:, 7] != 0)
    np.testing.assert_array_equal(np.isinf(c[:, 19]), w[:, 9] != 0)
    assert np.isfinite(np.delete(c, [3, 19], 1)).all()
    dense = skinny_spmm(rows, b, method="dense_tile")
    assert np.isnan(dense[:, 3]).all() and not np.isfinite(dense[:, 19]).any()
    assert np.isfinite(np.delete(dense, [3, 19], 1)).all()


def test_words_that_fill_up_a_vector_count_for_nothing():
    """Two of them repeat a place, which lies outside the matrix, and B is infinite where the third lies."""
    nz = np.array([0x3C00, 1 << 16, 63 << 16, 63 << 16], np.uint32)
    a = TiledCSL(nz, np.array([0, 1, 1], np.int32), (1, 60), 1, 64)
    b = np.ones((60, 2), np.float32)
    b[1] = np.inf
    np.testing.assert_array_equal(skinny_spmm(a, b), [[1, 1]])
    np.testing.assert_array_equal(skinny_spmm_reference(a, b), [[1, 1]])


def test_a_tile_full_of_filling_words_is_read_within_its_bounds():
    nz = np.full(64 * 8, 5 << 16, np.uint32)
    nz[0] = 0x3C00
    a = TiledCSL(nz, np.array([0, 128, 128], np.int32), (8, 64), 8, 64)
    for method in ("entries", "dense_tile"):
        c = skinny_spmm(a, np.ones((64, 3), np.float32), method=method)
        np.testing.assert_array_equal(c, np.arange(8)[:, None] == np.zeros(3))


def test_work_counts(rng):
    a = TiledCSL.encode(weights(128, 128, 0.3, rng))
    work = skinny_spmm_work(a, 8)
    assert work.flops == 2 * a.nnz * 8 and work.gathers == a.nnz
    assert work.bytes_streamed == 4 * a.padded_nnz + 4 * 4 + 4 * 8 * (128 + 128)


def test_bad_input_is_named(rng):
    a, b = TiledCSL.encode(weights(128, 64, 0.3, rng)), columns(64, 2, rng)
    with pytest.raises(TypeError, match="a must be a TiledCSL, got ndarray"):
        skinny_spmm(a.decode(), b)
    with pytest.raises(TypeError, match="b must be a NumPy array of float32, got float64"):
        skinny_spmm(a, b.astype(np.float64))
    with pytest.raises(ValueError, match="b has 63 rows"):
        skinny_spmm(a, b[:63])
    with pytest.raises(ValueError, match="C-contiguous"):
        skinny_spmm(a, np.asfortranarray(b))
    with pytest.raises(ValueError, match="split_k must be an int of at least 1"):
        skinny_spmm(a, b, split_k=0)
    with pytest.raises(ValueError, match="method must be one of auto, dense_tile, entries"):
        skinny_spmm(a, b, method="sparse")
    with pytest.raises(ValueError, match="'entries' wants words row by row"):
        skinny_spmm(a, b, method="entries")
    with pytest.raises(TypeError, match="skinny_spmm_work: a must be a TiledCSL"):
        skinny_spmm_work(b, 3)
