"""Tiled-CSL: bit by bit against a plain encoder and words worked out by hand, and what it refuses."""

import copy
import pickle

import numpy as np
import pytest

from kernels.formats.tiled_csl import TiledCSL, encode_reference


def sparse(m, k, density, rng):
    return np.where(rng.random((m, k)) < density, rng.standard_normal((m, k)), 0).astype(np.float16)


def tile_words(t, tile):
    return t.nz[t.tile_offsets[tile] * t.vector : t.tile_offsets[tile + 1] * t.vector]


@pytest.mark.parametrize("reorder", [True, False])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.3, 0.97, 1.0])
@pytest.mark.parametrize(
    ("shape", "tiling"),
    [((128, 128), (128, 64, 4)), ((37, 70), (16, 64, 4)), ((9, 300), (8, 128, 8)), ((3, 64), (1, 64, 1))],
)
def test_bits_are_those_of_the_plain_encoder(shape, tiling, density, reorder, rng):
    w = sparse(*shape, density, rng)
    t = TiledCSL.encode(w, *tiling, reorder=reorder, pad=True)
    nz, offsets = encode_reference(w, *tiling, reorder=reorder)
    np.testing.assert_array_equal(t.nz, nz)
    np.testing.assert_array_equal(t.tile_offsets, offsets)
    np.testing.assert_array_equal(t.decode().view(np.uint16), w.view(np.uint16))
    assert t.nnz == np.count_nonzero(w)
    assert t.shape == shape and t.decode().dtype == np.float16


def test_words_worked_out_by_hand():
    w = np.zeros((2, 64), np.float16)
    w[0, 3], w[1, 0], w[1, 9] = 1.0, -2.0, 0.5
    t = TiledCSL.encode(w, 2, 64, 4, reorder=False)
    # Row 1 swaps its chunks of eight columns: 0 -> 8, 9 -> 1. The last zero, (1, 63) -> 55, takes the word too few.
    assert t.nz.tolist() == [3 << 16 | 0x3C00, 72 << 16 | 0xC000, 65 << 16 | 0x3800, 119 << 16]
    assert t.tile_offsets.tolist() == [0, 1, 1]
    # Banks 1 (3), 4 (72) and 0 (65) hold one word each; the bank with the fewest, 2, gets a zero at its first place, 4.
    # Taken from the lowest bank on, and each lane's words come out turned round.
    dealt = TiledCSL.encode(w, 2, 64, 4)
    assert dealt.nz.tolist() == [72 << 16 | 0xC000, 4 << 16, 3 << 16 | 0x3C00, 65 << 16 | 0x3800]


def test_reordering_moves_words_only_within_tiles_and_spreads_banks(rng):
    w = sparse(256, 256, 0.2, rng)
    plain, dealt = TiledCSL.encode(w, reorder=False), TiledCSL.encode(w)
    np.testing.assert_array_equal(plain.tile_offsets, dealt.tile_offsets)
    for tile in range(8):
        a, b = (np.sort(words[words & 0x7FFF != 0]) for words in (tile_words(plain, tile), tile_words(dealt, tile)))
        np.testing.assert_array_equal(a, b)
        assert 0 <= len(tile_words(plain, tile)) - len(a) < 4
    assert 1 <= dealt.bank_conflict_degree() < 1.5 < 3 < plain.bank_conflict_degree() < 3.4
    assert plain.row_ends is not None and dealt.row_ends is None


def test_the_degree_of_conflict_by_hand():
    w = np.zeros((1, 128), np.float16)
    w[0, [0, 2, 4, 6, 1]] = 1  # columns 0 and 1 share bank 0
    plain = TiledCSL.encode(
        w, 1, 64, 2, reorder=False
    )  # lanes hold (0, 1), (2, 4), (6, last zero): banks 0 1 3, 0 2 31
    assert plain.bank_conflict_degree() == 1.0
    assert TiledCSL.encode(w, 1, 64, 1, reorder=False).bank_conflict_degree() == 2.0
    assert TiledCSL.encode(np.zeros((128, 64), np.float16)).bank_conflict_degree() == 0.0
    # 70 lanes of one word are three steps: 32 banks twice over, and the tail's six words in three banks.
    full = np.zeros((2, 64), np.float16)
    full[0], full[1, :6] = 1, 1
    assert TiledCSL.encode(full, 2, 64, 1, reorder=False).bank_conflict_degree() == 2.0


