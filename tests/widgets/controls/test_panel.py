"""Every knob gets a native control of its kind, with its help and its tag."""

import pytest

from widgets.controls.knob import Knob
from widgets.controls.panel import ControlPanel, control_spec
from widgets.controls.upload import Upload

KNOBS = {
    "slider": Knob("n", "Threads", 4, low=1, high=64, help="How many.", tag="published"),
    "menu": Knob("kind", "Kind", "a", choices=(("a", "first"), ("b", "second"))),
    "box": Knob("on", "On", True),
    "text": Knob("name", "Name", ""),
    "number": Knob("x", "Free number", 1.5),
}


@pytest.mark.parametrize("control", KNOBS)
def test_kind_of_control_follows_the_knob(control):
    spec = control_spec(KNOBS[control])
    assert spec["control"] == control and spec["label"] == KNOBS[control].label


def test_help_and_tag_travel():
    spec = control_spec(KNOBS["slider"], play=True)
    assert (spec["help"], spec["tag"], spec["play"], spec["step"], spec["whole"]) == (
        "How many.",
        "published",
        True,
        1,
        True,
    )


@pytest.mark.parametrize(("low", "high", "step"), ((0.1, 10.0, 0.1), (0.0, 1.0, 0.01), (0.05, 0.5, 0.001)))
def test_real_sliders_step_by_round_numbers(low, high, step):
    assert control_spec(Knob("x", "X", low, low=low, high=high))["step"] == pytest.approx(step)


def test_turns_reach_the_view():
    turned = []
    panel = ControlPanel(KNOBS.values(), {}, lambda key, value: turned.append((key, value)))
    panel._receive(panel, {"type": "turn", "key": "n", "value": 8}, [])
    assert turned == [("n", 8)] and len(panel.controls) == 5
    panel.draw([KNOBS["box"]])
    assert [c["key"] for c in panel.controls] == ["on"]
    panel.close()


def test_upload_joins_pieces_and_holds_the_limit():
    got = []
    upload = Upload("File", ".mtx", 10, lambda name, content: got.append((name, content)))
    for at, piece in ((0, b"abcd"), (4, b"efg")):
        upload._receive(upload, {"type": "piece", "name": "x.mtx", "at": at, "size": 7}, [piece])
    upload._receive(upload, {"type": "piece", "name": "big.mtx", "at": 0, "size": 11}, [b"x" * 11])
    upload._receive(upload, {"type": "piece", "name": "empty.mtx", "at": 0, "size": 0}, [b""])
    assert got == [("x.mtx", b"abcdefg"), ("empty.mtx", b"")]
    upload.close()
