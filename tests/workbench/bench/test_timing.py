import math

import pytest

from workbench.bench.timing import Case, Contender, checked, geometric_mean, measure


def make_contender(name, calls, result=1, ours=False, error=None):
    def run():
        calls.append(name)
        if error:
            raise error
        return result

    return Contender(name, run, 1, ours)


def make_case(contenders, check=lambda name, result: None):
    return Case(1.0, "flop", tuple(contenders), check)


def test_every_contender_takes_part_in_every_round():
    calls = []
    slow = [make_contender(name, calls) for name in "abc"]
    timings = measure(slow, rounds=7, settle=False)
    assert [t.name for t in timings] == ["a", "b", "c"]
    assert all(len(t.samples_s) == 7 and min(t.samples_s) > 0 for t in timings)


def test_fewer_than_seven_rounds_are_refused():
    with pytest.raises(ValueError, match="at least 7"):
        measure([make_contender("a", [])], rounds=6)


def test_wrong_results_are_found_before_timing():
    calls = []

    def check(name, result):
        if result != 1:
            raise ValueError("off by one")

    contenders = [
        make_contender("good", calls),
        make_contender("bad", calls, result=2),
        make_contender("broken", calls, error=RuntimeError("boom")),
        make_contender("greedy", calls, error=MemoryError()),
    ]
    assert checked(make_case(contenders, check)) == {
        "bad": "ValueError: off by one",
        "broken": "RuntimeError: boom",
        "greedy": "ran out of memory",
    }


def test_geometric_mean():
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
    assert math.isnan(geometric_mean([]))