def test_sizes_of_an_empty_a_full_and_a_whole_tile(rng):
    empty, full = np.zeros((128, 64), np.float16), np.ones((128, 64), np.float16)
    assert TiledCSL.encode(empty).padded_nnz == 0
    t = TiledCSL.encode(full)
    assert (t.nnz, t.padded_nnz, t.nbytes) == (8192, 8192, 4 * 8192 + 4 * 3)
    assert sorted(t.nz >> 16) == list(range(8192))
    largest = TiledCSL.encode(np.ones((256, 256), np.float16), 256, 256)  # positions up to 65,535
    np.testing.assert_array_equal(largest.decode(), 1)
    for shape in ((0, 64), (128, 0), (0, 0)):
        t = TiledCSL.encode(np.zeros(shape, np.float32))
        assert (t.padded_nnz, t.tile_offsets.tolist(), t.decode().shape) == (0, [0, 0], shape)


def test_half_precision_extremes_survive_and_zeros_are_dropped():
    w = np.zeros((1, 64), np.float32)
    w[0, :6] = -0.0, 2.0**-24, -(2.0**-24), 65504, 65519, 2.0**-26
    t = TiledCSL.encode(w, 1, 64, 4)
    assert t.nnz == 4
    np.testing.assert_array_equal(t.decode()[0, :6], np.array([0, 2**-24, -(2**-24), 65504, 65504, 0], np.float16))
    assert not np.signbit(t.decode()[0, 0])


def test_strided_input_is_read_where_it_lies(rng):
    w = sparse(128, 128, 0.3, rng)
    np.testing.assert_array_equal(TiledCSL.encode(w[:, ::2]).decode(), w[:, ::2])
    np.testing.assert_array_equal(TiledCSL.encode(w.T).decode(), w.T)


def test_same_bits_for_any_thread_count(rng):
    import kernels

    w = sparse(300, 300, 0.3, rng)
    found = []
    for threads in (1, 3):
        kernels.set_num_threads(threads)
        found.append(TiledCSL.encode(w, pad=True))
    np.testing.assert_array_equal(found[0].nz, found[1].nz)


def test_nobody_can_change_it(rng):
    given = TiledCSL.encode(sparse(128, 64, 0.3, rng), reorder=False)
    nz = given.nz.copy()
    t = TiledCSL(nz, given.tile_offsets, given.shape)
    nz[:] = 0xFFFF0000
    np.testing.assert_array_equal(t.nz, given.nz)
    for each in (t, copy.deepcopy(t), copy.copy(t), pickle.loads(pickle.dumps(t))):
        np.testing.assert_array_equal(each.nz, given.nz)
        for array in (each.nz, each.tile_offsets, each.row_ends):
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.flags.writeable = True
    with pytest.raises(AttributeError):
        t.vector = 1


