"""SpGEMMTrafficView on plain data: steps, cells, sections, stories, refusals, shown knobs, exports, recipe."""

import csv
import io

import numpy as np
import pytest
import scipy.sparse as sp

from kernels.matmul.dataflow import dataflow_steps, output_births
from kernels.matmul.dataflow_order import DATAFLOWS, dataflow_order
from widgets.controls.knob import Knob
from widgets.figures.spgemm_dataflows import STEPPED, line_windows
from widgets.figures.spgemm_scene import (
    STREAMS,
    Constant,
    Gantt,
    LiveCurve,
    Machine,
    MachineRun,
    Operand,
    ProbeHistogram,
    Roofline,
    StreamBytes,
    TableOccupancy,
    TrafficScene,
    Utilisation,
)
from widgets.views.frame.story import Story
from widgets.views.spgemm_traffic import SpGEMMTrafficView, TrafficHooks

STEP_THREE = (
    "A[0, 2] = 2 times B[2, 1] = 9 adds 18 to C[0, 1]: merge. On the chip: 2 elements (32 B). Written: 0 of 6 entries "
    "of C."
)
SECTIONS = ("step", "bytes", "machine", "constants")
BY_HAND = (
    sp.csr_array(np.array([[1.0, 0, 2], [0, 0, 3], [4, 5, 0]])),
    sp.csr_array(np.array([[0.0, 6], [7, 0], [8, 9]])),
)


def grid(n, shift):
    """An n x n matrix with three entries a row, some of which meet."""
    rows = np.repeat(np.arange(n), 3)
    columns = (rows + np.tile([0, 1, shift], n)) % n
    return sp.csr_array((np.arange(1.0, 1 + 3 * n) % 9 + 1, (rows, columns)), shape=(n, n))


PAIRS = {
    "hand": BY_HAND,
    "large": (grid(100, 2), grid(100, 5)),
    "empty": (sp.csr_array((4, 3)), sp.csr_array((3, 5))),
}


def operand(name, x):
    x = sp.csr_array(x)
    x.sort_indices()
    return Operand(name=name, shape=x.shape, indptr=x.indptr, indices=x.indices, values=x.data)


def run(label, ms):
    gantt = Gantt(
        thread=np.array([0, 1]),
        row=np.array([0, 2]),
        t0=np.array([0.0, 5.0]),
        t1=np.array([4.0, 9.0]),
        threads=2,
        cycles=10.0,
        events_total=2,
    )
    return MachineRun(
        label=label,
        totals={"time (ms)": ms, "windows": 1},
        gantt=gantt,
        utilisation=Utilisation(edges=np.array([0.0, 5, 10]), series={"threads busy": np.array([0.5, 1.0])}),
        live=LiveCurve(label=label, x=np.array([1.0, 9.0]), live=np.array([2, 6]), x_unit="cycles", kind="modelled"),
    )


def machine():
    return Machine(
        runs=(run("V1", 3.0), run("V2", 1.5)),
        shown=1,
        left_out=("V3 needs 5 MiB of scratchpad.",),
        probes=ProbeHistogram(labels=("low bits",), counts=np.array([[5, 2, 0]]), mean=np.array([2 / 7])),
        occupancy=(TableOccupancy(label="low bits", row=np.array([0, -1, 1, -1]), window=0, windows=1, rows=2),),
        roofline=Roofline(
            labels=("V1", "V2"),
            ops_per_byte=np.array([0.5, 1.0]),
            ops_per_cycle=np.array([0.4, 1.2]),
            peak_ops_per_cycle=4.0,
            peak_bytes_per_cycle=2.1,
        ),
        constants=(Constant(name="bw", value="2.1", unit="bytes/cycle", source="datasheet", tag="published"),),
    )


def scene(state, progress=None):
    a, b = PAIRS[state["operands"]]
    shape = (a.shape[0], b.shape[1])
    windows = {key: line_windows(flow, shape, np.zeros(1, np.int64)) for key, flow in STEPPED.items()}
    steps = {key: dataflow_steps(a, b, flow.order, windows=windows[key]) for key, flow in STEPPED.items()}
    factor = 1.0 if state["cache"] == "none" else 0.5
    return TrafficScene(
        title=f"pair {state['operands']}",
        a=operand("A", a),
        b=operand("B", b),
        c=operand("C", a @ b),
        products=steps["row"].products,
        traffic=StreamBytes(
            dataflows=("inner", "outer", "row", "column"),
            streams=STREAMS,
            bytes=factor * np.arange(1.0, 25).reshape(4, 6),
            note="made up",
        ),
        orders={flow: dataflow_order(a, b, flow) for flow in DATAFLOWS},
        steps=steps,
        births={flow: output_births(a, b, flow) for flow in DATAFLOWS},
        windows=windows,
        slots=64,
        machine=machine() if state["fits"] else None,
        machine_note="" if state["fits"] else "V2 needs 6 MiB of scratchpad, a block has 4.",
    )


