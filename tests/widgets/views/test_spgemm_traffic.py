import csv
import gc
import io
import weakref

import numpy as np
import pytest
import scipy.sparse as sp

from widgets.views.spgemm_stories import SECTIONS, STORIES
from widgets.views.spgemm_traffic import SpGEMMTrafficView
from workbench.machines import piuma
from workbench.papers import _smash_traffic, get
from workbench.papers.smash import Operands, machine_config

STEP_THREE = "A[0, 2] = 2 times B[2, 1] = 9 adds 18 to C[0, 1]: merge. 2 alive."


@pytest.fixture
def make():
    views = []

    def new(**state):
        views.append(get("smash").view(**state))
        return views[-1]

    yield new
    for view in views:
        view.close()


@pytest.fixture
def counting():
    """A view whose scenes are counted: (view, calls)."""
    calls = []
    source = _smash_traffic.scene_source(get("smash").sample, machine_config)

    def counted(state, progress):
        calls.append(dict(state))
        return source(state, progress)

    view = SpGEMMTrafficView(counted, operands="worked")
    yield view, calls
    view.close()


def test_the_worked_example_is_told_step_by_step(make):
    view = make(operands="worked", step=3)
    assert view.error == ""
    assert view._stepper.sentence == STEP_THREE
    assert (view._stepper.position, view._stepper.steps) == (3, 7)
    assert STEP_THREE in view.alt_text(view.scene)
    view.dataflow = "outer"
    assert "is stored: 35 for C[2, 0]" in view._stepper.sentence
    view.step = 7
    assert view._stepper.sentence.endswith("7 alive. Merging them leaves 6.")
    view.step = 0
    assert "7 partial products are to come" in view._stepper.sentence


def test_cells_show_what_the_step_uses(make):
    view = make(operands="worked", step=3)
    cells = {name: np.frombuffer(w.picture["cells"], np.uint8) for name, w in view._cells.items()}
    assert cells["A"].reshape(3, 3).tolist() == [[3, 1, 4], [0, 0, 2], [2, 2, 0]]
    assert cells["B"].reshape(3, 2).tolist() == [[0, 2], [2, 0], [3, 4]]
    assert cells["C"].reshape(3, 2).tolist() == [[3, 4], [2, 2], [2, 2]]
    assert view._cells["C"].picture["texts"] == [[0, 0, "16"], [0, 1, "24"]]
    assert view._cells["A"].picture["frames"] == [[0, 2]]


def test_last_step_holds_the_product(make):
    for dataflow in ("inner", "outer", "row", "column"):
        view = make(operands="worked", dataflow=dataflow, step=7)
        texts = {(r, c): float(t) for r, c, t in view._cells["C"].picture["texts"]}
        assert texts == {(0, 0): 16, (0, 1): 24, (1, 0): 24, (1, 1): 27, (2, 0): 35, (2, 1): 24}


def test_scrubbing_and_tabs_never_compute_again(counting):
    view, calls = counting
    assert len(calls) == 1
    for step in (1, 5, 7):
        view._go(step)
    for section, _ in SECTIONS:
        view._open(section)
    view.dataflow, view.log_axes, view.theme = "inner", True, "dark"
    assert len(calls) == 1
    view.load = 0.2
    assert len(calls) == 2


def test_a_setting_seen_before_is_not_simulated_again(make, monkeypatch):
    view = make(operands="karate")
    runs = []
    simulate = piuma.simulate_spgemm
    monkeypatch.setattr(piuma, "simulate_spgemm", lambda *a, **k: runs.append(1) or simulate(*a, **k))
    view.bw = 4.2
    assert len(runs) == 3
    view.bw = 2.1
    view.version = 1
    view.cache = "ideal"
    view.bw = 4.2
    assert len(runs) == 3


def test_machine_knobs_start_at_the_machine_file(make):
    view = make()
    config = piuma.PiumaConfig()
    for key in ("log2_slots", "load", "threads_per_mtc", "bw", "token_pp"):
        assert view.knob(key).default == getattr(config, key)
        assert view.knob(key).tag in ("published", "from memory", "calibrated")


