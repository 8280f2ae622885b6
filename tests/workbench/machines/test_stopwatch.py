"""Interleaved rounds, medians and quartiles; a spinning thread is waited for."""

import threading
import time

import pytest

from workbench.machines import stopwatch
from workbench.machines.stopwatch import Timing, measure, wait_until_idle


def test_every_contender_takes_part_in_every_round_each_in_another_order(monkeypatch):
    calls = []
    monkeypatch.setattr(stopwatch, "_repeats", lambda run, least_s: 1)
    runs = {name: lambda name=name: calls.append(name) for name in "abc"}
    found = measure(runs, rounds=3, settle=False)
    assert "".join(calls) == "abcbcacab" and list(found) == ["a", "b", "c"]
    assert all(len(timing.samples_s) == 3 and min(timing.samples_s) > 0 for timing in found.values())


def test_a_short_call_is_repeated_until_the_sample_is_long_enough():
    calls = []
    timing = measure({"nothing": lambda: calls.append(1)}, rounds=1, least_s=0.01, settle=False)["nothing"]
    assert len(calls) > 100 and timing.median_s < 1e-3


def test_no_round_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        measure({"a": int}, rounds=0)


def test_median_and_spread():
    timing = Timing((5.0, 1.0, 2.0, 3.0, 4.0))
    assert (timing.median_s, timing.spread_s) == (3.0, 2.0)


def test_waiting_for_an_idle_process_sees_a_spinning_thread():
    assert wait_until_idle(2.0)
    stop = threading.Event()

    def spin():
        while not stop.is_set():
            sum(range(1000))

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        assert not all(wait_until_idle(0.1) for _ in range(10))  # a busy machine may hold the thread off for a while
    finally:
        stop.set()
        thread.join()
    start = time.perf_counter()
    assert wait_until_idle(5.0) and time.perf_counter() - start < 5


def test_a_median_is_steady_up_to_a_spread_of_a_quarter():
    assert Timing((1.0, 1.0, 1.0, 5.0)).is_steady is False
    assert Timing((0.9, 1.0, 1.0, 1.1, 9.0)).is_steady
    at_the_limit = Timing((1.0, 1.0, 1.25, 1.25, 1.125))
    assert at_the_limit.spread_s == stopwatch.STEADY_SPREAD and at_the_limit.is_steady


def test_a_call_that_gets_faster_is_repeated_until_the_sample_is_long_enough(monkeypatch):
    """Ten calls of 4 ms, and 0.2 ms each from then on: 250 calls of those make 50 ms, where 13 of the first would."""
    left = [10]

    def sample(run, repeats):
        slow = min(left[0], repeats)
        left[0] -= slow
        return (slow * 4e-3 + (repeats - slow) * 2e-4) / repeats

    monkeypatch.setattr(stopwatch, "_sample", sample)
    count = stopwatch._repeats(int, 0.05)
    assert 250 <= count < 1000 and left == [0]


def test_all_rounds_together_take_as_long_as_asked():
    calls = []
    rounds, least_s = 4, 0.005
    timing = measure({"nothing": lambda: calls.append(1)}, rounds=rounds, least_s=least_s, settle=False)["nothing"]
    assert sum(timing.samples_s) * len(calls) > rounds * least_s
