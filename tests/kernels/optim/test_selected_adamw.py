"""The step on chosen entries against its reference, torch's AdamW, numbers by hand, and bad input."""

import numpy as np
import pytest
import torch

from kernels.optim.selected_adamw import selected_adamw, selected_adamw_reference, selected_adamw_work


def made(rng, size, k, dtype=np.float32, places=np.int32):
    index = np.sort(rng.choice(size, k, replace=False)).astype(places)
    w, g = (rng.standard_normal(size).astype(dtype) for _ in range(2))
    return w, g, index, rng.standard_normal(k).astype(dtype), rng.random(k).astype(dtype)


@pytest.mark.parametrize("places", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("size", "k"), [(0, 0), (5, 0), (1, 1), (7, 3), (600, 255), (600, 257), (600, 600), (90_000, 40_001)]
)
def test_it_equals_the_reference(size, k, dtype, places, rng, assert_close, level):
    w, g, index, m, v = made(rng, size, k, dtype, places)
    knobs = {"step": 3, "rate": 0.01, "beta1": 0.8, "beta2": 0.95, "eps": 1e-6, "weight_decay": 0.3}
    wanted = selected_adamw_reference(w, g, index, m, v, **knobs)
    before, compact = w.copy(), g[index]
    again = w.copy(), compact, index, m.copy(), v.copy()
    selected_adamw(w, g, index, m, v, **knobs)
    for found, want in zip((w, m, v), wanted, strict=True):
        assert_close(found, want.astype(dtype))
    there = np.isin(np.arange(size), index)
    np.testing.assert_array_equal(w[~there], before[~there])
    assert (w[there] != before[there]).all()
    selected_adamw(*again, **knobs)  # gradients that were gathered before: the same bits
    for found, want in zip((again[0], *again[3:]), (w, m, v), strict=True):
        np.testing.assert_array_equal(found, want)


def test_an_entry_by_hand():
    w, g = np.array([[4.0, 5.0], [6.0, 7.0]]), np.array([[9.0, 9.0], [2.0, 9.0]])
    m, v = np.zeros(1), np.zeros(1)
    selected_adamw(w, g, np.array([2]), m, v, step=1, rate=0.5, eps=0.0, weight_decay=0.2)
    np.testing.assert_allclose(w, [[4, 5], [6 * 0.9 - 0.5, 7]], rtol=1e-14)  # a first step has the length of the rate
    np.testing.assert_allclose([m[0], v[0]], [0.2, 0.004], rtol=1e-12)
    selected_adamw(w, -g, np.array([2]), m, v, step=2, rate=0.5, eps=0.0)
    np.testing.assert_allclose(m, 0.9 * 0.2 - 0.2, rtol=1e-12)
    change = (-0.02 / 0.19) / np.sqrt((0.999 * 0.004 + 0.004) / (1 - 0.999**2))
    np.testing.assert_allclose(w[1, 0], 4.9 - 0.5 * change, rtol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-13)])
def test_twenty_steps_on_all_entries_are_those_of_torch(dtype, tolerance, rng):
    w = rng.standard_normal(1000).astype(dtype)
    theirs = torch.nn.Parameter(torch.from_numpy(w.copy()))
    optimizer = torch.optim.AdamW([theirs], lr=3e-2, betas=(0.8, 0.99), eps=1e-7, weight_decay=0.1)
    m, v, index = np.zeros_like(w), np.zeros_like(w), np.arange(1000, dtype=np.int32)
    for step in range(1, 21):
        g = rng.standard_normal(1000).astype(dtype)
        theirs.grad = torch.from_numpy(g.copy())
        optimizer.step()
        selected_adamw(w, g, index, m, v, step=step, rate=3e-2, beta1=0.8, beta2=0.99, eps=1e-7, weight_decay=0.1)
    np.testing.assert_allclose(w, theirs.detach().numpy(), rtol=tolerance, atol=tolerance)


