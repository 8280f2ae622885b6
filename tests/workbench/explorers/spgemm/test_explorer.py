"""The SpGEMM explorer: real operands and machine runs in the view, links, refusals, and what its stories promise."""

import gc
import weakref

import numpy as np
import pytest
import scipy.sparse as sp

from kernels.matmul.on_chip import kept_on_chip, probe_slots
from kernels.matmul.traffic import dataflow_traffic
from workbench.explorers.spgemm.explorer import explorer
from workbench.explorers.spgemm.scene import MAX_PRODUCTS, traffic_scene
from workbench.explorers.spgemm.source import Pair, load_pair, sources
from workbench.explorers.spgemm.stories import STORIES
from workbench.machines import piuma
from workbench.machines.piuma_tables import table_snapshot
from workbench.papers import get

STEP_THREE = (
    "A[0, 2] = 2 times B[2, 1] = 9 adds 18 to C[0, 1]: merge. On the chip: 2 elements (32 B). Written: 0 of 6 entries "
    "of C."
)


@pytest.fixture
def make():
    views = []

    def new(**state):
        views.append(explorer(**state))
        return views[-1]

    yield new
    for view in views:
        view.close()


def test_the_paper_opens_the_explorer():
    view = get("smash").view(operands="worked", step=3)
    assert view.error == "" and view._stepper.sentence == STEP_THREE
    view.close()


def test_it_opens_on_a_small_pair_and_needs_no_query(make):
    view = make()
    assert view.query == "" and view.error == ""
    assert view.scene.title == "R-MAT pair (power law), 32 rows, relabelled at random, values drawn from 1 to 9"
    assert (view.scene.products, view.scene.c.nnz) == (208, 178)


def test_every_source_is_offered_with_the_knobs_that_it_reads(make):
    view = make()
    choices = [key for key, _ in view.knob("operands").choices]
    assert choices == [*sources(), "file"]
    assert {"rmat", "worked", "w0", "poisson2d", "banded", "power_law", "karate", "les_miserables"} <= set(choices)
    shown = [spec["key"] for spec in view._panel.controls]
    assert shown == ["operands", "scale", "edge_factor", "a", "b", "c", "permute", "seed"]
    view.operands = "worked"
    assert [spec["key"] for spec in view._panel.controls] == ["operands"]
    view.operands = "poisson2d"
    assert [spec["key"] for spec in view._panel.controls] == ["operands", "scale"]


def test_a_setting_seen_before_is_not_simulated_again(make, monkeypatch):
    view = make(operands="karate")
    runs = []
    simulate = piuma.simulate_spgemm
    monkeypatch.setattr(piuma, "simulate_spgemm", lambda *a, **k: runs.append(1) or simulate(*a, **k))
    before = view.bw
    view.bw = 4.2
    assert len(runs) == 3
    view.bw = before
    view.version = 1
    view.cache = "ideal"
    view.bw = 4.2
    assert len(runs) == 3


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
    assert again.state == view.state == make(query=view.query).state
    assert again.alt_text(again.scene) == view.alt_text(view.scene)
    columns, rows = view.table(view.scene)
    again_columns, again_rows = again.table(again.scene)
    assert (list(columns), list(rows)) == (list(again_columns), list(again_rows))


@pytest.mark.parametrize(
    "state,sentence",
    [
        ({"a": 0.6, "b": 0.3, "c": 0.2}, "R-MAT a + b + c is 1.1, the limit is 1"),
        ({"version": 1, "load": 0.5}, "the limit of the live view is a load below 0.5"),
        ({"hash": "high", "load": 0.5}, "the limit of the live view is a load below 0.5"),
    ],
)
def test_what_is_too_much_is_refused_before_any_work(make, state, sentence):
    view = make(**state)
    assert sentence in view.error
    assert view.scene is None


def test_chances_that_other_operands_do_not_read_are_not_refused(make):
    assert make(operands="worked", a=0.9, b=0.9).error == ""


def test_too_many_products_are_refused_with_the_limit(make):
    view = make(scale=12, edge_factor=32, a=0.57, b=0.19, c=0.19)
    assert view.scene is None
    assert f"the limit of the live view is {MAX_PRODUCTS:,}" in view.error


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
            title = picture.figure.layout.title.text
            assert "(counted" in title or "(modelled)" in title, name
            assert picture.alt, name


