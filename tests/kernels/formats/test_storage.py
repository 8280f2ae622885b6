"""Bits of every format: hand-worked counts, and arrays that are really held."""

from itertools import combinations
from math import ceil, comb, log2

import numpy as np
import pytest
from scipy import sparse

from kernels.formats.storage import (
    bitmap_bits,
    block_diagonal_bits,
    block_group_bits,
    bsr_bits,
    csr_bits,
    dense_bits,
    dense_sparse_bits,
    dictionary_bits,
    low_rank_bits,
    nm_bits,
    position_bound_bits,
    quantised_bits,
    tiled_csl_bits,
    whole_bytes,
)

SQUARE = (384, 384)


def test_counts_by_hand():
    assert dense_bits(SQUARE) == 2_359_296
    assert nm_bits(SQUARE, 2, 4) == 1_327_104 == bitmap_bits(SQUARE, 73_728)  # 9 bits a weight, both
    assert csr_bits(SQUARE, 73_728) == 73_728 * 32 + 32 * 385 == 2_371_616  # more than dense
    assert low_rank_bits(SQUARE, 108) == 1_327_104
    assert dictionary_bits(SQUARE, 138, 69) == 16 * (384 * 138 + 69 * 384) + 384 * 138 == 1_324_800  # CoSpaDi
    assert dictionary_bits((6, 5), 20, 2, layers=3, value_bits=8) == 8 * (5 * 20 + 2 * 18) + 18 * 2 * 5  # 5 bits each
    assert dense_sparse_bits(SQUARE, (384, 32), 48, 12) == 12 * (16 * 48 * 32 + 384 * (12 * 16 + 48)) == 1_400_832
    assert dense_sparse_bits(SQUARE, (384, 32), 40, 12) == 1_314_816  # DSFormer
    assert dense_sparse_bits((6, 9), (2, 3), 20, 2, value_bits=8) == 9 * dictionary_bits((2, 3), 20, 2, value_bits=8)
    assert low_rank_bits(SQUARE, 4 * 24) == 1_179_648  # Monarch with four blocks of rank 24
    assert nm_bits(SQUARE, 2, 4) + 2 * block_diagonal_bits(384, 16) == 1_523_712  # ARMOR with blocks of 16
    assert bsr_bits(SQUARE, 322, block=(16, 16), bitmap=True) == 322 * 256 * 16 + 576 == 1_319_488
    assert bsr_bits((8, 6), 5, block=(4, 2), value_bits=32) == 5 * (8 * 32 + 32) + 32 * 3
    assert quantised_bits((4, 64), 2, group=64) == 4 * 64 * 2 + 4 * 32
    assert quantised_bits((4, 64), 3, group=32, scale_bits=8, zero_bits=0) == 4 * 64 * 3 + 8 * 8


def test_widths_of_values_and_indices():
    assert dense_bits((3, 5), value_bits=32) == 480
    assert csr_bits((2, 2**16), 3) == 3 * 32 + 96 and csr_bits((2, 2**16 + 1), 3) == 3 * 48 + 96
    assert csr_bits((2, 9), 3, value_bits=8, index_bits=64) == 3 * 72 + 96
    assert [nm_bits((1, m), 1, m, value_bits=8) for m in (1, 2, 3, 4, 5, 16)] == [8, 9, 10, 10, 11, 12]
    assert nm_bits((2, 8), 0, 4) == 0
    assert low_rank_bits((3, 5), 2, value_bits=8) == 128
    assert block_diagonal_bits(6, 3, value_bits=4) == 72
    assert bitmap_bits((3, 5), 4, value_bits=8) == 47


def test_tiles_are_padded_to_whole_vectors():
    """By hand: 5 and 0 and 4 entries take 8, 0 and 4 words; three tiles have five offsets."""
    assert tiled_csl_bits([5, 0, 4]) == 32 * 12 + 32 * 5
    assert tiled_csl_bits([5, 0, 4], vector=1) == 32 * 9 + 32 * 5
    assert tiled_csl_bits([]) == 64


