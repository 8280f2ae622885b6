"""Codes, counts and the best keys by buckets: by hand, against sorting, on every instruction set, and refused."""

import numpy as np
import pytest

from kernels.masks.pq_topk import (
    fixed_degree_csr,
    match_counts,
    match_counts_reference,
    pq_encode,
    pq_encode_reference,
    pq_encode_work,
    pq_topk,
    pq_topk_reference,
    pq_topk_work,
)

BOOK = np.array([[[0, 0], [1, 1], [-1, 1]], [[0, 1], [2, 0], [1, -1]]], np.float64)
VECTORS = np.array([[0.9, 0.8, 0.2, 0.7], [-0.6, 0.4, 1.4, -0.2], [0.1, -0.2, 1, -1]])


def codes(rng, *shape, words=8):
    return rng.integers(0, words, shape).astype(np.uint8)


def as_codes(*rows):
    return np.array([rows], np.uint8)


# Codes ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_codes_worked_out_by_hand(dtype, level):
    assert pq_encode(VECTORS.astype(dtype), BOOK.astype(dtype)).tolist() == [[1, 0], [0, 1], [0, 2]]


def test_the_distance_is_the_sum_of_magnitudes_and_not_of_squares(level):
    book = np.array([[[3.0, 0], [2, 2]]])  # from the origin 3 and 4; squared 9 and 8
    assert pq_encode(np.zeros((1, 2)), book).tolist() == [[0]]


@pytest.mark.parametrize("words", [1, 15, 16, 17, 32, 33, 256])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_codes_equal_the_reference(dtype, words, level, rng):
    for n, subspaces, width in ((0, 2, 3), (1, 1, 1), (65, 3, 8), (130, 5, 7)):
        x = rng.standard_normal((n, subspaces * width)).astype(dtype)
        book = rng.standard_normal((subspaces, words, width)).astype(dtype)
        for threads in (1, 3):
            found = pq_encode(x, book, num_threads=threads)
            assert found.dtype == np.uint8 and (found == pq_encode_reference(x, book)).all()


def test_of_codewords_at_one_distance_the_first_is_taken(level):
    book = np.tile(np.array([[[5.0], [1.0], [-1.0]]]), (1, 20, 1))  # 60 codewords
    assert pq_encode(np.zeros((70, 1)), book).tolist() == [[1]] * 70
    assert pq_encode(np.full((1, 1), 1e308), np.full((1, 30, 1), -1e308)).tolist() == [[0]]  # all infinitely far away


def test_codes_have_the_same_bits_on_every_level(levels, use_level, rng):
    x = rng.integers(-3, 4, (300, 24)).astype(np.float32) / 3  # many distances differ in the last bit alone
    book, found = rng.integers(-3, 4, (3, 40, 8)).astype(np.float32) / 3, []
    for name in levels:
        use_level(name)
        found.append(pq_encode(x, book))
    assert all((each == found[0]).all() for each in found) and len(np.unique(found[0])) > 20


# Counts and the best keys ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tk", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("subspaces", [1, 4, 9, 253])
def test_counts_equal_the_reference(tk, subspaces, level, rng):
    q, k = codes(rng, 2, 70, subspaces, words=2), codes(rng, 2, tk, subspaces, words=2)
    found = match_counts(q, k, num_threads=2)
    assert found.dtype == np.uint8 and (found == match_counts_reference(q, k)).all()
    assert (match_counts(q, q)[:, range(70), range(70)] == subspaces).all()


def test_best_keys_worked_out_by_hand(level):
    q, k = as_codes([1, 2, 3, 4]), as_codes([1, 0, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 3, 4], [1, 2, 3, 4])
    assert match_counts(q, k).tolist() == [[[1, 2, 0, 2, 4]]]
    for L, wanted in ((1, [4]), (2, [4, 1]), (3, [4, 1, 3]), (4, [4, 1, 3, 0]), (5, [4, 1, 3, 0, 2])):
        indices, valid = pq_topk(q, k, L, causal=False)
        assert indices.tolist() == [[wanted]] and valid.tolist() == [[L]]
        assert pq_topk(q, k, L, causal=False, order="index")[0].tolist() == [[sorted(wanted)]]


def test_four_buckets_worked_out_by_hand(level):
    q = as_codes([0] * 9)  # 9 // 4 = 2: counts 0-1, 2-3, 4-5 and 6-9 are one bucket each
    k = as_codes(*([0] * count + [1] * (9 - count) for count in (1, 3, 6, 9, 2, 0, 5)))
    assert pq_topk(q, k, 7, causal=False, buckets=4)[0].tolist() == [[[2, 3, 6, 1, 4, 0, 5]]]
    assert pq_topk(q, k, 3, causal=False, buckets=4)[0].tolist() == [[[2, 3, 6]]]
    assert pq_topk(q, k, 1, causal=False, buckets=4)[0].tolist() == [[[2]]]
    assert pq_topk(q, k, 1, causal=False)[0].tolist() == [[[3]]]


