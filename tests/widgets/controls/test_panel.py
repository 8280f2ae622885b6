"""Every knob gets a native control of its kind, with its help and its tag."""

import json

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


def test_a_field_of_code_says_all_that_it_takes():
    spec = control_spec(
        Knob("f", "F", "x", code=True, lines=2, help="A sum.", more="x\ny", read=lambda text, state: "")
    )
    assert spec["control"] == "text" and (spec["code"], spec["lines"], spec["more"]) == (True, 2, "x\ny")
    assert json.loads(json.dumps(spec)) == spec and not control_spec(KNOBS["text"])["code"]


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


@pytest.fixture
def upload():
    field = Upload("File", (".mtx", ".gz"), 10, lambda name, content: field.got.append((name, content)))
    field.got = []
    field.send_piece = lambda at, size, piece, **more: field._receive(
        field, {"type": "piece", "name": "x.mtx", "at": at, "size": size} | more, [piece]
    )
    yield field
    field.close()


def test_upload_joins_pieces_and_holds_the_limit(upload):
    assert upload.label == "File, up to 1e-05 MB" and upload.accept == ".mtx,.gz"
    for at, piece in ((0, b"abcd"), (4, memoryview(b"efg"))):
        upload.send_piece(at, 7, piece)
    upload.send_piece(0, 11, b"x" * 11)
    assert upload.refused.startswith("The file was not taken")
    upload.send_piece(0, 0, b"", name="empty.mtx")
    assert upload.got == [("x.mtx", b"abcdefg"), ("empty.mtx", b"")] and upload.refused == ""


def test_a_page_that_raises_the_limit_changes_nothing(upload):
    upload.set_state({"limit_bytes": 10**12})  # what a page can send
    assert upload.limit_bytes == 10**12
    upload.send_piece(0, 11, b"x" * 11)
    upload.send_piece(0, 20, b"x" * 8)
    upload.send_piece(8, 20, b"x" * 8)
    assert upload.got == [] and upload.refused and not upload._so_far


@pytest.mark.parametrize(
    ("at", "size", "piece"),
    [(0, 5, b"x" * 6), (1, 5, b"x"), (0, 5, b""), (0, -1, b""), (0, None, b"x"), ("0", 5, b"x"), (0, 5.0, b"x"),
     (True, 5, b"x"), (0, 11, b"x")],
)  # fmt: skip
def test_pieces_that_do_not_fit_are_dropped_as_they_arrive(upload, at, size, piece):
    upload.send_piece(0, 8, b"abcd")
    upload.send_piece(at, size, piece)
    assert upload.got == [] and not upload._so_far and upload.refused
    upload.send_piece(4, 8, b"efgh")
    assert upload.got == [] and not upload._so_far
    upload._receive(upload, {"type": "piece"}, [])
    upload.send_piece(0, 2, b"ab")
    assert upload.got == [("x.mtx", b"ab")]
