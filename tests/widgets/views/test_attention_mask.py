"""AttentionMaskView on plain data: panels, comparison, linked zoom, shown knobs, one query, stories, facts, exports."""

from dataclasses import replace

import numpy as np
import pytest

from kernels.attention.cost import attention_cost
from kernels.attention.trace import AttentionTrace
from widgets.controls.knob import Knob
from widgets.figures.attention import AttentionScene, CoverageCurve, coverage_figure, key_score_figure, panel_keys
from widgets.figures.attention_query import QueryRow
from widgets.figures.attention_words import facts_html, kept_words
from widgets.figures.sentence import sentence_of
from widgets.views.attention_mask import AttentionMaskView, Story, ViewHooks, picture_knobs, shown_panel

METHODS = (("a", "A"), ("b", "B"))


class Small(AttentionMaskView):
    knobs = (
        Knob("method", "Method", "a", choices=METHODS),
        Knob("compare_with", "Compare with", "none", choices=(("none", "no second method"), *METHODS)),
        Knob("block", "Block", 4, 4, 8),
        Knob("share", "Share", 0.5, 0.0, 1.0),
        Knob("rule", "Rule", "x", choices=(("x", "X"), ("y", "Y"))),
        Knob("depth", "Depth", 1, 0, 9),
        *picture_knobs(),
    )


RELEVANT = {
    "method": {"a": ("block",), "b": ("share", "rule")},
    "compare_with": {"a": ("block",), "b": ("share", "rule")},
    "rule": {"y": ("depth",)},
}


