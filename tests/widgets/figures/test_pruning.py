"""Figures about pruning: which points are drawn, the front, the budget, the layers' grid, and their words."""

import math
from dataclasses import replace

import numpy as np

from widgets.figures.pruning import (
    Axis,
    LayerLoss,
    PruningScene,
    TradeoffPoint,
    at_budget,
    budget_figure,
    bytes_figure,
    front_points,
    recounted,
    shown_points,
    tradeoff_figure,
)
from widgets.figures.pruning_words import (
    budget_words,
    bytes_words,
    comparison_words,
    layer_words,
    number_rows,
    point_html,
    tradeoff_words,
)
from widgets.figures.sentence import sentence_of

GOOD = Axis(key="cosine", label="cosine", unit="cosine", better="higher", kind="measured")
BAD = Axis(key="cost_of_text", label="bits per byte", unit="bits per byte", better="lower", kind="measured")
STORED = Axis(key="stored", label="bytes, stored", unit="bytes", better="lower", kind="counted")
TIME = Axis(key="time_1", label="time, 1 token", unit="ms", better="lower", kind="measured")
LAYERS = tuple(
    LayerLoss(name=f"layers.{i}.{role}", density=0.5, weight_error=0.1 * i, output_error=0.1 * i + 0.01 * j)
    for i in (0, 1)
    for j, role in enumerate(("query", "feed_in"))
)


def point(key, method, stored, cosine, text=1.0, **more):
    quality = {"cosine": cosine, "cost_of_text": text}
    return TradeoffPoint(key=key, method=method, level=key[1:], quality=quality, cost={"stored": stored}, **more)


POINTS = (
    point("a1", "A", 50.0, 0.9, layers=LAYERS, parts={"values": 40.0, "indices": 10.0}),
    point("a2", "A", 30.0, 0.7),
    point("b1", "B", 50.0, 0.8, added=True),
    point("b2", "B", 20.0, 0.75),
    point("c1", "C", 80.0, 0.85),
    point("r1", "A", 30.0, 0.95, stage="recovered"),
)
DENSE = TradeoffPoint(
    key="dense", method="before pruning", level="all weights", quality={"cosine": 1.0}, cost={"stored": 100.0},
    parts={"values": 100.0},
)  # fmt: skip
SCENE = PruningScene(
    model="a model", dense=DENSE, points=POINTS, qualities=(GOOD, BAD), costs=(STORED, TIME), note="A remark."
)


def one_shot():
    return shown_points(SCENE, GOOD, STORED, "one-shot")


def test_points_of_a_stage_that_have_both_quantities_are_shown():
    assert [p.key for p in one_shot()] == ["a1", "a2", "b1", "b2", "c1"]
    assert [p.key for p in shown_points(SCENE, GOOD, STORED, "recovered")] == ["r1"]
    assert not shown_points(SCENE, GOOD, TIME, "one-shot")


def test_the_front_holds_what_nothing_beats_from_the_cheapest_on():
    assert [p.key for p in front_points(one_shot(), GOOD, STORED)] == ["b2", "a1"]
    assert front_points([], GOOD, STORED) == []
    least = [point("x1", "X", 1.0, 0.0, 3.0), point("x2", "X", 2.0, 0.0, 2.0), point("x3", "X", 3.0, 0.0, 2.5)]
    assert [p.key for p in front_points(least, BAD, STORED)] == ["x1", "x2"]


def test_at_a_budget_each_method_has_its_best_point_within_it():
    assert [p.key for p in at_budget(one_shot(), GOOD, STORED, 50)] == ["a1", "b1"]
    assert [p.key for p in at_budget(one_shot(), GOOD, STORED, 49)] == ["b2", "a2"]
    assert [p.key for p in at_budget(one_shot(), GOOD, STORED, 100)] == ["a1", "c1", "b1"]
    assert at_budget(one_shot(), GOOD, STORED, 10) == []


def test_the_tradeoff_is_drawn_with_the_front_the_budget_and_the_choice():
    figure = tradeoff_figure(SCENE, GOOD, STORED, "one-shot", 0.5, "b1", "light")
    by_name = {trace.name: trace for trace in figure.data}
    assert list(by_name) == ["A", "B", "C", "Pareto front", "the model before pruning", "chosen"]
    np.testing.assert_array_equal(by_name["A"].x, [30, 50])  # from the cheapest on
    np.testing.assert_array_equal(by_name["A"].y, [0.7, 0.9])
    assert list(by_name["A"].customdata) == ["a2", "a1"]
    np.testing.assert_array_equal(by_name["Pareto front"].x, [20, 50])
    assert (by_name["chosen"].x[0], by_name["chosen"].y[0]) == (50, 0.8)
    assert figure.layout.shapes[0].x0 == 50  # half of the dense model's hundred bytes
    assert by_name["B"].marker.size == (9, 13)  # the point computed here is larger
    assert {by_name[name].marker.symbol for name in "ABC"} == {"circle", "square", "diamond"}


def test_what_no_record_holds_is_a_sentence():
    assert "time, 1 token" in sentence_of(tradeoff_figure(SCENE, GOOD, TIME, "one-shot", 0.5, "", "dark"))
    assert "within 0.05" in sentence_of(budget_figure(SCENE, GOOD, STORED, "one-shot", 0.05, "light"))


