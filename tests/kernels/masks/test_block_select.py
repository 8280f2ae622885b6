"""Block selection: forced blocks, minimality, monotonicity."""

from itertools import combinations
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kernels.masks.block_select import select_blocks


@pytest.fixture
def scores(rng):
    return rng.random((2, 3, 8, 8)).astype(np.float32)


def test_limits_of_the_threshold(scores):
    causal = np.tril(np.ones((8, 8), bool))
    assert (select_blocks(scores, 1.0) == causal).all()
    forced = np.eye(8, dtype=bool)
    forced[:, 0] = True
    assert (select_blocks(scores, 0.0) == forced).all()
    assert (select_blocks(scores, 0.0, causal=False).sum(-1) == 1).all()


def test_kept_set_is_minimal_and_reaches_the_share(scores):
    keep = select_blocks(scores, 0.7)
    forced = select_blocks(scores, 0.0)
    mass = np.where(np.tril(np.ones((8, 8), bool)), scores, 0).astype(np.float64)
    total = mass.sum(-1)
    kept = (mass * keep).sum(-1)
    assert (kept >= 0.7 * total - 1e-12).all()
    weakest = np.where(keep & ~forced, mass, np.inf).min(-1)
    assert (kept - weakest < 0.7 * total)[np.isfinite(weakest)].all()


@pytest.mark.parametrize("noise", [0, 1e-7])
def test_a_share_that_is_reached_but_for_rounding_is_reached(rng, noise):
    def kept(row, **how):
        row = np.array(row, np.float32)[None, None, None] * np.float32(1 + noise * rng.choice((-1, 1), len(row)))
        return select_blocks(row, causal=False, **how).sum(-1).item()

    for _ in range(20):
        assert [kept(np.full(8, 0.125), threshold=i / 8) for i in range(1, 9)] == [1, 2, 3, 4, 5, 6, 7, 8]
        assert kept([0.1, 0.7, 0.2], threshold=0.9) == 2 and kept([0.1, 0.7, 0.2], threshold=0.91) == 3
        assert kept([1, 1e-9, 1e-12], threshold=1.0) == 3
        assert kept(np.ones(25), method="ratio", k=0.28) == 7  # 25 * 0.28 is above 7 in float64


def test_blocks_of_equal_score_are_taken_from_the_left():
    row = np.array([1, 3, 2, 3, 2, 2], np.float32)[None, None, None]
    for how in ({"threshold": 0.6}, {"method": "topk", "k": 3}, {"method": "ratio", "k": 0.5}):
        assert select_blocks(row, causal=False, **how)[0, 0, 0].nonzero()[0].tolist() == [1, 2, 3]


def test_higher_threshold_keeps_a_superset(scores):
    low, high = select_blocks(scores, 0.5), select_blocks(scores, 0.8)
    assert (low <= high).all() and low.sum() < high.sum()


def test_threshold_per_head_equals_a_loop(scores):
    tau = np.array([0.3, 0.6, 0.9])
    together = select_blocks(scores, tau)
    for h in range(3):
        assert (together[:, h] == select_blocks(scores[:, h : h + 1], tau[h])[:, 0]).all()


def test_topk_and_ratio_count_blocks(scores):
    assert (select_blocks(scores, causal=False, method="topk", k=3).sum(-1) == 3).all()
    assert (select_blocks(scores, causal=False, method="ratio", k=0.25).sum(-1) == 2).all()


def test_only_eligible_blocks_take_part(scores):
    eligible = np.zeros((8, 8), bool)
    eligible[:, 2] = True
    keep = select_blocks(scores, 1.0, causal=False, eligible=eligible)
    assert (keep == eligible).all()


@st.composite
def rows_of_blocks(draw):
    """Scores of one head with ties and zeros, blocks that may take part, and which blocks are forced."""
    rows = draw(st.integers(1, 4))
    shape = (1, 1, rows, draw(st.integers(rows, 6)))
    scores = draw(arrays(np.float32, shape, elements=st.integers(0, 4), fill=st.nothing()))
    eligible = draw(st.none() | arrays(bool, shape, fill=st.nothing()))
    names = ("causal", "keep_sink", "keep_diagonal")
    return scores, {"eligible": eligible} | {name: draw(st.booleans()) for name in names}


def each_row(scores, how, keep):
    """Yield every row's scores, the blocks that may be kept, those that must be, and those that are: sets of columns.

    Fewer rows than columns are the last ones of a square.
    """
    rows, cols = scores.shape[2:]
    for row in range(rows):
        diagonal = cols - rows + row
        may = {j for j in range(cols) if j <= diagonal or not how["causal"]}
        if how["eligible"] is not None:
            may &= set(np.flatnonzero(how["eligible"][0, 0, row]))
        must = {0} if how["keep_sink"] else set()
        must |= {diagonal} if how["keep_diagonal"] else set()
        yield scores[0, 0, row], may, may & must if how["causal"] else set(), set(np.flatnonzero(keep[0, 0, row]))


