import json
from dataclasses import replace

import numpy as np
import pytest

from widgets.figures.spgemm_scene import (
    STREAMS,
    Gantt,
    LiveCurve,
    ProbeHistogram,
    Roofline,
    StreamBytes,
    Utilisation,
)
from widgets.figures.spgemm_traffic import (
    bytes_figure,
    gantt_figure,
    live_figure,
    mark_now,
    probes_figure,
    readable_bytes,
    roofline_figure,
    utilisation_figure,
)
from widgets.theme import PALETTE


def curve(label, live, unit="products", kind="counted"):
    return LiveCurve(label=label, x=np.arange(1.0, 1 + len(live)), live=np.array(live), x_unit=unit, kind=kind)


TRAFFIC = StreamBytes(
    dataflows=("inner", "outer", "row", "column"),
    streams=STREAMS,
    bytes=np.array(
        [[160, 192, 0, 0, 0, 96], [80, 64, 0, 112, 112, 96], [80, 112, 112, 0, 0, 96], [112, 64, 0, 0, 0, 96.0]]
    ),
    note="16 B an element, no cache",
)
LIVE = (curve("outer", [1, 2, 3, 4, 5, 6, 7, 6]), curve("row", [1, 2, 2, 3, 4, 5, 6]))
UTILISATION = Utilisation(edges=np.linspace(0, 100, 5), series={"issue slots": np.array([0.2, 0.9, 1, 0.1])})
PROBES = ProbeHistogram(
    labels=("high bits", "low bits"),
    counts=np.array([[5, 2] + [0] * 62 + [1], [8] + [0] * 64]),
    mean=np.array([8.4, 0.0]),
)


def roofline(labels, per_byte, per_cycle):
    return Roofline(
        labels=labels,
        ops_per_byte=np.array(per_byte),
        ops_per_cycle=np.array(per_cycle),
        peak_ops_per_cycle=4.0,
        peak_bytes_per_cycle=2.1,
    )


ROOFLINE = roofline(("V1", "V3"), [0.5, 4], [0.4, 2.3])


