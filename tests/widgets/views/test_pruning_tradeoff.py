"""PruningTradeoffView: state, choices that follow the scene, clicks, points of the reader's own, links."""

import csv
import gc
import io
import weakref

import pytest

from widgets.figures.pruning import Axis, LayerLoss, PruningScene, TradeoffPoint
from widgets.views.frame.story import Story
from widgets.views.pruning_tradeoff import (
    MOST_ADDED,
    MOST_KEPT,
    PruningHooks,
    PruningTradeoffView,
    added_points,
    pruning_knobs,
)

GOOD = Axis(key="cosine", label="cosine", unit="cosine", better="higher", kind="measured")
SAME = Axis(key="same", label="share that stays", unit="fraction", better="higher", kind="measured")
STORED = Axis(key="stored", label="bytes, stored", unit="bytes", better="lower", kind="counted")
TIME = Axis(key="time_1", label="time, 1 token", unit="ms", better="lower", kind="measured")
PARTS = {"values": 0.75, "indices": 0.25}  # of the bytes that a point stores
LAYERS = tuple(LayerLoss(name=f"layers.{i}.out", density=0.5, weight_error=0.2, output_error=0.1) for i in (0, 1))


def point(key, stored, cosine, **more):
    method, level = key.split("@")
    return TradeoffPoint(
        key=key, method=method, level=level, quality={"cosine": cosine}, cost={"stored": stored}, layers=LAYERS,
        parts={kind: share * stored for kind, share in PARTS.items()}, **more,
    )  # fmt: skip


RECORDED = (
    point("wanda@0.5", 50.0, 0.8),
    point("wanda@0.7", 30.0, 0.6),
    point("magnitude@0.5", 50.0, 0.7),
    point("wanda@0.7", 30.0, 0.9, stage="recovered"),
)


def scenes(state, progress=None):
    good = GOOD if state["model"] == "small" else SAME
    dense = TradeoffPoint(
        key="dense", method="before", level="all", quality={"cosine": 1.0}, cost={"stored": 100.0},
        parts={"values": 100.0},
    )  # fmt: skip
    points = list(RECORDED) if state["model"] == "small" else []
    yield PruningScene(model=state["model"], dense=dense, points=tuple(points), qualities=(good,), costs=(STORED, TIME))
    for method, level in added_points(state["added"]):
        points.append(point(f"{method}@{level}", 40.0, 0.65, added=True))
        yield PruningScene(
            model=state["model"], dense=dense, points=tuple(points), qualities=(good,), costs=(STORED, TIME)
        )


class Tradeoffs(PruningTradeoffView):
    knobs = pruning_knobs(
        (("small", "A small model"), ("other", "Another")),
        (("magnitude", "Magnitude"), ("wanda", "Wanda"), ("nm", "n:m")),
        ("0.5", "0.6", "2:4"),
        (GOOD, SAME),
        (STORED, TIME),
    )


def solved(state):
    if state["within"] < 0.1:
        raise ValueError("solve: the smallest ratio is 0.1")
    return f"{1 - state['within']:.2f}", f"{state['method']} meets {state['within']}."


HOOKS = PruningHooks(
    levels={"magnitude": ("0.5", "0.6"), "wanda": ("0.5", "0.6"), "nm": ("2:4",)},
    budget=lambda state: "That model is not here." if state["model"] == "other" and state["method"] == "nm" else None,
    recipe=lambda words: f"view = make({words})",
    solve=lambda state: solved(state),
    stories=(Story("Half", {"within": 0.5, "point": "wanda@0.5"}, "Half of the bytes."),),
)


@pytest.fixture
def view():
    shown = Tradeoffs(scenes, HOOKS)
    yield shown
    shown.close()


def shown_choices(view, key):
    return [value for value, _ in next(knob for knob in view._shown_knobs() if knob.key == key).choices]


def names(pane):
    return [trace.name for trace in pane.figure.data]


def test_it_draws_the_records_at_once(view):
    assert names(view._tradeoff) == ["wanda", "magnitude", "Pareto front", "the model before pruning"]
    assert list(view._budget_bars.figure.data[0].text) == ["0.8", "0.7"]
    assert "Choose a point" in view._layers.alt
    assert view.error == ""


