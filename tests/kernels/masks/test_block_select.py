"""Block selection: forced blocks, minimality, monotonicity."""

import numpy as np
import pytest

from kernels.masks.block_select import block_density, select_blocks


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


def test_density_counts_causal_blocks():
    assert block_density(np.tril(np.ones((1, 1, 4, 4), bool))) == 1.0
    assert block_density(np.eye(4, dtype=bool)[None, None]) == pytest.approx(0.4)
    assert block_density(np.eye(4, dtype=bool)[None, None], causal=False) == 0.25


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": [0.5, 0.5]}, "one per head"),
        ({"method": "best"}, "method"),
        ({"method": "topk"}, "needs k"),
    ],
)
def test_bad_input_is_named(scores, how, words):
    with pytest.raises(ValueError, match=words):
        select_blocks(scores, **how)
    with pytest.raises(ValueError, match="NaN"):
        select_blocks(np.full((1, 1, 2, 2), np.nan))
    with pytest.raises(TypeError, match="scores"):
        select_blocks([[1.0]])