def test_same_bits_for_any_thread_count(rng, level):
    given = made(rng, 200_000, 100_003)
    results = []
    for threads in (1, 2, 3):
        w, g, index, m, v = (part.copy() for part in given)
        selected_adamw(w, g, index, m, v, step=5, rate=0.1, num_threads=threads)
        results.append((w, m, v))
    for other in results[1:]:
        for found, want in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(found, want)


def test_nan_and_infinity_stay_in_their_entry(rng):
    w, g, index, m, v = made(rng, 50, 20)
    g[index[3]], g[index[7]] = np.nan, np.inf
    selected_adamw(w, g, index, m, v, step=1, rate=0.1)
    assert np.flatnonzero(~np.isfinite(w)).tolist() == [index[3], index[7]]


@pytest.mark.parametrize("at", [0, 1, 300, 16_384, 39_999])
@pytest.mark.parametrize("fault", ["repeated", "below", "above"])
def test_a_bad_place_is_named_and_nothing_is_changed(at, fault, rng, level):
    w, g, index, m, v = made(rng, 90_000, 40_000)
    index[at] = {"repeated": index[at - 1] if at else -3, "below": -1, "above": 90_000}[fault]
    before = [part.copy() for part in (w, m, v)]
    with pytest.raises(ValueError, match=rf"index must rise strictly within \[0, 90000\), got {index[at]} at {at}"):
        selected_adamw(w, g, index, m, v, step=1, rate=0.1, num_threads=2)
    for found, want in zip((w, m, v), before, strict=True):
        np.testing.assert_array_equal(found, want)


def test_large_places_are_not_cut():
    w, index = np.zeros(3, np.float32), np.array([2**32], np.int64)
    with pytest.raises(ValueError, match="4294967296 at 0"):
        selected_adamw(w, w.copy(), index, *np.zeros((2, 1), np.float32), step=1, rate=0.1)


def test_work_counts():
    work = selected_adamw_work(10)
    assert (work.flops, work.bytes_streamed, work.gathers) == (160, 10 * (4 * 4 + 4), 20)
    work = selected_adamw_work(10, itemsize=8, index_bytes=8, dense=False)
    assert (work.flops, work.bytes_streamed, work.gathers) == (160, 10 * (5 * 8 + 8), 10)


def test_bad_input_is_named(rng):
    w, g, index, m, v = made(rng, 12, 5)

    def refuse(error, match, **changed):
        given = {"weights": w, "gradients": g, "index": index, "first": m, "second": v, "step": 1, "rate": 0.1}
        with pytest.raises(error, match=f"selected_adamw: {match}"):
            selected_adamw(**(given | changed))

    refuse(TypeError, "gradients must be a NumPy array of float32, got float64", gradients=g.astype(float))
    refuse(TypeError, "weights must be a NumPy array of float32 or float64, got int64", weights=np.arange(12))
    refuse(TypeError, "index must be a NumPy array of int32 or int64, got bool", index=np.ones(5, bool))
    refuse(ValueError, r"gradients must have the shape of weights, \(12,\), or of index, \(5,\)", gradients=g[:7])
    refuse(ValueError, r"second must have the shape of index, \(5,\), got \(4,\)", second=v[:4])
    refuse(ValueError, "first must be C-contiguous", first=np.zeros(10, np.float32)[::2])
    refuse(ValueError, "index must be .* contiguous", index=np.arange(10, dtype=np.int32)[::2])
    refuse(ValueError, "weights and gradients must not share memory", gradients=w)
    refuse(ValueError, "first and second must not share memory", second=m)
    refuse(ValueError, "beta2 must be at least 0 and below 1", beta2=1.0)
    refuse(ValueError, "step", step=0)
    refuse(ValueError, "rate", rate=-1)
    fixed = w.copy()
    fixed.flags.writeable = False
    refuse(ValueError, "weights is changed in place and must be writeable", weights=fixed)