HOOKS = TrafficHooks(
    operands=(
        Knob("operands", "Operands", "hand", choices=tuple((key, f"The pair {key}") for key in PAIRS)),
        Knob("scale", "Scale", 5, 4, 12),
        Knob("seed", "Seed", 1, 0, 9),
    ),
    relevant={"large": ("seed", "scale"), "empty": ("scale",)},
    machine=(Knob("fits", "Fits", True), Knob("load", "Load", 0.16, 0.01, 0.5)),
    machine_name="ACME",
    stories={"half": Story("Half way", {"operands": "hand", "step": 3}, "Step on.")},
    budget=lambda state: "Load 0.5 is too much." if state["load"] == 0.5 else None,
    recipe=lambda words: f"made({words})",
)


@pytest.fixture
def make():
    views = []

    def new(**state):
        views.append(SpGEMMTrafficView(scene, HOOKS, **state))
        return views[-1]

    yield new
    for view in views:
        view.close()


@pytest.fixture
def counting():
    """A view whose scenes are counted: (view, calls)."""
    calls = []

    def counted(state, progress):
        calls.append(dict(state))
        return scene(state)

    view = SpGEMMTrafficView(counted, HOOKS)
    yield view, calls
    view.close()


def test_the_product_by_hand_is_told_step_by_step(make):
    view = make(step=3)
    assert view.error == ""
    assert view._stepper.sentence == STEP_THREE
    assert (view._stepper.position, view._stepper.steps) == (3, 8)
    assert STEP_THREE in view.alt_text(view.scene)
    view.dataflow = "outer"
    assert "is stored: 35 for C[2, 0]" in view._stepper.sentence
    view.step = 7
    assert "On the chip: 7 elements (112 B). Written: 0 of 6 entries of C." in view._stepper.sentence
    view.step = 8
    assert view._stepper.sentence == (
        "The 7 products on the list are merged into 6 entries of C. C is complete with 6 entries, and nothing is left "
        "on the chip."
    )
    view.step = 0
    assert view._stepper.sentence == "Nothing is formed yet; 7 partial products to come."


def test_cells_show_what_the_step_uses(make):
    view = make(step=3)
    cells = {name: np.frombuffer(w.picture["cells"], np.uint8) for name, w in view._cells.items()}
    assert cells["A"].reshape(3, 3).tolist() == [[3, 1, 4], [0, 0, 2], [2, 2, 0]]
    assert cells["B"].reshape(3, 2).tolist() == [[0, 2], [2, 0], [3, 4]]
    assert cells["C"].reshape(3, 2).tolist() == [[5, 4], [2, 2], [2, 2]]
    assert view._cells["C"].picture["texts"] == [[0, 0, "16"], [0, 1, "24"]]
    assert view._cells["A"].picture["frames"] == [[0, 2]]


def test_last_step_holds_the_product(make):
    for dataflow in STEPPED:
        view = make(dataflow=dataflow, step=8)
        texts = {(r, c): float(t) for r, c, t in view._cells["C"].picture["texts"]}
        assert texts == {(0, 0): 16, (0, 1): 24, (1, 0): 24, (1, 1): 27, (2, 0): 35, (2, 1): 24}


def test_scrubbing_and_tabs_never_compute_again(counting):
    view, calls = counting
    assert len(calls) == 1
    for step in (1, 5, 7):
        view._turn_part("step", step)
    for section in SECTIONS:
        view._turn_part("section", section)
    view.dataflow, view.log_axes, view.theme = "inner", True, "dark"
    assert len(calls) == 1
    view.load = 0.2
    assert len(calls) == 2


def test_a_refused_state_is_never_computed(counting):
    view, calls = counting
    view.load = 0.5
    assert view.error == "Load 0.5 is too much." and len(calls) == 1
    assert view.scene is not None


def test_a_link_brings_the_same_picture_back(make):
    view = make(operands="large", seed=3, dataflow="column", step=17, load=0.25)
    assert view.query == "operands=large&seed=3&dataflow=column&step=17&load=0.25"
    again = make()
    assert again.query == ""
    again.load_query(view.query)
    assert again.state == view.state
    assert again.alt_text(again.scene) == view.alt_text(view.scene)


def test_a_step_beyond_the_end_shows_the_end(make):
    view = make(step=5000)
    assert (view._stepper.position, view._stepper.steps) == (8, 8)