def ties_go_to_the_left(score, may, must, kept):
    return all(j in must or i in kept for j in kept for i in may if i < j and score[i] == score[j])


@settings(derandomize=True, deadline=None, max_examples=40)
@given(rows_of_blocks())
def test_a_threshold_of_one_keeps_every_block_that_may_be_kept(drawn):
    scores, how = drawn
    for found in (scores, 0 * scores, scores * np.float32(1e-44)):  # also where estimates underflow
        for _, may, _, kept in each_row(found, how, select_blocks(found, 1.0, **how)):
            assert kept == may
    half = select_blocks(np.concatenate([scores, scores], axis=1), np.array([0.5, 1.0]), **how | {"eligible": None})
    assert (half[:, :1] == select_blocks(scores, 0.5, **how | {"eligible": None})).all()


@settings(derandomize=True, deadline=None, max_examples=80)
@given(rows_of_blocks(), st.integers(0, 7))
def test_no_smaller_set_holds_the_share(drawn, eighths):
    scores, how = drawn
    keep = select_blocks(scores, eighths / 8, **how)
    for score, may, must, kept in each_row(scores, how, keep):
        wanted = eighths / 8 * sum(score[j] for j in may)
        assert must <= kept <= may
        assert sum(score[j] for j in kept) >= wanted
        free = may - must
        sizes = [n for n in range(len(free) + 1) for some in combinations(free, n)
                 if sum(score[j] for j in must | set(some)) >= wanted]  # fmt: skip
        assert len(kept) == max(len(must) + min(sizes), min(1, len(may)))
        assert ties_go_to_the_left(score, may, must, kept)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(rows_of_blocks(), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_only_adds(drawn, one, two):
    scores, how = drawn
    fewer, more = (select_blocks(scores, tau, **how) for tau in sorted((one, two)))
    assert (fewer <= more).all()


@settings(derandomize=True, deadline=None, max_examples=80)
@given(rows_of_blocks(), st.sampled_from((("topk", 1), ("topk", 3), ("ratio", 0.25), ("ratio", 0.5), ("ratio", 1.0))))
def test_topk_and_ratio_keep_the_best_so_many(drawn, rule):
    scores, how = drawn
    method, k = rule
    keep = select_blocks(scores, method=method, k=k, **how)
    for score, may, must, kept in each_row(scores, how, keep):
        count = min(k, len(may)) if method == "topk" else ceil(k * len(may))
        assert must <= kept <= may and len(kept) == max(count, len(must))
        assert all(score[i] <= score[j] for j in kept - must for i in may - kept)
        assert ties_go_to_the_left(score, may, must, kept)


def test_the_sink_is_the_first_block_that_a_row_may_see():
    eligible = np.tri(5, dtype=bool) & (np.arange(5) >= np.array([0, 1, 2, 2, 2])[:, None])
    kept = select_blocks(np.ones((1, 1, 5, 5)), 0.0, eligible=eligible)[0, 0]
    wanted = np.eye(5, dtype=bool)
    wanted[3:, 2] = True
    np.testing.assert_array_equal(kept, wanted)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": [0.5, 1.5, 0.5]}, "threshold"),
        ({"threshold": [0.5, 0.5]}, "one per head"),
        ({"method": "best"}, "method"),
        ({"method": "topk"}, "k of method='topk' must be an int of at least 1, got None"),
        ({"method": "topk", "k": 0}, "int of at least 1, got 0"),
        ({"method": "ratio", "k": 1.5}, "k of method='ratio' must be a finite number above 0 and up to 1, got 1.5"),
    ],
)
def test_bad_input_is_named(scores, how, words):
    with pytest.raises((ValueError, TypeError), match=words):
        select_blocks(scores, **how)


def test_bad_scores_are_named():
    with pytest.raises(ValueError, match="NaN"):
        select_blocks(np.where(np.eye(2, dtype=bool), np.nan, 1.0)[None, None])
    with pytest.raises(ValueError, match="negative values"):
        select_blocks(np.array([[[[1.0, -0.1]]]]))
    with pytest.raises(ValueError, match=r"must be \(b, h, rows, cols\)"):
        select_blocks(np.ones((2, 2)))
    assert select_blocks(np.ones((1, 1, 2, 0))).shape == (1, 1, 2, 0)
    with pytest.raises(TypeError, match="scores"):
        select_blocks([[1.0]])