def test_row_ends_count_the_words_of_each_row(rng):
    w = sparse(20, 100, 0.3, rng)
    w[3:6] = 0
    t = TiledCSL.encode(w, 8, 64, 4, reorder=False, pad=True)
    assert t.row_ends is not None
    ends = t.row_ends.reshape(3, 2, 8)
    for i in range(3):
        for j in range(2):
            rows = tile_words(t, 2 * i + j) >> 16 >> 6
            np.testing.assert_array_equal(ends[i, j], [np.count_nonzero(rows <= r) for r in range(8)])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shape": (129, 64)}, "tile_offsets has 3 entries, .* needs 4"),
        ({"shape": (128,)}, "shape must be 2 ints"),
        ({"tile_k": 32}, "tile_k must be an int of at least 64"),
        ({"tile_m": 2048}, "more places than the 65,536"),
        ({"tile_m": 0}, "tile_m must be an int of at least 1"),
        ({"vector": 3}, "vector must divide the 8192 places"),
        ({"tile_offsets": [0, 2, 3]}, "begin at 0"),
        ({"tile_offsets": [1, 2, 2]}, "begin at 0"),
        ({"tile_offsets": [0, -1, -1]}, "begin at 0"),
        ({"tile_offsets": [0, 2049, 2049]}, "rise by at most 2048"),
        ({"tile_offsets": [0, 1, 1]}, "nz has 8 words, tile_offsets ends at 1 vectors"),
        ({"nz": [0x3C00, *[1 << 16] * 6, 8192 << 16]}, r"nz\[7\] lies at position 8192, must be below 8192"),
        ({"nz": [0x3C00, *[1 << 16] * 6, 0x3C00]}, r"nz\[7\] is not the only one at position 0"),
        ({"nz": [1 << 16, 0, *[1 << 16] * 5, 0x3C00]}, r"nz\[1\] is not the only one at position 0"),
        ({"nz": [1 << 16] * 6 + [0x7C00, 2 << 16 | 0x7E00]}, r"nz\[6\] holds infinity or NaN"),
        ({"shape": (1, 64), "nz": [1 << 16] * 7 + [64 << 16 | 1]}, r"nz\[7\] is not zero and lies outside"),
        ({"shape": (128, 9), "nz": [1 << 16] * 7 + [9 << 16 | 1]}, r"nz\[7\] is not zero and lies outside"),
        ({"shape": (128, 9), "nz": [1 << 16] * 7 + [64 << 16 | 1]}, None),  # (1, 8), since row 1 swaps its chunks
    ],
)
def test_malformed_words_and_offsets_are_named(change, told):
    good = {"nz": [0x3C00, *[1 << 16] * 7], "tile_offsets": [0, 2, 2], "shape": (128, 64)} | change
    good["nz"], good["tile_offsets"] = np.array(good["nz"], np.uint32), np.array(good["tile_offsets"], np.int32)
    if told is None:
        assert TiledCSL(**good).nnz == 1
        return
    with pytest.raises(ValueError, match=f"^TiledCSL: .*{told}"):
        TiledCSL(**good)


def test_arrays_of_other_kinds_are_refused():
    offsets = np.array([0, 0], np.int32)
    for nz, wrong in (
        (np.zeros(0, np.int32), offsets),
        (np.zeros(0, np.uint32), offsets.astype(np.int64)),
        ([], offsets),
    ):
        with pytest.raises(TypeError, match="must be a NumPy array"):
            TiledCSL(nz, wrong, (0, 0))
    with pytest.raises(ValueError, match="nz must have one dimension"):
        TiledCSL(np.zeros((0, 0), np.uint32), offsets, (0, 0))


@pytest.mark.parametrize(
    ("w", "options", "error", "told"),
    [
        (np.zeros((128, 63), np.float16), {}, ValueError, "not whole tiles of 128 x 64; use pad=True"),
        (np.zeros((127, 64), np.float16), {}, ValueError, "not whole tiles"),
        (np.zeros(64, np.float16), {}, ValueError, "two dimensions"),
        (np.zeros((128, 64)), {}, TypeError, "float16 or float32, got float64"),
        (np.full((128, 64), 65520, np.float32), {}, ValueError, "below 65,520"),
        (np.full((128, 64), np.nan, np.float16), {}, ValueError, "finite"),
        (np.full((128, 64), -np.inf, np.float32), {}, ValueError, "finite"),
        (np.zeros((128, 64), np.float16), {"tile_k": 96}, ValueError, "power of two"),
        (np.zeros((128, 64), np.float16), {"tile_m": 1025}, ValueError, "65,536"),
        (np.zeros((128, 64), np.float16), {"vector": 2.0}, TypeError, "vector must be an int"),
    ],
)
def test_what_cannot_be_encoded_is_named(w, options, error, told):
    with pytest.raises(error, match=f"^TiledCSL.encode: .*{told}"):
        TiledCSL.encode(w, **options)