@pytest.mark.parametrize(
    "state",
    [
        {"operands": "karate", "section": "machine", "version": 1, "load": 0.205, "hash": "low", "blocks": 2},
        {"scale": 6, "edge_factor": 5, "a": 0.5, "permute": False, "seed": 3, "dataflow": "column", "step": 17},
        {"operands": "worked", "section": "bytes", "cache": "ideal", "log_axes": True, "token_pp": 8, "bw": 4.2},
    ],
)
def test_a_link_brings_the_same_picture_back(make, state):
    view = make(**state)
    assert len(view.query) < 2000
    again = make()
    again.load_query(view.query)
    assert again.state == view.state
    assert again.alt_text(again.scene) == view.alt_text(view.scene)
    columns, rows = view.table(view.scene)
    again_columns, again_rows = again.table(again.scene)
    assert (list(columns), list(rows)) == (list(again_columns), list(again_rows))


def test_default_state_needs_no_query(make):
    assert make().query == ""


def test_a_step_beyond_the_end_shows_the_end(make):
    view = make(operands="worked", step=5000)
    assert (view._stepper.position, view._stepper.steps) == (7, 7)


@pytest.mark.parametrize(
    "state,sentence",
    [
        ({"a": 0.6, "b": 0.3, "c": 0.2}, "R-MAT a + b + c is 1.1, the limit is 1"),
        ({"version": 1, "load": 0.5}, "the limit of the live view is a load below 0.5"),
        ({"hash": "high", "load": 0.5}, "the limit of the live view is a load below 0.5"),
    ],
)
def test_what_is_too_much_is_refused_before_any_work(counting, state, sentence):
    view, calls = counting
    with view.changes():
        view.operands = "rmat"
        for key, value in state.items():
            setattr(view, key, value)
    assert sentence in view.error
    assert len(calls) == 1


def test_too_many_products_are_refused_with_the_limit(make):
    view = make(scale=12, edge_factor=32, a=0.57, b=0.19, c=0.19)
    assert view.scene is None
    assert f"the limit of the live view is {_smash_traffic.MAX_PRODUCTS:,}" in view.error


def test_a_version_that_does_not_fit_is_named_and_the_others_run(make):
    view = make(operands="karate", section="machine", log2_slots=18, version=2)
    assert [run.label for run in view.scene.machine.runs] == ["V1", "V2"]
    assert "V3 needs" in view._machine_note.value
    view.version = 3
    assert view.scene.machine is None
    assert "MiB of scratchpad, a block has 4" in view._machine_note.value
    assert view.error == ""


@pytest.mark.parametrize(
    "section,kind", [("step", "counted"), ("bytes", "counted"), ("machine", "modelled"), ("constants", "modelled")]
)
def test_every_section_says_where_its_numbers_come_from(make, section, kind):
    view = make(operands="karate", section=section)
    assert view.kind == kind == view._toolbar.kind
    for name, picture in view.pictures().items():
        if hasattr(picture, "figure"):
            assert "(counted" in picture.figure.layout.title.text or "(modelled)" in picture.figure.layout.title.text, (
                name
            )
            assert picture.alt, name


@pytest.mark.parametrize("section", [key for key, _ in SECTIONS])
def test_exports_open_and_hold_the_table(make, section):
    view = make(operands="karate", section=section)
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
    _, _, recipe = view.export("Python (5 lines)")
    assert len(recipe.decode().strip().splitlines()) == 5


def test_the_recipe_remakes_the_view():
    view = get("smash").view(operands="worked", step=3, dataflow="outer")
    scope = {}
    exec(view.recipe().rsplit("\n", 1)[0], scope)
    assert scope["view"].state == view.state
    scope["view"].close()
    view.close()


def test_images_are_exported_as_png_and_svg(make):
    view = make(operands="worked", step=3)
    _, mime, png = view.export("PNG: A")
    assert png.startswith(b"\x89PNG\r\n\x1a\n") and mime == "image/png"
    _, _, svg = view.export("SVG: C")
    assert svg.startswith(b"<svg") and b"24" in svg


def test_machine_table_holds_all_versions(make):
    view = make(operands="karate", section="machine")
    columns, rows = view.table(view.scene)
    assert [row[0] for row in rows] == ["V1", "V2", "V3"]
    direct = piuma.simulate_spgemm(*(get("smash").sample(operands="karate").__dict__[x] for x in "ab"), 2)
    assert rows[1][columns.index("time (ms)")] == direct.ms


def test_bytes_are_those_of_the_kernel(make):
    from kernels.matmul.traffic import dataflow_traffic

    view = make(operands="karate", section="bytes", cache="ideal")
    pair = get("smash").sample(operands="karate")
    totals = dict(zip(view.scene.traffic.dataflows, view.scene.traffic.bytes.sum(axis=1), strict=True))
    for shown, flow in (("inner", "inner"), ("inner, C known", "inner-masked"), ("outer", "outer"), ("row", "row")):
        assert totals[shown] == dataflow_traffic(pair.a, pair.b, flow, cache="ideal").total_bytes