def test_groups_of_blocks_are_padded():
    """By hand: 5, 0 and 4 blocks make 2, 0 and 1 groups of 16 bytes, with four indices of 8 bytes each."""
    assert block_group_bits([5, 0, 4]) == 3 * 8 * 16 + 3 * 4 * 64 + 4 * 64
    assert block_group_bits([5], block_rows=2, group=3, value_bits=32, index_bits=16) == 6 * (64 + 16) + 128


def test_bits_are_those_of_arrays_that_are_held(rng):
    a = sparse.random_array((40, 60), density=0.2, format="csr", rng=rng, dtype=np.float32)
    held = 8 * (a.data.nbytes + a.indices.nbytes + a.indptr.nbytes)
    assert csr_bits(a.shape, a.nnz, value_bits=32, index_bits=8 * a.indices.itemsize) == held
    b = a.tobsr((4, 5))
    held = 8 * (b.data.nbytes + b.indices.nbytes + b.indptr.nbytes)
    assert bsr_bits(b.shape, len(b.indices), block=(4, 5), value_bits=32) == held
    packed = np.packbits(a.toarray() != 0)
    assert bitmap_bits(a.shape, a.nnz, value_bits=32) == 8 * (a.data.nbytes + packed.nbytes)


def test_no_format_takes_less_than_the_bound(rng):
    for m, n in ((1, 1), (4, 8), (64, 64), (100, 100), (101, 100), (384, 384)):
        for nnz in {0, 1, m * n // 4, m * n // 2, m * n}:
            bound = position_bound_bits((m, n), nnz)
            assert bound <= bitmap_bits((m, n), nnz)
            assert bound <= csr_bits((m, n), nnz)
            assert bound >= 16 * nnz
    assert position_bound_bits((2, 2), 2) == 32 + 3 and len(list(combinations(range(4), 2))) == 6
    assert position_bound_bits((1, 8), 1) == 16 + 3


def test_the_bound_is_the_logarithm_of_the_patterns():
    for shape, nnz in (((100, 100), 3000), ((101, 100), 3000), ((200, 300), 17), ((200, 300), 59_999)):
        exact = comb(shape[0] * shape[1], nnz)
        assert position_bound_bits(shape, nnz, value_bits=1) - nnz == ceil(log2(exact) - 1e-6)
    assert position_bound_bits((1000, 1000), 0) == 0 and position_bound_bits((1000, 1000), 10**6) == 16 * 10**6


def test_bytes_are_rounded_up_once():
    assert [whole_bytes(bits) for bits in (0, 1, 8, 9)] == [0, 1, 1, 2]


def test_empty_matrices_take_pointers_only():
    assert dense_bits((0, 5)) == bitmap_bits((5, 0), 0) == nm_bits((0, 4), 2, 4) == 0
    assert csr_bits((0, 5), 0) == bsr_bits((0, 4), 0, block=(2, 2)) == 32


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="nnz must be an int from 0 to 6, got 7"):
        csr_bits((2, 3), 7)
    with pytest.raises(ValueError, match="columns that are a multiple of m=4, got 6; pad it"):
        nm_bits((2, 6), 2, 4)
    with pytest.raises(ValueError, match="multiples of the block 4 x 2, got 6 x 4; pad it"):
        bsr_bits((6, 4), 1, block=(4, 2))
    with pytest.raises(ValueError, match="multiples of the block"):
        bsr_bits((8, 3), 1, block=(4, 2))
    with pytest.raises(ValueError, match="blocks must be an int from 0 to 4, got 5"):
        bsr_bits((8, 4), 5, block=(4, 2))
    with pytest.raises(TypeError, match="bitmap must be True or False, got int"):
        bsr_bits((8, 4), 1, block=(4, 2), bitmap=1)
    with pytest.raises(ValueError, match="rank must be an int from 0 to 3"):
        low_rank_bits((3, 5), 4)
    with pytest.raises(ValueError, match="group must divide the 15 values, got 4"):
        quantised_bits((3, 5), 4, group=4)
    with pytest.raises(ValueError, match="n must be a multiple of block=4, got 6"):
        block_diagonal_bits(6, 4)
    with pytest.raises(TypeError, match="tile_nnz must be a sequence of ints, got int"):
        tiled_csl_bits(3)
    with pytest.raises(ValueError, match="each of row_blocks must be an int from 0"):
        block_group_bits([-1])