def result(key, block, order=None):
    attention = np.tril(np.full((16, 16), 1 / 16, np.float32))
    allowed = np.tril(np.ones((16, 16), bool))
    allowed[:, 4:8] = key == "a"
    return AttentionTrace(
        method=key.upper(),
        t=16,
        causal=False,
        cost=attention_cost(t=16, d=2, causal=False, allowed=allowed, block_size=block, before=7),
        coverage=0.75,
        block_size=block,
        attention=attention,
        allowed=allowed,
        keep=np.eye(16 // block, dtype=bool),
        order=order,
        key_scores=np.arange(16.0),
        facts={"segments (counted)": "12"},
    )


def row(at, state):
    weights = {"true": np.eye(16)[at], "computed": np.full(16, 1 / 16)}
    return QueryRow(row=at, method="A", **weights, direct=np.arange(16) < 8, note=f"note {at}")


def source(state, progress):
    other = None if state["compare_with"] == "none" else result(state["compare_with"], state["block"])
    density, coverage = np.array([0.1, 0.9]), np.array([0.4, 1.0])
    curve = CoverageCurve(label="A", density=density, coverage=coverage, settings=("low", "high"))
    now = result(state["method"], state["block"])
    return AttentionScene(source="made up", t=16, result=now, other=other, curves=(curve,), query=row)


STORY = Story("Half", {"share": 0.25, "compare_with": "b"}, "Look at the half.")


@pytest.fixture
def view():
    wiring = ViewHooks(
        relevant=RELEVANT,
        budget=lambda state: "too much." if state["block"] == 8 else None,
        limits=lambda state: {"depth": 3},
        adjust=lambda state, keys: ({"depth": 2}, "Depth lowered.") if state["depth"] > 3 else ({}, ""),
        stories={"a": (STORY,)},
    )
    made = Small(source, wiring)
    yield made.wait()
    made.close()


def bits(canvas):
    rows, columns = canvas.size
    return canvas._source.counts((0, rows, 0, columns), (rows, columns)) > 0


def test_left_and_right_show_what_is_asked_for(view):
    np.testing.assert_array_equal(bits(view.right_canvas), result("a", 4).allowed)
    assert view.left_canvas._source.weights is view.scene.result.attention
    view.left = "keep"
    assert view.wait().left_canvas.size == [4, 4]
    view.left = "estimate"  # the method has none: the computed pairs take its place
    assert view.left_canvas.title == "pairs computed"


def test_blocks_are_full_partial_or_empty(view):
    view.left = "blocks"
    shares = view.wait().left_canvas._source.weights
    assert shares[1, 0] == 1 and shares[0, 0] == 10 / 16 and shares[0, 1] == 1


def test_sorted_pictures_reorder_columns():
    order = np.arange(16)[::-1].copy()
    view = Small(
        lambda state, progress: AttentionScene(source="made up", t=16, result=result("a", 4, order)), left="permuted"
    )
    np.testing.assert_array_equal(bits(view.wait().left_canvas), result("a", 4).allowed[:, ::-1])
    view.close()


def test_two_methods_stand_side_by_side_with_one_zoom(view):
    view.compare_with = "b"
    view.wait()
    assert view.left_canvas.title == "pairs computed: A" and view.right_canvas.title == "pairs computed: B"
    assert bits(view.right_canvas).sum() < bits(view.left_canvas).sum()
    view.left_canvas.window = [2, 10, 0, 8]
    assert view.right_canvas.window == [2, 10, 0, 8]
    view.right = "only"
    only = bits(view.wait().left_canvas) if view.left_canvas.window == [0, 16, 0, 16] else None
    view.left_canvas.window = [0, 16, 0, 16]
    only = bits(view.left_canvas)
    np.testing.assert_array_equal(np.flatnonzero(only.any(axis=0)), [4, 5, 6, 7])
    assert not bits(view.right_canvas).any()


def shown(view):
    return {knob.key: knob for knob in view._shown_knobs()}


def test_only_knobs_that_matter_are_shown_up_to_what_there_is(view):
    assert "block" in shown(view) and not {"share", "rule", "depth"} & set(shown(view))
    view.rule = "y"  # not a knob of method a: what hangs on it stays hidden
    assert "depth" not in shown(view)
    view.compare_with = "b"
    assert {"block", "share", "rule", "depth"} <= set(shown(view)) and "left" not in shown(view)
    assert shown(view)["depth"].high == 3 and shown(view)["row"].high == 15
    assert {key for key, _ in shown(view)["right"].choices} == {
        "attention",
        "keep",
        "blocks",
        "allowed",
        "lost",
        "only",
    }


def test_a_value_out_of_reach_is_turned_along_with_a_remark(view):
    view.depth = 7
    assert view.wait().depth == 2 and view.note == "Depth lowered."


def test_a_story_sets_the_knobs_and_says_what_to_look_at(view):
    assert view._stories.options == [["0", "Half"]]
    view.depth = 3
    view._story_chosen("0")
    assert (view.share, view.compare_with, view.depth) == (0.25, "b", 1) and view._stories.text == STORY.text
    view.method = "b"
    assert view._stories.options == [] and view._stories.text == ""


def test_picking_a_pair_asks_its_query(view):
    view._pair_picked(view.right_canvas, 5, 2)
    assert view.row == 5 and view.wait().right_canvas.marks["rows"] == [5]
    assert "note 5" in view._query_note.value and "Query 5: true attention is largest at key 5" in view._query_pane.alt
    view.right = "keep"
    view.wait()._pair_picked(view.right_canvas, 3, 0)
    assert view.row == 12 and view.right_canvas.marks["rows"] == [3]


def test_words_and_table_carry_the_numbers(view):
    assert view.alt_text(view.scene) == (
        "made up, 16 tokens; A keeps 61.7% of the pairs of dense attention, which hold 75.0% of the attention."
    )
    rows = view.table(view.scene)[1]
    numbers = {label.partition(",")[0].partition(":")[0].partition(" (")[0]: value for _, label, value in rows}
    assert (numbers["attention covered"], numbers["pairs kept"]) == (0.75, 158)
    assert numbers["blocks that hold a pair kept"] == 11
    assert numbers["multiply-adds before the attention"] == 7 and numbers["bytes moved by the attention"] == 960
    assert "reach" not in numbers and ("A", "coverage at high", 1.0) in rows
    for text in (
        "158 of 256 in dense attention (61.7%)",
        "11 of 16 in dense attention (68.8%); 4 x 4 tokens each",
        "632 of 1,024 in dense attention (61.7%)",
        "960 of 1,280 in dense attention",
    ):
        assert text in view._facts.value
    assert "12" in view._facts.value and "0.7500" in view._facts.value
    assert set(view.arrays(view.scene)) == {"attention", "allowed", "keep"}
    view.left = "lost"
    assert view.wait().arrays(view.scene)["lost"].sum() == 0


def test_reach_is_not_coverage():
    cost = attention_cost(t=16, d=2, causal=False, summaries=np.full(16, 3))
    reached = np.ones((16, 16), bool)
    fused = AttentionTrace(method="F", t=16, causal=False, cost=cost, coverage=0.0, reached=reached, attention=reached)
    scene = AttentionScene(source="made up", t=16, result=fused, other=result("a", 4))
    told = facts_html(scene)
    assert (
        "256 of 256 in dense attention (100.0%)" in told
        and "0 of 256 in dense attention (0.0%)" in told
        and ">48<" in told
    )
    assert kept_words(fused) == "F keeps none of the pairs of dense attention; chains of steps connect 100.0% of them"
    assert panel_keys(fused) == ("attention", "reached")


def test_state_survives_a_link_and_refusals_say_why(view):
    view.compare_with, view.share = "b", 0.25
    again = Small(source, query=view.query)
    assert again.state == view.state
    again.close()
    view.block = 8
    assert view.error == "too much."


def test_panel_names():
    assert shown_panel(result("a", 4), "keep") == "keep"
    empty = AttentionTrace(method="empty", t=16, causal=True, cost=attention_cost(t=16, d=2, causal=True))
    with pytest.raises(ValueError, match="nothing to show"):
        shown_panel(empty, "keep")


def test_an_older_link_opens_the_same_picture(view):
    class Renamed(Small):
        renamed = {"versus": "compare_with"}  # noqa: RUF012

    opened = Renamed(source, query="versus=b&share=0.25")
    assert (opened.compare_with, opened.share) == ("b", 0.25) and "compare_with=b" in opened.query
    opened.close()


def tops(view):
    return view.left_canvas.scale_top, view.right_canvas.scale_top


def test_two_pictures_of_weights_share_one_scale_and_a_mask_keeps_its_own(view):
    assert tops(view) == (0, 0)  # weights beside pairs: nothing to share
    view.right = "lost"
    share = view.wait().left_canvas.densest()
    assert tops(view) == (share, share) and view.right_canvas.densest() < share + 1e-9
    assert view.left_canvas.scale_note == "one scale for both pictures"
    view.colours = "own"
    assert tops(view) == (0, 0)
    view.colours, view.compare_with = "shared", "b"
    view.right = "attention"
    assert len(set(view.wait() and tops(view))) == 1 and tops(view)[0] > 0


def test_a_locked_scale_stays_when_settings_change_and_comes_back_with_the_link(view):
    view.right, view.colours = "lost", "locked"
    locked = view.wait().colour_tops
    assert locked == f"weight:{view.left_canvas.densest():.6g}"
    before = tops(view)
    view.left = "blocks"  # shares of blocks reach 1, attention does not
    assert view.wait().left_canvas.densest() == 1 and tops(view) == before
    again = Small(source, view._wiring, query=view.query).wait()
    assert tops(again) == before and again.state == view.state
    again.close()
    view.colour_tops = "weight"
    assert view.error.startswith("colour_tops: must be unit:number pairs")


def test_zooming_one_picture_moves_the_scale_of_both(view):
    view.right = "lost"
    view.wait()
    view.left_canvas.window = [0, 4, 8, 16]  # above the diagonal: nothing is attended
    assert view.right_canvas.window == [0, 4, 8, 16] and tops(view) == (0, 0)
    view.left_canvas.window = [0, 16, 0, 16]
    assert tops(view)[0] == tops(view)[1] > 0


def test_a_story_leaves_with_its_settings_but_not_with_another_query(view):
    for key, value in (("left", "keep"), ("block", 5), ("compare_with", "none")):
        view._story_chosen("0")
        view.row = 3
        assert view._stories.text == STORY.text
        setattr(view, key, value)
        assert (view._stories.selected, view._stories.text) == ("", "")


def test_curves_of_nothing_are_a_sentence():
    unknown = replace(result("a", 4), coverage=float("nan"))
    scene = AttentionScene(source="made up", t=16, result=unknown)
    assert "is not known" in sentence_of(coverage_figure(scene))
    assert sentence_of(key_score_figure(np.zeros(0), "counted")).startswith("There are no keys")
    assert sentence_of(key_score_figure(np.ones(3), "counted")) == ""