def test_large_operands_go_through_the_raster(make):
    view = make(scale=8, edge_factor=4, step=900)
    assert view._cells["A"].layout.display == "none"
    assert view._rasters["A"].layout.display is None
    assert len(view._rasters["C"].marks["cells"]) == 1
    formed = view._rasters["C"].query(0, 256, 0, 256)["count"]
    steps = view.scene.steps["row"]
    assert formed == 900 - steps.merged[:900].sum()


def test_beyond_the_limit_steps_are_runs(make):
    view = make(scale=11, edge_factor=8, step=1000)
    steps = view.scene.steps["row"]
    assert not steps.exact
    assert view._stepper.unit == "run of products"
    assert f"to {steps.edges[1000]:,}, from rows" in view._stepper.sentence
    assert view._rasters["C"].query(0, 2048, 0, 2048)["count"] == steps.edges[1000] - steps.merged[:1000].sum()


def test_only_knobs_that_matter_are_shown(make):
    view = make(operands="worked")
    assert [spec["key"] for spec in view._panel.controls] == ["operands"]
    view.operands = "poisson2d"
    assert [spec["key"] for spec in view._panel.controls] == ["operands", "scale"]
    view.operands = "rmat"
    assert len(view._panel.controls) == 8


def test_empty_operands_are_shown_as_such():
    def nothing(**knobs):
        return Operands("nothing", sp.csr_array((4, 3)), sp.csr_array((3, 5)))

    view = SpGEMMTrafficView(_smash_traffic.scene_source(nothing, machine_config), seed=999)
    for section, _ in SECTIONS:
        view.section = section
        assert view.error == "", section
    view.section = "step"
    assert "no partial product" in view._stepper.sentence
    view.close()


def test_a_turn_that_a_knob_refuses_is_named_and_nothing_is_lost(make):
    view = make(operands="worked")
    view._turn_part("load", 7)
    assert "load: must be from" in view.error
    assert view.load == 0.16
    assert view.scene is not None


# What the stories promise


def tell(view, key):
    view._tell(key)
    assert view.error == ""
    assert view._stories.selected == key
    assert view._stories.text == STORIES[key][2]
    return view.scene


def test_story_by_hand(make):
    view = make()
    tell(view, "hand")
    assert view._stepper.sentence == STEP_THREE


def test_story_same_work_other_traffic(make):
    scene = tell(make(), "equal")
    assert {steps.products for steps in scene.steps.values()} == {scene.products}
    totals = dict(zip(scene.traffic.dataflows, scene.traffic.bytes.sum(axis=1), strict=True))
    assert totals["row"] < totals["outer"] < totals["inner"]
    assert len(scene.windows) > 3


@pytest.mark.slow
def test_story_load_multiplies_probes(make):
    view = make()
    means = {}
    for key in ("load-low", "load-high"):
        probes = tell(view, key).machine.probes
        means[key] = dict(zip(probes.labels, probes.mean, strict=True))
    assert means["load-high"]["high bits"] > 10 * means["load-low"]["high bits"]
    assert max(m["low bits"] for m in means.values()) < 0.3


@pytest.mark.slow
def test_story_no_hash_is_free_of_structure(make):
    view = make()
    probes = tell(view, "poisson").machine.probes
    mean = dict(zip(probes.labels, probes.mean, strict=True))
    assert mean["low bits"] > 100
    assert mean["high bits"] < 5
    view.hash = "multiplicative"
    assert view.scene.machine.probes.mean[0] < 0.5


# What every view promises


@pytest.mark.slow
def test_fifty_views_leave_nothing_behind():
    alive = []
    for _ in range(50):
        view = get("smash").view(operands="worked")
        alive.append(weakref.ref(view))
        view.close()
        del view
    gc.collect()
    assert sum(ref() is not None for ref in alive) == 0


@pytest.mark.slow
def test_a_large_view_stays_within_the_byte_budget(make):
    view = make(scale=12, edge_factor=8, section="machine", version=1)
    for section, _ in SECTIONS:
        view.section = section
        sent = sum(len(pane.spec) for pane in view._panes.values() if pane.figure is not None)
        sent += sum(len(image.picture.get("cells", b"")) for image in (*view._tables, *view._cells.values()))
        assert sent < 1_100_000, (section, sent)