def test_a_click_on_a_point_or_a_bar_chooses_it_and_a_click_on_the_grid_a_layer(view):
    view._tradeoff._receive(None, {"type": "click", "points": [{"curve": 0, "index": 0, "x": 30, "y": 0.6}]}, [])
    assert view.point == "wanda@0.7"
    assert "chosen" in names(view._tradeoff)
    assert shown_choices(view, "layer") == ["", "layers.0.out", "layers.1.out"]
    view._layers._receive(None, {"type": "click", "points": [{"curve": 0, "index": 0, "x": "out", "y": "layer 1"}]}, [])
    assert view.layer == "layers.1.out"
    view._budget_bars._receive(None, {"type": "click", "points": [{"curve": 0, "index": 1, "x": 0, "y": ""}]}, [])
    assert view.point == "magnitude@0.5"
    for stray in ([], [{"curve": 9, "index": 0}], [{"curve": 0, "index": 9}], [{"x": "?", "y": "?"}]):
        view._tradeoff._receive(None, {"type": "click", "points": stray}, [])
        view._layers._receive(None, {"type": "click", "points": stray}, [])
    assert (view.point, view.layer) == ("magnitude@0.5", "layers.1.out")


def test_points_offered_are_those_of_the_stage(view):
    assert shown_choices(view, "point") == ["", "wanda@0.5", "wanda@0.7", "magnitude@0.5"]
    view.stage = "recovered"
    assert shown_choices(view, "point") == ["", "wanda@0.7"]
    assert list(view._tradeoff.figure.data[0].y) == [0.9]


def test_a_stage_is_offered_where_there_are_several(view):
    assert "stage" in [knob.key for knob in view._shown_knobs()]
    view.model = "other"  # without any point
    assert "stage" not in [knob.key for knob in view._shown_knobs()]


def test_another_model_or_stage_forgets_the_point(view):
    view.point, view.layer = "wanda@0.5", "layers.0.out"
    view.stage = "recovered"
    assert (view.point, view.layer) == ("", "")
    view.point = "wanda@0.5"
    view.model = "other"
    assert view.point == ""
    assert "No record holds share that stays" in view._tradeoff.alt
    assert view.quality == "same"  # the only one that this model has
    assert shown_choices(view, "quality") == ["same"]


def test_a_method_brings_its_levels(view):
    view.method = "nm"
    assert view.level == "2:4"
    assert shown_choices(view, "level") == ["2:4"]
    view.method = "wanda"
    assert view.level == "0.5"


def test_a_reader_adds_points_and_removes_them(view):
    view.method, view.level = "wanda", "0.6"
    view._button_pressed("add")
    assert view.added == "wanda@0.6"
    assert [p.key for p in view.scene.points if p.added] == ["wanda@0.6"]
    view._button_pressed("add")  # the same again changes nothing
    assert view.added == "wanda@0.6"
    view.method = "nm"
    view._button_pressed("add")
    assert view.added == "wanda@0.6,nm@2:4"
    assert [p.key for p in view.scene.points if p.added] == ["wanda@0.6", "nm@2:4"]
    view._button_pressed("clear")
    assert view.added == "" and not any(p.added for p in view.scene.points)


def test_a_level_is_solved_for_the_budget_computed_and_shown(view):
    with view.changes():
        view.method, view.within, view.stage = "wanda", 0.25, "recovered"
    view._button_pressed("solve")
    assert (view.added, view.point, view.stage, view.error) == ("wanda@0.75", "wanda@0.75", "one-shot", "")
    assert view._buttons.text == "wanda meets 0.25." and view.chosen(view.scene).added
    view.within = 0.05
    view._button_pressed("solve")
    assert view.error == "solve: the smallest ratio is 0.1." and view.added == "wanda@0.75"
    view._button_pressed("clear")
    assert view._buttons.text == "" and view.added == ""
    without = Tradeoffs(scenes)
    assert "solve" not in dict(without._buttons.options)
    without.close()


def test_values_of_other_widths_move_the_points_the_budget_and_the_bytes(view):
    view.point = "wanda@0.5"
    by_name = {trace.name: trace for trace in view._tradeoff.figure.data}
    assert list(by_name["wanda"].x) == [30, 50]
    view.value_bits = "8"
    by_name = {trace.name: trace for trace in view._tradeoff.figure.data}
    assert list(by_name["wanda"].x) == [0.5 * 0.75 * 30 + 7.5, 0.5 * 0.75 * 50 + 12.5]
    assert by_name["the model before pruning"].x[0] == 50 and view._tradeoff.figure.layout.shapes[0].x0 == 25
    assert [trace.x[1] for trace in view._bytes.figure.data] == [37.5 / 2e6, 12.5 / 1e6]
    assert "not rounded to 8 bits" in view._facts.value and "values of 8 bits" in view.alt_text(view.scene)
    assert ("wanda", "0.5", "one-shot", "bytes, stored, values of 8 bits (counted)", 31.25) in view.table(view.scene)[1]
    view.indices = False
    assert list(view._tradeoff.figure.data[0].x) == [0.375 * 30, 0.375 * 50]
    assert "without indices" in view._tradeoff.figure.layout.xaxis.title.text