def test_bars_stand_at_what_points_really_cost():
    figure = budget_figure(SCENE, GOOD, STORED, "one-shot", 0.5, "light")
    assert figure.data[0].base == 1.0  # what the model was before
    np.testing.assert_allclose(figure.data[0].x, [-0.1, -0.2])
    assert [list(row) for row in figure.data[0].customdata] == [["a1", 0.5, 0.9], ["b1", 0.5, 0.8]]


def test_bytes_are_stacked_by_kind_beside_those_before():
    figure = bytes_figure(SCENE, POINTS[0], "light")
    assert {trace.name: list(trace.x) for trace in figure.data} == {"values": [1e-4, 4e-5], "indices": [0, 1e-5]}
    assert len(bytes_figure(SCENE, None, "light").data) == 1


def test_values_of_other_widths_change_the_bytes_and_nothing_else():
    assert recounted(SCENE, 16, True) is SCENE
    four = recounted(SCENE, 4, True)
    a1, b1 = four.points[0], four.points[2]
    assert a1.parts == {"values": 10.0, "indices": 10.0} and a1.cost == {"stored": 20.0}
    assert (four.dense.parts, four.dense.cost) == ({"values": 25.0}, {"stored": 25.0})
    assert a1.quality == POINTS[0].quality and a1.layers is POINTS[0].layers
    assert "stored" not in b1.cost  # what its bytes are is not known, so that they cannot be counted anew
    assert four.costs[0].told == "bytes, stored, values of 4 bits (counted)" and four.costs[1] is TIME
    assert four.note.startswith("A remark. Quality is that of weights that were not rounded to 4 bits")
    assert [p.key for p in shown_points(four, GOOD, STORED, "one-shot")] == ["a1"]


def test_the_plot_keeps_its_size_however_many_methods_the_legend_names():
    many = replace(SCENE, points=tuple(point(f"m{i}", f"M{i}", 10 + i, 0.5) for i in range(18)))
    few, much = (tradeoff_figure(scene, GOOD, STORED, "one-shot", 0.5, "", "light").layout for scene in (SCENE, many))
    assert few.height - few.margin.b == much.height - much.margin.b
    assert much.margin.b - few.margin.b >= 20 * 7  # 18 methods in two columns, in place of two or three


def test_factors_are_values_and_codes_keep_their_bits():
    parts = {"dense factors": 40.0, "codes": 10.0, "scales": 2.0}
    (found,) = recounted(replace(SCENE, points=(point("c1", "C", 52, 0.5, parts=parts),)), 8, True).points
    assert found.parts == {"dense factors": 20.0, "codes": 10.0, "scales": 2.0} and found.cost["stored"] == 32.0


def test_bytes_without_indices_are_those_of_the_values():
    bare = recounted(SCENE, 32, False)
    assert bare.points[0].parts == {"values": 80.0} and bare.points[0].cost == {"stored": 80.0}
    assert bare.dense.cost == {"stored": 200.0}
    assert bare.costs[0].label == "bytes, stored, values of 32 bits, without indices" and bare.note == "A remark."


def test_words_say_what_the_pictures_show():
    assert "5 pruned models" in tradeoff_words(SCENE, GOOD, STORED, "one-shot")
    assert "B, 2: 0.75 at 20; A, 1: 0.9 at 50" in tradeoff_words(SCENE, GOOD, STORED, "one-shot")
    assert "No point" in tradeoff_words(SCENE, GOOD, TIME, "one-shot")
    assert "A, 1 0.9; B, 1 (computed here) 0.8" in budget_words(SCENE, GOOD, STORED, "one-shot", 0.5)
    assert "no method" in budget_words(SCENE, GOOD, STORED, "one-shot", 0.01)
    assert "largest 0.11 in layers.1.feed_in" in layer_words(POINTS[0], "output_error")
    assert "No point is chosen" in layer_words(None, "output_error")
    assert "values 0.000 MB" in bytes_words(SCENE, POINTS[0])
    told = point_html(SCENE, POINTS[0])
    assert "A remark." in told and "0.9" in told and "not taken" in told and "(counted)" in told
    assert "no point chosen" in point_html(SCENE, None)
    rows = number_rows(SCENE)
    assert ("A", "1", "one-shot", "cosine (measured)", 0.9) in rows
    assert ("A", "1", "one-shot", "bytes of indices (counted)", 10.0) in rows
    assert all(math.isfinite(row[-1]) for row in rows) and not [row for row in rows if "layers." in row[3]]
    more = number_rows(SCENE, [POINTS[0]])
    assert ("A", "1", "one-shot", "relative error of the layer's outputs, layers.1.feed_in", 0.11) in more
    assert len(more) == len(rows) + 3 * len(LAYERS)
    told = comparison_words([POINTS[0], POINTS[1]], "output_error")
    assert "A, 1: mean 0.055, largest 0.11 in layers.1.feed_in" in told and "A, 2" not in told  # it has no layers
    assert "No point is compared" in comparison_words([], "output_error")


def test_an_axis_names_its_unit_once_and_how_it_came_about():
    assert STORED.told == "bytes, stored (counted)"
    assert TIME.told == "time, 1 token [ms] (measured)"
    assert SCENE.axis("cost_of_text", "qualities") is BAD
    assert SCENE.axis("unknown", "costs") is STORED
