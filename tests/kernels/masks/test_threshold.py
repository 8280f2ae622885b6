"""Exact top-k: against sorting, at every length at which the method changes, with ties, zeros and infinities."""

import numpy as np
import pytest

from kernels.masks.threshold import (
    quantile_threshold,
    quantile_threshold_reference,
    topk_mask,
    topk_mask_reference,
    topk_mask_work,
    topk_threshold,
    topk_threshold_reference,
)

FLOATS = (np.float16, np.float32, np.float64)
# rows of up to 4, 8, 16, 32 are compared pair by pair, of up to 8,192 narrowed, of 131,072 and more shared by threads
SHAPES = [(1,), (3, 4), (5, 7), (6, 16), (4, 17), (3, 32), (3, 33), (2, 1025), (2, 3, 9000), (131_073,), (2, 140_000)]
KINDS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "whole": lambda rng, shape: rng.integers(-2, 3, shape).astype(float),
    "zeros": lambda rng, shape: np.copysign(0.0, rng.standard_normal(shape)),
    "infinite": lambda rng, shape: rng.choice([-np.inf, -1.5, 0.0, 2.0, np.inf], shape),
    "tiny": lambda rng, shape: rng.integers(-50, 50, shape) * 2.0**-24,
    "half equal": lambda rng, shape: np.where(rng.random(shape) < 0.5, 0.25, rng.standard_normal(shape)),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", KINDS)