def test_the_recipe_remakes_the_view(make):
    view = make(operands="worked", step=3, dataflow="outer")
    lines = view.recipe().splitlines()
    assert len(lines) == 5
    scope = {}
    exec("\n".join(lines[:-1]), scope)
    assert scope["view"].state == view.state
    scope["view"].close()


def test_machine_table_holds_all_versions(make):
    view = make(operands="karate", section="machine")
    columns, rows = view.table(view.scene)
    assert [row[0] for row in rows] == ["V1", "V2", "V3"]
    pair = load_pair("karate")
    assert rows[1][columns.index("time (ms)")] == piuma.simulate_spgemm(pair.a, pair.b, 2).ms


def test_blocks_and_hash_reach_the_runs(make):
    view = make(operands="karate", section="machine", blocks=2, version=1, hash="multiplicative")
    pair = load_pair("karate")
    direct = piuma.simulate_spgemm(pair.a, pair.b, 1, hash="multiplicative", blocks=2)
    assert view.scene.machine.runs[0].totals["time (ms)"] == direct.ms
    assert view.scene.machine.probes.labels == ("multiplicative",)


def test_bytes_are_those_of_the_kernel(make):
    view = make(operands="karate", section="bytes", cache="ideal")
    pair = load_pair("karate")
    totals = dict(zip(view.scene.traffic.dataflows, view.scene.traffic.bytes.sum(axis=1), strict=True))
    flows = {"inner, C known": "inner-masked"} | {flow: flow for flow in ("inner", "outer", "row", "column", "merge")}
    for shown, flow in flows.items():
        assert totals[shown] == dataflow_traffic(pair.a, pair.b, flow, cache="ideal").total_bytes


def test_empty_operands_have_a_scene(make):
    state = make(operands="worked").state
    nothing = Pair(title="nothing", made_from=("nothing",), a=sp.csr_array((4, 3)), b=sp.csr_array((3, 5)))
    scene = traffic_scene(nothing, state)
    assert (scene.products, scene.c.nnz, scene.c.shape) == (0, 0, (4, 5))
    assert [run.label for run in scene.machine.runs] == ["V1", "V2", "V3"]


def test_beyond_the_limit_steps_are_runs(make):
    view = make(scale=11, edge_factor=8, step=1000)
    steps = view.scene.steps["row"]
    assert not steps.exact
    assert view._stepper.steps == len(steps.live) + 1
    assert f"to {steps.edges[1000]:,}, from rows" in view._stepper.sentence
    assert view._rasters["C"].query(0, 2048, 0, 2048)["count"] == steps.edges[1000] - steps.merged[:1000].sum()


def test_the_table_of_the_stepper_is_that_of_the_machine(make):
    """At the end of a window, the slots that the steps name are those that the machine model fills."""
    view = make(operands="karate", dataflow="hash", log2_slots=9, load=0.2)
    pair, scene = load_pair("karate"), view.scene
    plan = piuma.plan_windows(pair.a, pair.b, 512, 0.2)
    assert len(plan) > 2 and scene.windows["hash"].tolist() == plan.row_start.tolist()
    order, n = scene.orders["row"], scene.c.shape[1]
    for window, (first, stop) in enumerate(zip(plan.row_start, plan.row_stop, strict=True)):
        kept = kept_on_chip(order, int(order.line_first[stop]), windows=scene.windows["hash"])
        tags = (kept.row - first) * n + kept.column
        table = np.full(512, -1)
        table[probe_slots(tags, scene.slots)] = tags
        np.testing.assert_array_equal(table, table_snapshot(pair.a, pair.b, plan, 512, "low", window))


# What the stories promise


def tell(view, key):
    view._tell(key)
    assert view.error == ""
    assert view._stories.selected == key
    assert view._stories.text == STORIES[key].text
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
    assert len(scene.windows["hash"]) > 3


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
def test_views_leave_nothing_behind():
    alive = []
    for _ in range(5):
        view = explorer(operands="worked")
        alive.append(weakref.ref(view))
        alive.append(weakref.ref(type(view)))
        view.close()
        del view
    gc.collect()
    assert sum(ref() is not None for ref in alive) == 0


@pytest.mark.slow
def test_a_large_view_stays_within_the_byte_budget(make):
    view = make(scale=12, edge_factor=8, section="machine", version=1)
    for section, _ in view.knob("section").choices:
        view.section = section
        sent = sum(len(pane.spec) for pane in view._panes.values() if pane.figure is not None)
        sent += sum(len(image.picture.get("cells", b"")) for image in (*view._tables, *view._cells.values()))
        assert sent < 1_100_000, (section, sent)
