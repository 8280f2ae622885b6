"""The frame of sections: which is open, stories, files that are refused, panels that follow, and the recipe."""

from types import SimpleNamespace

import ipywidgets
import pytest

from widgets.controls.knob import Knob
from widgets.controls.panel import ControlPanel
from widgets.controls.upload import UploadField
from widgets.views.frame.sections import SectionedView, flexible, pane, row
from widgets.views.frame.story import Story

SIZE = Knob("size", "Size", 3, 1, 9)


def receive(name, content):
    if not content:
        raise ValueError(f"{name} is empty; choose another file")


HOOKS = SimpleNamespace(
    stories={"large": Story("Large", {"size": 9}, "Look at nine.")},
    uploads=[UploadField(label="A file", endings=(".npy",), limit_bytes=100, received=receive)],
    budget=lambda state: "Up to 8 are shown." if state["size"] > 8 else None,
    recipe=lambda words: f"view = make({words})",
)


class Parts(SectionedView):
    knobs = (
        Knob("source", "Source", "drawn", choices=(("drawn", "drawn"), ("file", "from a file"))),
        SIZE,
        Knob("more", "More", 0, 0, 9),
        Knob("section", "Part", "one", choices=(("one", "One"), ("two", "Two"))),
    )
    hidden = frozenset({"section", "more"})
    paint_only = frozenset({"section"})

    def __init__(self, **state):
        self._hooks = HOOKS
        super().__init__(**state)

    def build(self):
        panels = {"two": ControlPanel([self.knob("more")], self.state, self._turn_part)}
        return self.framed({"one": (ipywidgets.HTML(),), "two": (panels["two"],)}, panels)

    def takes_files(self):
        return self.source == "file"

    def _shown_knobs(self):
        return [self.knob("source"), *([SIZE] if self.source == "drawn" else [])]

    def compute(self, state, progress):
        return dict(state)

    def paint(self, scene):
        pass

    def table(self, scene):
        return ("size",), [(scene["size"],)]

    def alt_text(self, scene):
        return f"Size {scene['size']}."


@pytest.fixture
def view():
    shown = Parts()
    yield shown
    shown.close()


def open_boxes(view):
    return [name for name, box in view._boxes.items() if box.layout.display != "none"]


def test_one_section_is_open_and_its_tab_is_chosen(view):
    assert (open_boxes(view), view._tabs.selected) == (["one"], "one")
    view._tabs._receive(None, {"type": "choose", "key": "two"}, [])
    assert (open_boxes(view), view._tabs.selected, view.section) == (["two"], "two", "two")


def test_panels_and_the_controls_above_follow_the_state(view):
    view._panels["two"]._receive(None, {"type": "turn", "key": "more", "value": 4}, [])
    assert view.more == 4 and view._panels["two"].values["more"] == 4
    assert [control["key"] for control in view._panel.controls] == ["source", "size"]
    view.source = "file"
    assert [control["key"] for control in view._panel.controls] == ["source"]


def test_a_value_that_a_knob_refuses_is_told_and_shown_as_it_was(view):
    view._panels["two"]._receive(None, {"type": "turn", "key": "more", "value": 99}, [])
    assert "more: must be from 0 to 9" in view.error and view._panels["two"].values["more"] == 0


def test_files_are_asked_for_where_they_are_taken_and_a_bad_one_is_told(view):
    assert view._uploads.layout.display == "none"
    view.source = "file"
    assert view._uploads.layout.display is None
    view._uploaded(receive, "w.npy", b"")
    assert view.error == "w.npy is empty; choose another file."
    view._uploaded(receive, "w.npy", b"1")
    assert view.error == ""


def test_a_story_sets_all_knobs_and_is_forgotten_when_one_is_turned(view):
    view.more = 5
    view._stories._receive(None, {"type": "choose", "key": "large"}, [])
    assert (view.size, view.more, view._stories.text) == (9, 0, "Look at nine.")
    assert view.error == "Up to 8 are shown."  # the budget is that of the hooks
    view.size = 8
    assert (view._stories.selected, view._stories.text, view.error) == ("", "", "")


def test_the_recipe_names_what_differs(view):
    with view.changes():
        view.size, view.section = 4, "two"
    assert view.recipe() == "view = make(size=4, section='two')"


def test_rows_wrap_and_parts_take_what_is_left():
    plot = pane("bytes", 300)
    assert plot.title == "bytes" and plot.layout.flex == "1 1 300px" and flexible(300)["min_width"] == "0"
    assert row(plot).layout.flex_flow == "row wrap"
    plot.close()
