"""The order of PBS-Attn's keys, against sums worked out by hand and a plain loop."""

from math import exp, log, sqrt

import numpy as np
import pytest

from workbench.models.attention.segment_order import (
    key_scores,
    query_aware_permutation,
    random_segment_permutation,
    rows_in_order,
    segment_permutation_is_valid,
)


def column(*numbers):
    """One head of width one, (1, 1, t, 1)."""
    return np.array(numbers, np.float32).reshape(1, 1, -1, 1)


def test_scores_are_shares_of_all_keys_and_rank_keys_inside_their_segment():
    q = column(-1, -1, 0, 0, 0, 0, 1, 1)
    k = column(*(log(x) for x in (2, 4, 1, 3, 8, 5, 7, 6)))
    how = {"block_size": 2, "segment_size": 4}
    np.testing.assert_allclose(key_scores(q, k, **how)[0, 0], np.array([2, 4, 1, 3, 8, 5, 7, 6]) / 36, rtol=1e-6)
    assert query_aware_permutation(q, k, **how).tolist() == [[[1, 3, 0, 2, 4, 6, 7, 5]]]


def test_every_one_of_the_last_queries_counts_alike():
    q = column(0, 0, 0, 0, 9, 9, 1, 0)  # one query that weighs keys as e^k, one that does not care
    k = column(*(log(x) for x in (1, 2, 3, 4, 1, 2, 3, 4)))
    found = key_scores(q, k, block_size=2, segment_size=4)[0, 0]
    np.testing.assert_allclose(found, [(x / 20 + 1 / 8) / 2 for x in (1, 2, 3, 4, 1, 2, 3, 4)], rtol=1e-6)


def test_keys_of_a_remainder_take_no_part_and_stay():
    q, k = column(0, 0, 0, 0, 1), column(log(1), log(3), log(2), log(2), log(100))
    how = {"block_size": 1, "segment_size": 2}
    np.testing.assert_allclose(key_scores(q, k, **how)[0, 0], np.array([1, 3, 2, 2]) / 8, rtol=1e-6)
    assert query_aware_permutation(q, k, **how).tolist() == [[[1, 0, 2, 3, 4]]]  # of the tie the earlier key first


def test_without_causality_all_keys_form_one_segment():
    q, k = column(1, 1, 1), column(0, 2, 1)
    order = query_aware_permutation(q, k, block_size=1, segment_size=3, causal=False)
    assert order.tolist() == [[[1, 2, 0]]]


@pytest.mark.parametrize(("t", "block", "segment"), [(12, 2, 4), (15, 3, 6), (5, 2, 4), (3, 2, 4)])
def test_order_is_the_paper_s_loop(t, block, segment, rng):
    q, k = (rng.standard_normal((2, 2, t, 3)).astype(np.float32) for _ in range(2))
    order = query_aware_permutation(q, k, block_size=block, segment_size=segment)
    complete = t // segment * segment
    for b, h in np.ndindex(2, 2):
        score = [0.0] * complete
        for i in range(t - block, t):
            weight = [exp(float(q[b, h, i] @ k[b, h, j]) / sqrt(3)) for j in range(complete)]
            for j in range(complete):
                score[j] += weight[j] / sum(weight) / block
        wanted = []
        for start in range(0, complete, segment):
            wanted += sorted(range(start, start + segment), key=lambda j, score=score: -score[j])
        assert order[b, h].tolist() == wanted + list(range(complete, t))


def test_random_orders_shuffle_segments_by_seed():
    order = random_segment_permutation((2, 3, 70), 32, seed=5)
    assert segment_permutation_is_valid(order, 32)
    assert len({tuple(head) for head in order.reshape(6, 70).tolist()}) == 6
    assert (order[..., :64] != np.arange(64)).mean() > 0.9
    assert (order == random_segment_permutation((2, 3, 70), 32, seed=5)).all()
    assert (order != random_segment_permutation((2, 3, 70), 32, seed=6)).any()


@pytest.mark.parametrize(
    ("order", "valid"),
    [
        ([1, 0, 3, 2, 4], True),
        ([0, 1, 2, 3, 4], True),
        ([0, 2, 1, 3, 4], False),  # two keys leave their segments
        ([1, 1, 3, 2, 4], False),  # one key stands twice
        ([1, 0, 2, 4, 3], False),  # the remainder moves
        ([], True),
    ],
)
def test_an_order_is_valid_where_segments_map_onto_themselves(order, valid):
    assert segment_permutation_is_valid(np.array(order, int), 2) is valid
    assert segment_permutation_is_valid(np.array([order, order], int), 2) is valid


def test_rows_follow_each_head_s_own_order():
    x = np.arange(12.0).reshape(1, 2, 3, 2)
    found = rows_in_order(x, np.array([[[2, 0, 1], [0, 2, 1]]]))
    assert found.tolist() == [[[[4, 5], [0, 1], [2, 3]], [[6, 7], [10, 11], [8, 9]]]]