def test_threshold_and_mask_equal_sorting(kind, dtype, rng):
    for shape in SHAPES:
        scores = KINDS[kind](rng, shape).astype(dtype)
        for axis in (None, -1):
            n = scores.size if axis is None else shape[-1]
            for k in {1, (n + 2) // 3, n}:
                wanted = topk_mask_reference(scores, k, axis)
                kth = topk_threshold_reference(scores, k, axis)
                for threads in (1, 3):
                    found = topk_mask(scores, k, axis=axis, num_threads=threads)
                    assert (found == wanted).all(), (shape, axis, k)
                    found = topk_threshold(scores, k, axis=axis, num_threads=threads)
                    assert found.dtype == dtype and found.tobytes() == kth.tobytes(), (shape, axis, k)


def test_by_hand():
    scores = np.array([[3.0, 1.0, 2.0], [2.0, 2.0, 5.0]], np.float32)
    assert topk_threshold(scores, 2) == 3 and topk_threshold(scores, 3) == 2 == topk_threshold(scores, 5)
    assert topk_mask(scores, 3).tolist() == [[True, False, True], [False, False, True]]
    assert topk_mask(scores, 2, axis=-1).tolist() == [[True, False, True], [True, False, True]]
    assert topk_threshold(scores, 2, axis=1).tolist() == [2, 2]


def test_a_negative_zero_equals_a_positive_one():
    scores = np.array([-0.0, 0.0, -0.0, -1.0])
    assert topk_mask(scores, 2).tolist() == [True, True, False, False]
    assert not np.signbit(topk_threshold(scores, 3))


@pytest.mark.parametrize("n", [40, 9000, 200_000])
@pytest.mark.parametrize("period", [2, 3, 64, 512])
def test_scores_in_a_pattern_do_not_mislead_the_sample(n, period, rng):
    scores = np.where(np.arange(n) % period == 0, 1e30, 1.0) * (1 + rng.random(n))
    scores[-(n // 5) :] = np.sort(scores[-(n // 5) :])
    for k in (n // period, n // period + 1, n - 1):
        assert (topk_mask(scores, k) == topk_mask_reference(scores, k)).all()


def test_a_few_large_scores_are_found_among_many(rng):
    scores = rng.standard_normal(300_000).astype(np.float32)
    scores[[5, 299_999, 131_072]] = 1e9, 2e9, 3e9
    for k, last in ((1, 3e9), (2, 2e9), (3, 1e9)):
        assert topk_threshold(scores, k) == np.float32(last)
        assert topk_mask(scores, k).sum() == k


def test_every_mask_has_exactly_k_and_ties_go_to_the_lower_index():
    scores = np.ones(200_001, np.float16)
    for k in (0, 1, 65_536, 65_537, 200_001):
        mask = topk_mask(scores, k, num_threads=2)
        assert mask[:k].all() and not mask[k:].any()


def test_empty_arrays():
    assert topk_mask(np.empty((0, 3)), 2, axis=-1).shape == (0, 3)
    assert topk_mask(np.empty((3, 0)), 0, axis=-1).shape == (3, 0)
    assert topk_mask(np.empty(0), 0).shape == (0,)
    assert topk_threshold(np.empty((0, 3)), 2, axis=-1).shape == (0,)
    assert topk_mask(np.array(2.0), 1)[()]


@pytest.mark.parametrize("method", ["lower", "higher", "linear"])
@pytest.mark.parametrize("q", [0.0, 0.1, 0.29, 0.5, 0.999, 1.0])
def test_quantiles_are_those_of_numpy(q, method, rng, assert_close):
    for shape in ((1,), (101,), (4, 300), (150_001,)):
        scores = rng.standard_normal(shape)
        for axis in (None, -1):
            found = quantile_threshold(scores, q, method=method, axis=axis)
            assert_close(found, quantile_threshold_reference(scores, q, method, axis))
            wanted = np.quantile(scores, q, method=method, axis=axis)
            assert_close(found, wanted) if method == "linear" else np.testing.assert_array_equal(found, wanted)


def test_quantiles_by_hand():
    scores = np.array([4.0, 1.0, 2.0, 8.0], np.float32)
    assert [quantile_threshold(scores, q) for q in (0, 0.3, 0.5, 0.7, 1)] == [1, 1, 2, 4, 8]
    assert quantile_threshold(scores, 0.5, method="higher") == 4
    assert quantile_threshold(scores, 0.5, method="linear") == 3
    ends = np.array([-np.inf, 0, np.inf])
    assert quantile_threshold(ends, 0.25, method="linear") == -np.inf
    assert quantile_threshold(ends, 0.75, method="linear") == np.inf
    assert quantile_threshold(ends, 0.5, method="linear") == 0
    assert np.isnan(quantile_threshold(ends[[0, 2]], 0.5, method="linear"))
    assert quantile_threshold(np.array([-1.7e308, 1.7e308]), 0.5, method="linear") == 0


@pytest.mark.parametrize("shape", [(3, 4), (3, 40), (2, 9000), (1, 140_000)])
@pytest.mark.parametrize("k", [0, 2])
def test_nan_is_refused_with_its_place(shape, k):
    for dtype in FLOATS:
        for nan in (np.nan, -np.nan):
            scores = np.ones(shape, dtype)
            scores[-1, 1] = nan
            place = scores.size - shape[1] + 1
            for axis in (None, -1):
                with pytest.raises(ValueError, match=f"topk_mask: scores must hold no NaN, got one at {place} of"):
                    topk_mask(scores, k, axis=axis)
    with pytest.raises(ValueError, match="topk_threshold: scores must hold no NaN"):
        topk_threshold(scores, 1)


def test_bad_arguments_are_refused():
    scores = np.ones((4, 6))
    for call in (topk_mask, topk_threshold):
        with pytest.raises(ValueError, match=r"scores must be C-contiguous and aligned; pass np\.ascontiguousarray"):
            call(scores.T, 1)
        with pytest.raises(ValueError, match=r"k must be an int from . to 24, got 25"):
            call(scores, 25)
        with pytest.raises(ValueError, match=r"k must be an int from . to 6, got 7"):
            call(scores, 7, axis=-1)
        with pytest.raises(ValueError, match=r"axis must be None or the last of scores \(2 axes\), got 0"):
            call(scores, 1, axis=0)
        with pytest.raises(TypeError, match="scores must be a NumPy array of float16 or float32 or float64, got int64"):
            call(scores.astype(np.int64), 1)
        with pytest.raises(TypeError, match=r"convert it with scores.astype"):
            call(scores.astype(">f8"), 1)
    with pytest.raises(ValueError, match="k must be an int from 1"):
        topk_threshold(scores, 0)
    with pytest.raises(ValueError, match="axis must be None"):
        topk_mask(np.array(1.0), 1, axis=-1)
    with pytest.raises(ValueError, match="q must be a finite number from 0 to 1"):
        quantile_threshold(scores, 1.01)
    with pytest.raises(ValueError, match="quantile_threshold: scores must hold at least one score"):
        quantile_threshold(np.empty((3, 0)), 0.5, axis=-1)


def test_work_is_one_reading_and_one_byte_each():
    work = topk_mask_work(10, 8)
    assert (work.flops, work.bytes_streamed, work.gathers) == (0, 90, 0)