def gantt(events=64, threads=8, total=None, seed=0):
    rng = np.random.default_rng(seed)
    thread = np.repeat(np.arange(threads), events // threads)
    t0 = np.tile(np.arange(events // threads) * 10.0, threads)
    row = rng.integers(0, 10, len(thread))
    t1 = t0 + np.where(row == 3, 9.9, 1.0)
    return Gantt(
        thread=thread,
        row=row,
        t0=t0,
        t1=t1,
        threads=threads,
        cycles=float(t1.max(initial=0)),
        events_total=total or len(thread),
    )


def figures(theme):
    return {
        "bytes": bytes_figure(TRAFFIC, theme=theme),
        "bytes log": bytes_figure(TRAFFIC, log=True, theme=theme),
        "live": live_figure(LIVE, theme=theme),
        "gantt": gantt_figure(gantt(), theme=theme),
        "utilisation": utilisation_figure(UTILISATION, theme=theme),
        "probes": probes_figure(PROBES, theme=theme),
        "roofline": roofline_figure(ROOFLINE, theme=theme),
    }


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_figure_takes_the_theme_and_is_json(theme):
    for name, figure in figures(theme).items():
        assert figure.layout.template.layout.paper_bgcolor == PALETTE[theme]["paper"], name
        json.loads(figure.to_json())


def test_every_figure_with_numbers_says_where_they_come_from():
    wanted = {"bytes": "counted", "bytes log": "counted", "live": "counted", "probes": "counted"}
    wanted |= {"gantt": "modelled", "utilisation": "modelled", "roofline": "modelled"}
    made = figures("light")
    for name, kind in wanted.items():
        assert f"({kind})" in made[name].layout.title.text, name


def test_stacked_bars_hold_every_byte_and_show_the_total():
    figure = bytes_figure(TRAFFIC)
    bars = [t for t in figure.data if t.type == "bar"]
    assert [t.name for t in bars] == list(STREAMS)
    assert np.array_equal(np.sum([t.y for t in bars], axis=0), TRAFFIC.bytes.sum(axis=1))
    assert figure.layout.barmode == "stack"
    assert list(figure.data[-1].text) == ["448 B", "464 B", "400 B", "272 B"]


def test_streams_are_told_apart_without_colour():
    bars = [t for t in bytes_figure(TRAFFIC).data if t.type == "bar"]
    assert len({t.marker.pattern.shape for t in bars}) == len(bars)
    lines = live_figure(LIVE).data
    assert len({t.line.dash for t in lines}) == len(lines)


def test_log_axis_never_stacks_and_leaves_out_zeros():
    figure = bytes_figure(TRAFFIC, log=True)
    assert figure.layout.barmode == "group"
    assert figure.layout.yaxis.type == "log"
    assert all(not (np.asarray(t.y, float) == 0).any() for t in figure.data)


def test_live_curves_are_drawn_whole_when_short_and_keep_extremes_when_long():
    figure = live_figure(LIVE)
    assert list(figure.data[0].y) == [1, 2, 3, 4, 5, 6, 7, 6]
    rng = np.random.default_rng(0)
    live = rng.integers(0, 100, 50_000)
    live[31_337] = 1_000_000
    trace = live_figure([curve("V2", live, "cycles", "modelled")]).data[0]
    assert len(trace.x) <= 4_002
    assert max(trace.y) == 1_000_000
    assert (trace.x[0], trace.x[-1]) == (1, 50_000)
    assert np.array_equal(live[np.asarray(trace.x, int) - 1], trace.y)


def test_curves_with_different_clocks_are_refused():
    with pytest.raises(ValueError, match="one unit of time; got cycles, products"):
        live_figure([LIVE[0], curve("V2", [0, 1, 2], "cycles", "modelled")])


def drawn_bars(figure):
    return sum(int(np.isnan(np.asarray(t.x, float)).sum()) for t in figure.data)


def test_gantt_draws_each_event_in_few_traces():
    log = gantt(64)
    figure = gantt_figure(log)
    assert len(figure.data) <= 3
    assert drawn_bars(figure) == 64
    starts = np.sort(np.concatenate([np.asarray(t.x, float)[::3] for t in figure.data]))
    assert np.array_equal(starts, np.sort(log.t0))
    assert "row 3, the longest" in [t.name for t in figure.data]
    assert "drawn as" not in figure.layout.title.text


def test_gantt_joins_what_a_pixel_cannot_show_and_says_so():
    log = gantt(64_000)
    figure = gantt_figure(log)
    assert 0 < drawn_bars(figure) < 12_500
    assert f"64,000 events drawn as {drawn_bars(figure):,} bars" in figure.layout.title.text.replace("<br>", " ")
    assert len(figure.to_json()) < 1_100_000
    busy = sum(np.nansum(np.asarray(t.x, float)[1::3] - np.asarray(t.x, float)[::3]) for t in figure.data)
    assert busy >= (log.t1 - log.t0).sum()


def test_gantt_names_what_the_log_left_out():
    assert "first 64 of 5,000 events" in gantt_figure(gantt(64, total=5000)).layout.title.text


def test_probe_histogram_keeps_the_open_last_bin():
    figure = probes_figure(PROBES)
    assert figure.data[0].x[-1] == "64+"
    assert figure.data[0].customdata[-1] == 1
    assert "8.4 extra probes a product" in figure.layout.title.text.replace("<br>", " ")


def test_roofline_points_lie_where_the_numbers_say():
    figure = roofline_figure(ROOFLINE)
    ceiling, first, second = figure.data
    assert (first.x[0], first.y[0], second.x[0], second.y[0]) == (0.5, 0.4, 4, 2.3)
    assert np.allclose(ceiling.y, np.minimum(4.0, 2.1 * np.asarray(ceiling.x)))


def test_roofline_leaves_out_points_without_bytes():
    figure = roofline_figure(roofline(("V1", "V2"), [np.nan, 0.5], [0.0, 0.4]))
    assert [t.name for t in figure.data] == ["ceiling", "V2"]


NOTHING = {
    "bytes": lambda: bytes_figure(replace(TRAFFIC, bytes=np.zeros((4, 6)))),
    "live": lambda: live_figure([curve("outer", []), curve("row", [])]),
    "no curve": lambda: live_figure([]),
    "gantt": lambda: gantt_figure(gantt(0)),
    "utilisation": lambda: utilisation_figure(Utilisation(edges=np.zeros(1), series={"issue slots": np.zeros(0)})),
    "no time": lambda: utilisation_figure(Utilisation(edges=np.zeros(2), series={"issue slots": np.zeros(1)})),
    "probes": lambda: probes_figure(replace(PROBES, counts=np.zeros((2, 65), int), mean=np.zeros(2))),
    "roofline": lambda: roofline_figure(roofline(("V1",), [np.nan], [0.0])),
}


@pytest.mark.parametrize("name", NOTHING)
def test_a_plot_of_nothing_is_a_sentence(name):
    figure = NOTHING[name]()
    (note,) = figure.layout.annotations
    text = note.text.replace("<br>", " ")
    assert text.endswith(".") and len(text.split()) > 4
    assert not figure.data and figure.layout.xaxis.visible is False
    assert "(counted)" in figure.layout.title.text or "(modelled)" in figure.layout.title.text


def test_the_mark_moves_along_the_curves():
    figure = live_figure(LIVE, present="row")
    assert [trace.line.width for trace in figure.data] == [2, 4]
    for x, live in ((3, 2), (5, 4)):
        mark_now(figure, x, live)
        assert len(figure.data) == 3
        assert (figure.data[-1].x, figure.data[-1].y, figure.data[-1].name) == ((x,), (live,), f"now: {live} kept")
    nothing = live_figure([])
    mark_now(nothing, 0, 0)
    assert not nothing.data


def test_a_logarithmic_axis_has_gaps_where_nothing_is_kept():
    drawn = live_figure([curve("row", [0, 2, 0, 3])], log=True).data[0].y
    assert np.isnan(drawn[[0, 2]]).all() and drawn[[1, 3]].tolist() == [2, 3]


@pytest.mark.parametrize(
    "count,text", [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (3.2e9, "3.2 GB"), (4e15, "4,000 TB"), (999_600, "1 MB")]
)
def test_bytes_read_well(count, text):
    assert readable_bytes(count) == text