def test_a_story_sets_its_knobs_and_the_others_to_their_defaults(make):
    view = make(operands="large", seed=4, section="bytes", log_axes=True)
    assert view._stories.options == [["half", "Half way"]] and view._stories.selected == ""
    view._tell("half")
    assert view.query == "step=3" and view._stepper.sentence == STEP_THREE
    assert (view._stories.selected, view._stories.text) == ("half", "Step on.")


def test_only_operand_knobs_that_matter_are_shown_in_their_order(make):
    view = make()
    assert [spec["key"] for spec in view._panel.controls] == ["operands"]
    view.operands = "large"
    assert [spec["key"] for spec in view._panel.controls] == ["operands", "seed", "scale"]
    view.operands = "empty"
    assert [spec["key"] for spec in view._panel.controls] == ["operands", "scale"]
    assert [spec["key"] for spec in view._panels["machine"].controls] == ["fits", "load"]


def test_the_machine_is_called_by_its_name(make):
    view = make(section="machine")
    assert dict(view._tabs.options)["machine"] == "ACME model"
    assert "The product on ACME by kernel version (modelled)" in view._totals.value
    assert view.alt_text(view.scene).endswith("Modelled on ACME: V1 3 ms, V2 1.5 ms.")
    assert "V3 needs 5 MiB" in view._machine_note.value


def test_why_there_is_no_machine_run_is_said_and_the_rest_is_drawn(make):
    view = make(section="machine", fits=False)
    assert "a block has 4." in view._machine_note.value and view._machine_parts.layout.display == "none"
    assert view.error == "" and view.alt_text(view.scene).endswith("a block has 4.")
    view.section = "constants"
    assert view.error == ""
    view.section = "step"
    assert view._stepper.steps == 8


@pytest.mark.parametrize(
    "section,kind", [("step", "counted"), ("bytes", "counted"), ("machine", "modelled"), ("constants", "modelled")]
)
def test_every_section_says_where_its_numbers_come_from(make, section, kind):
    view = make(section=section)
    assert view.kind == kind == view._toolbar.kind
    for name, picture in view.pictures().items():
        if hasattr(picture, "figure"):
            title = picture.figure.layout.title.text
            assert "(counted" in title or "(modelled)" in title, name
            assert picture.alt, name


@pytest.mark.parametrize("section", SECTIONS)
def test_exports_open_and_hold_the_table(make, section):
    view = make(section=section)
    columns, rows = view.table(view.scene)
    _, _, content = view.export("Data (CSV)")
    read = list(csv.reader(io.StringIO(content.decode())))
    assert read[0] == list(columns)
    assert len(read) == 1 + len(rows)
    _, _, content = view.export("Data (NPZ)")
    arrays = np.load(io.BytesIO(content))
    assert all(len(arrays[name]) == len(rows) for name in columns)
    name, _, page = view.export("Page (HTML, offline)")
    assert name.endswith(".html") and b"http-equiv" not in page and b'src="http' not in page


def test_machine_table_and_events_hold_all_runs(make):
    view = make(section="machine")
    columns, rows = view.table(view.scene)
    assert columns == ["kernel", "time (ms)", "windows"]
    assert list(rows) == [("V1", 3.0, 1.0), ("V2", 1.5, 1.0)]
    _, _, content = view.export("Events and probes (NPZ)")
    stored = np.load(io.BytesIO(content))
    assert stored["t1"].tolist() == [4.0, 9.0] and stored["probe_counts"].tolist() == [[5, 2, 0]]


def test_the_recipe_is_given_what_differs_from_the_defaults(make):
    view = make(step=3, dataflow="outer", load=0.2)
    assert view.recipe() == "made(dataflow='outer', step=3, load=0.2)"
    assert make().recipe() == "made()"


def test_images_are_exported_as_png_and_svg(make):
    view = make(step=3)
    _, mime, png = view.export("PNG: A")
    assert png.startswith(b"\x89PNG\r\n\x1a\n") and mime == "image/png"
    _, _, svg = view.export("SVG: C")
    assert svg.startswith(b"<svg") and b"24" in svg


def test_large_operands_go_through_the_raster(make):
    view = make(operands="large", step=400)
    assert view._cells["A"].layout.display == "none"
    assert view._rasters["A"].layout.display is None
    assert len(view._rasters["C"].marks["cells"]) == 1
    formed = view._rasters["C"].query(0, 100, 0, 100)["count"]
    assert formed == 400 - view.scene.steps["row"].merged[:400].sum() < 400


def test_empty_operands_are_shown_as_such(make):
    view = make(operands="empty")
    for section in SECTIONS:
        view.section = section
        assert view.error == "", section
    view.section = "step"
    assert "no partial product" in view._stepper.sentence


def test_a_turn_that_a_knob_refuses_is_named_and_nothing_is_lost(make):
    view = make()
    view._turn_part("load", 7)
    assert "load: must be from" in view.error
    assert view.load == 0.16
    assert view.scene is not None