@pytest.mark.parametrize("buckets", ["exact", 4])
@pytest.mark.parametrize("order", ["count", "index"])
@pytest.mark.parametrize("causal", [True, False])
def test_best_keys_equal_sorting(causal, order, buckets, level, rng):
    for b, tq, tk, subspaces, words in ((1, 1, 1, 4, 2), (2, 65, 65, 8, 3), (3, 7, 130, 4, 4), (1, 150, 150, 13, 2),
                                        (2, 0, 5, 4, 2), (0, 3, 4, 5, 2)):  # fmt: skip
        q, k = codes(rng, b, tq, subspaces, words=words), codes(rng, b, tk, subspaces, words=words)
        for L in {1, (tk + 7) // 8, tk // 2 + 1, tk}:
            wanted = pq_topk_reference(q, k, L, causal, buckets, order)
            for threads in (1, 3):
                found = pq_topk(q, k, L, causal=causal, buckets=buckets, order=order, num_threads=threads)
                for one, other in zip(found, wanted, strict=True):
                    assert one.dtype == np.int32 and (one == other).all(), (b, tq, tk, L)


def test_the_most_sub_spaces_and_keys_that_all_agree(level, rng):
    q = np.zeros((1, 130, 253), np.uint8)
    indices, valid = pq_topk(q, q, 5)
    assert valid[0].tolist() == [min(i + 1, 5) for i in range(130)]
    assert (indices[0, 4:] == range(5)).all()
    k = q.copy()
    k[0, 70] = 1
    assert 70 not in pq_topk(q, k, 129, causal=False)[0][0, 0]


@pytest.mark.parametrize("buckets", ["exact", 4])
@pytest.mark.parametrize("causal", [True, False])
def test_keys_that_are_hidden_are_not_taken(causal, buckets, level, rng):
    q, k = codes(rng, 3, 90, 8, words=2), codes(rng, 3, 90, 8, words=2)
    visible = rng.random((3, 90)) < 0.6
    visible[1], visible[2, :70] = True, False
    for L in (1, 12, 90):
        for order in ("count", "index"):
            found = pq_topk(q, k, L, causal=causal, visible=visible, buckets=buckets, order=order)
            for one, other in zip(found, pq_topk_reference(q, k, L, causal, buckets, order, visible), strict=True):
                assert (one == other).all()
    assert (found[1][2, :70] == 0).all() == causal
    everything = pq_topk(q, k, 12, causal=causal, visible=np.ones((3, 90), bool), buckets=buckets)
    assert (everything[0] == pq_topk(q, k, 12, causal=causal, buckets=buckets)[0]).all()
    with pytest.raises(ValueError, match=r"visible must be \(3, 90\)"):
        pq_topk(q, k, 1, visible=visible[:2])


def test_rows_of_a_causal_choice_hold_distinct_keys_that_they_see(rng):
    q, k, L = codes(rng, 2, 100, 8), codes(rng, 2, 100, 8), 12
    indices, valid = pq_topk(q, k, L)
    for z, i in np.ndindex(2, 100):
        kept, rest = indices[z, i, : valid[z, i]], indices[z, i, valid[z, i] :]
        assert valid[z, i] == min(i + 1, L) == len(set(kept.tolist())) and kept.max() <= i and (rest == -1).all()
    assert (indices[:, 0, 0] == 0).all()


def test_four_buckets_find_most_of_what_all_buckets_find(rng):
    q, k, L = codes(rng, 1, 512, 8), codes(rng, 1, 512, 8), 64
    counts, recall = match_counts(q, k)[0].astype(int), []
    (coarse, valid), (exact, _) = pq_topk(q, k, L, buckets=4), pq_topk(q, k, L)
    for i in range(512):
        lowest = counts[i, exact[0, i, : valid[0, i]]].min()  # of equal counts any is as good
        recall.append((counts[i, coarse[0, i, : valid[0, i]]] >= lowest).mean())
    assert 0.8 < np.mean(recall) < 1
    same = [len(set(coarse[0, i, :n]) & set(exact[0, i, :n])) / n for i, n in enumerate(valid[0])]
    assert 0.8 < np.mean(same) < 1


# The pattern ----------------------------------------------------------------------------------------------------------
def test_a_pattern_of_full_rows_has_equal_steps(rng):
    q, k = codes(rng, 2, 6, 4), codes(rng, 2, 9, 4)
    indices, valid = pq_topk(q, k, 3, causal=False)
    indptr, columns = fixed_degree_csr(indices, valid, keys=9)
    assert indptr.tolist() == list(range(0, 37, 3)) and indptr.dtype == np.int64 and columns.dtype == np.int32
    assert (columns.reshape(2, 6, 3) == indices + np.array([0, 9])[:, None, None]).all()


def test_slots_that_a_row_does_not_fill_are_no_entries(rng):
    q = codes(rng, 2, 6, 4)
    indices, valid = pq_topk(q, q, 3)
    indptr, columns = fixed_degree_csr(indices, valid)
    assert np.diff(indptr).tolist() == [1, 2, 3, 3, 3, 3] * 2 and columns[0] == 0 and columns[15] == 6
    assert (columns[:15] < 6).all() and (columns[15:] >= 6).all()
    assert fixed_degree_csr(indices[:0], valid[:0])[0].tolist() == [0]


# Refusals and work ----------------------------------------------------------------------------------------------------
def test_bad_vectors_are_refused():
    x, book = np.ones((3, 4), np.float32), np.ones((2, 5, 2), np.float32)
    for value in (np.nan, np.inf):
        bad = x.copy()
        bad[2, 1] = value
        with pytest.raises(ValueError, match=f"pq_encode: x must be finite, got {value} in row 2, column 1"):
            pq_encode(bad, book)
    with pytest.raises(ValueError, match="codebook must be finite"):
        pq_encode(x, book * np.nan)
    with pytest.raises(ValueError, match="x has 4 columns, the codebook is for 3 x 2"):
        pq_encode(x, np.ones((3, 5, 2), np.float32))
    with pytest.raises(ValueError, match="E from 1 to 256"):
        pq_encode(x, np.ones((2, 257, 2), np.float32))
    with pytest.raises(ValueError, match="E from 1 to 256"):
        pq_encode(x, np.ones((2, 0, 2), np.float32))
    with pytest.raises(TypeError, match="codebook must be a NumPy array of float32, got float64"):
        pq_encode(x, book.astype(float))
    with pytest.raises(ValueError, match=r"x must have 2 axes and be C-contiguous.*np\.ascontiguousarray\(x\)"):
        pq_encode(np.asfortranarray(x), book)


@pytest.mark.parametrize("call", [match_counts, lambda q, k: pq_topk(q, k, 1)])
def test_bad_codes_are_refused(call):
    q = np.zeros((2, 5, 4), np.uint8)
    with pytest.raises(TypeError, match="qc must be a NumPy array of uint8, got int64"):
        call(q.astype(np.int64), q)
    with pytest.raises(ValueError, match=r"kc must be \(b, t, M\) and C-contiguous"):
        call(q, q[:, ::2])
    for other in (q[:1], np.zeros((2, 5, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"qc must be \(b, tq, M\) and kc \(b, tk, M\)"):
            call(q, other)
    for subspaces in (0, 254):
        many = np.zeros((1, 2, subspaces), np.uint8)
        with pytest.raises(ValueError, match="M from 1 to 253"):
            call(many, many)


def test_bad_settings_are_refused():
    q = np.zeros((2, 5, 4), np.uint8)
    for L in (0, 6):
        with pytest.raises(ValueError, match=f"L must be an int from 1 to 5, got {L}"):
            pq_topk(q, q, L)
    with pytest.raises(ValueError, match="there cannot be more of them: 5 queries, 3 keys"):
        pq_topk(q, q[:, :3].copy(), 1)
    for buckets in (5, "four"):
        with pytest.raises(ValueError, match='buckets must be "exact" or 4, got'):
            pq_topk(q, q, 1, buckets=buckets)
    three = np.zeros((1, 2, 3), np.uint8)
    with pytest.raises(ValueError, match="4 buckets need at least 4 sub-spaces, got 3"):
        pq_topk(three, three, 1, buckets=4)
    with pytest.raises(ValueError, match="order must be one of count, index"):
        pq_topk(q, q, 1, order="key")


def test_bad_patterns_are_refused():
    indices, valid = np.zeros((1, 4, 2), np.int32), np.ones((1, 4), np.int32)
    with pytest.raises(ValueError, match="indices must have 3 axes and contiguous rows"):
        fixed_degree_csr(np.zeros((1, 4, 4), np.int32)[..., ::2], valid)
    with pytest.raises(ValueError, match=r"valid must be \(1, 4\)"):
        fixed_degree_csr(indices, valid[:, :3].copy())
    for count in (3, -1):
        with pytest.raises(ValueError, match="valid must hold counts from 0 to 2"):
            fixed_degree_csr(indices, np.full_like(valid, count))
    for key in (4, -1):
        with pytest.raises(ValueError, match=r"indices must lie in \[0, 4\)"):
            fixed_degree_csr(np.full_like(indices, key), valid)
    with pytest.raises(ValueError, match="more than int32 can number"):
        fixed_degree_csr(np.zeros((2, 1, 1), np.int32), np.ones((2, 1), np.int32), keys=2**30)


def test_work_by_hand():
    work = pq_encode_work(10, 4, 16, 8)
    assert (work.flops, work.bytes_streamed, work.gathers) == (10240, 4 * (320 + 512) + 40, 0)
    work = pq_topk_work(2, 10, 20, 4, 3)
    assert (work.flops, work.bytes_streamed, work.gathers) == (0, 2 * (30 * 4 + 40 * 4), 0)
