"""Times in the picture: measured once for an input and settings, hidden with a sentence when unsteady, never modelled
with anything that is not stored."""

import pytest

from workbench.explorers.attention import cost, explorer
from workbench.explorers.attention.explorer import view_class
from workbench.explorers.attention.source import load_input
from workbench.machines import roofline, stopwatch
from workbench.machines.stopwatch import Timing

DEFAULTS = {knob.key: knob.default for knob in view_class().knobs}
pytestmark = pytest.mark.timed


@pytest.fixture
def clock(monkeypatch):
    """Replace the clock: every measurement gives another time, and what was measured is listed."""
    measured, ticks = [], iter(range(1, 1000))

    def measure(runs, *, rounds, least_s, settle=True):
        assert rounds * least_s >= 0.05 and settle
        measured.append(sorted(runs))
        return {name: Timing((next(ticks) * 1e-3,) * rounds) for name in runs}

    monkeypatch.setattr(stopwatch, "measure", measure)
    monkeypatch.setattr(cost, "_timed", {})
    return measured


def rows(tokens=64, **state):
    state = DEFAULTS | {"input": "slash", "block": 16} | state
    *_, scene = explorer.scenes(load_input("slash", tokens=tokens), state)
    return [
        {label.partition(" ")[0]: text for label, text in result.facts.items() if label.startswith(("time", "least"))}
        for result in (scene.result, scene.other)
        if result is not None
    ]


def test_the_same_picture_shows_the_same_times(clock):
    first = rows()
    assert clock == [["attend", "dense", "estimate"]] and "estimate 1 ms (0)" in first[0]["time"]
    assert rows() == first and len(clock) == 1


def test_dense_attention_has_one_time_for_an_input_whatever_stands_beside_it(clock):
    times = [rows(), rows(threshold=0.5), *([row] for row in rows(method="combiner", compare_with="formula"))]
    dense = {row["time"].rpartition("dense ")[2] for (row,) in times}
    assert len(dense) == 1 and clock == [
        ["attend", "dense", "estimate"],
        ["attend", "estimate"],
        ["attend"],
        ["attend"],
    ]
    both_ways = rows(method="ponet")[0]["time"].rpartition("dense ")[2]  # without the causal rule: another mask
    assert both_ways not in dense and clock[-1] == ["dense", "pool"]
    longer = rows(tokens=65)[0]["time"].rpartition("dense ")[2]
    assert longer not in dense


def test_a_time_that_is_not_steady_is_hidden_with_a_sentence_and_measured_again(clock, monkeypatch):
    def shaky(runs, **how):
        return {name: Timing((1.0, 1.0, 2.0, 2.0) if name == "dense" else (1.0, 1.0)) for name in runs}

    steady = stopwatch.measure
    monkeypatch.setattr(stopwatch, "measure", shaky)
    (told,) = rows(method="combiner")
    assert told["time"] == (
        "attend 1,000 ms (0). The time of dense is not shown: its rounds differ by more than 25% of their median, as "
        "they do while other work runs on this machine."
    )
    monkeypatch.setattr(stopwatch, "measure", steady)
    (told,) = rows(method="combiner")
    assert clock == [["dense"]] and "attend 1,000 ms (0), dense 1 ms" in told["time"]


def test_modelled_times_measure_nothing_and_dense_is_the_same_for_all(clock, monkeypatch):
    monkeypatch.setattr(roofline, "measure", lambda *a, **k: pytest.fail("a picture measured the machine"))
    told = [row["least"] for row in (*rows(), *rows(block=64), *rows(method="combiner", compare_with="sea"))]
    assert len({text.partition("dense ")[2] for text in told}) == 1 and "the peaks of " in told[0]


@pytest.mark.slow
def test_real_times_are_real():
    (told,) = rows(method="combiner", tokens=256)
    assert "dense" in told["time"] and (" ms (" in told["time"] or "is not shown" in told["time"])