def test_points_are_kept_and_compared_layer_by_layer(view):
    view._keep_pressed("keep")
    assert "Choose a point first" in view._keeping.text and view.kept == ""
    assert "Choose a point above" in view._comparison.alt
    for key in ("wanda@0.5", "magnitude@0.5"):
        view.point = key
        view._keeping._receive(None, {"type": "choose", "key": "keep"}, [])
    assert view.kept == "wanda@0.5,magnitude@0.5" and view._keeping.text == ""
    view.point = "wanda@0.7"
    assert names(view._comparison) == ["wanda, 0.5", "magnitude, 0.5", "wanda, 0.7"]
    rows = [row for row in view.table(view.scene)[1] if "layers.1.out" in row[3]]
    assert len(rows) == 3 * 3  # three points, three losses
    again = Tradeoffs.from_query(view.query, scenes, HOOKS)
    assert again._comparison.spec == view._comparison.spec
    again.close()
    view._keep_pressed("forget")
    assert names(view._comparison) == ["wanda, 0.7"]
    view.kept = ",".join(f"m@{i}" for i in range(MOST_KEPT))  # not there: a link from elsewhere
    assert view.error == ""
    view._keep_pressed("keep")
    assert f"Up to {MOST_KEPT} points" in view._keeping.text and names(view._comparison) == ["wanda, 0.7"]
    view.stage = "recovered"
    assert view.kept == ""


@pytest.mark.parametrize(
    "text", ["wanda", "wanda@", "@0.5", "a@b@c", ",".join(f"m@{i}" for i in range(MOST_ADDED + 1))]
)
def test_what_is_no_list_of_points_is_refused_in_a_sentence(text, view):
    with pytest.raises(ValueError, match=r"^added: "):
        added_points(text)
    view.added = text
    assert view.error.startswith("added: ")


def test_a_refusal_of_the_explorer_is_shown(view):
    with view.changes():
        view.model, view.method = "other", "nm"
    assert view.error == "That model is not here."


def test_a_story_sets_the_state(view):
    view.cost = "time_1"
    view._stories._receive(None, {"type": "choose", "key": "0"}, [])
    assert (view.within, view.point, view.cost) == (0.5, "wanda@0.5", "stored")
    assert view._stories.text == "Half of the bytes."


def test_the_link_brings_the_picture_back(view):
    with view.changes():
        view.point, view.layer, view.loss, view.within = "wanda@0.7", "layers.0.out", "density", 0.3
        view.added = "nm@2:4"
    again = Tradeoffs.from_query(view.query, scenes, HOOKS)
    assert again.state == view.state
    assert again._tradeoff.spec == view._tradeoff.spec and again._layers.spec == view._layers.spec
    again.close()


def test_the_table_and_the_words_hold_the_numbers(view):
    columns, rows = view.table(view.scene)
    text = io.StringIO()
    csv.writer(text).writerows([columns, *rows])
    assert "wanda,0.5,one-shot,cosine (measured),0.8" in text.getvalue()
    assert "wanda, 0.7: 0.6 at 30" in view.alt_text(view.scene)
    view.within = 0.3
    assert view.recipe() == "view = make(within=0.3)"


def test_turning_what_is_only_drawn_computes_nothing():
    asked = []

    def counting(state, progress):
        asked.append(dict(state))
        return scenes(state)

    shown = Tradeoffs(counting, HOOKS)
    turned = {
        "cost": "time_1", "within": 0.2, "value_bits": "4", "indices": False, "kept": "wanda@0.5", "point": "wanda@0.5",
        "loss": "density", "method": "nm", "stage": "recovered",
    }  # fmt: skip
    for key, value in turned.items():
        setattr(shown, key, value)
    assert len(asked) == 1
    assert "No record" in shown._tradeoff.alt
    shown.close()


def test_a_closed_view_is_freed():
    shown = Tradeoffs(scenes, HOOKS)
    gone = weakref.ref(shown)
    shown.close()
    del shown
    gc.collect()
    assert gone() is None
