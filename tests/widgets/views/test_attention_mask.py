"""AttentionMaskView on plain data: panels, comparison, linked zoom, shown knobs, facts, exports."""

import numpy as np
import pytest

from widgets.controls.knob import Knob
from widgets.figures.attention import AttentionScene, CoverageCurve, MaskResult
from widgets.views.attention_mask import PICTURES, AttentionMaskView, shown_panel

METHODS = (("a", "A"), ("b", "B"))


class Small(AttentionMaskView):
    knobs = (
        Knob("method", "Method", "a", choices=METHODS),
        Knob("versus", "Beside it", "none", choices=(("none", "nothing"), *METHODS)),
        Knob("block", "Block", 4, 4, 8),
        Knob("share", "Share", 0.5, 0.0, 1.0),
        *PICTURES,
    )


def result(key, block):
    attention = np.tril(np.full((16, 16), 1 / 16, np.float32))
    allowed = np.tril(np.ones((16, 16), bool))
    allowed[:, 4:8] = key == "a"
    panels = {"attention": attention, "allowed": allowed, "keep": np.eye(16 // block, dtype=bool)}
    return MaskResult(key.upper(), panels, 0.75, 0.5, {"keep": block}, {"flops (counted)": "12"}, np.arange(16.0))


def source(state, progress):
    other = None if state["versus"] == "none" else result(state["versus"], state["block"])
    curve = CoverageCurve("A", np.array([0.1, 0.9]), np.array([0.4, 1.0]), ("low", "high"))
    return AttentionScene("made up", 16, result(state["method"], state["block"]), other, curves=(curve,))


@pytest.fixture
def view():
    made = Small(
        source, relevant={"a": ("block",), "b": ("share",)}, budget=lambda s: "too much." if s["block"] == 8 else None
    )
    yield made.wait()
    made.close()


def test_left_and_right_show_what_is_asked_for(view):
    np.testing.assert_array_equal(view.right_canvas._source.matrix.toarray() > 0, result("a", 4).panels["allowed"])
    assert view.left_canvas._source.weights is view.scene.result.panels["attention"]
    view.left = "keep"
    assert view.wait().left_canvas.size == [4, 4]
    view.left = "estimate"  # the method has none: the computed pairs take its place
    assert view.left_canvas.title == "pairs computed"


def test_two_methods_stand_side_by_side_with_one_zoom(view):
    view.versus = "b"
    view.wait()
    assert view.left_canvas.title == "pairs computed: A" and view.right_canvas.title == "pairs computed: B"
    assert view.right_canvas._source.matrix.nnz < view.left_canvas._source.matrix.nnz
    view.left_canvas.window = [2, 10, 0, 8]
    assert view.right_canvas.window == [2, 10, 0, 8]


def test_only_knobs_that_the_methods_read_are_shown(view):
    shown = lambda: {knob.key for knob in view._shown_knobs()}  # noqa: E731
    assert "block" in shown() and "share" not in shown()
    view.versus = "b"
    assert {"block", "share"} <= shown()


def test_words_and_table_carry_the_numbers(view):
    assert (
        view.alt_text(view.scene) == "made up, 16 tokens; A computes 50.0% of the pairs, holds 75.0% of the attention."
    )
    rows = view.table(view.scene)[1]
    assert ("A", "coverage", 0.75) in rows and ("A", "coverage at high", 1.0) in rows
    assert "12" in view._facts.value and "0.7500" in view._facts.value
    assert set(view.arrays(view.scene)) == {"attention", "allowed", "keep"}


def test_state_survives_a_link_and_refusals_say_why(view):
    view.versus, view.share = "b", 0.25
    again = Small(source, relevant={}, query=view.query)
    assert again.state == view.state
    again.close()
    view.block = 8
    assert view.error == "too much."


def test_panel_names():
    name, array, cell = shown_panel(result("a", 4), "keep")
    assert (name, array.shape, cell) == ("kept blocks", (4, 4), 4)
    with pytest.raises(ValueError, match="nothing to show"):
        shown_panel(MaskResult("empty", {}, 0.0, 0.0), "keep")
