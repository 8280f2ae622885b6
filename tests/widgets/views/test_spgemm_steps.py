"""Every step of every dataflow: what the caption, the place on the chip and the picture of C say, by plain loops."""

import html
import re

import numpy as np
import pytest

from kernels.matmul.dataflow import dataflow_steps, output_births
from kernels.matmul.dataflow_order import DATAFLOWS, dataflow_order
from kernels.matmul.spgemm import spgemm
from tests.dataflow_loops import BY_HAND, pairs
from widgets.controls.knob import Knob
from widgets.figures.spgemm_dataflows import STEPPED, line_windows
from widgets.figures.spgemm_scene import STREAMS, Operand, StreamBytes, TrafficScene
from widgets.figures.spgemm_steps import NAMED, WRITTEN, step_marks
from widgets.figures.spgemm_words import live_curves
from widgets.views.spgemm_traffic import SpGEMMTrafficView, TrafficHooks

TABLE = np.array([0, 2, 3])  # first rows of the windows that share a hash table, where there are so many
TO_COME, ON_LINE, WRITTEN_CELL, NOW, ON_CHIP = 2, 1, 3, 4, 5


def operand(name, x):
    x = x.copy()
    x.sum_duplicates()
    return Operand(name=name, shape=x.shape, indptr=x.indptr, indices=x.indices, values=x.data)


def scene_of(a, b):
    table = TABLE[: np.searchsorted(TABLE, max(a.shape[0], 1))]
    windows = {key: line_windows(flow, (a.shape[0], b.shape[1]), table) for key, flow in STEPPED.items()}
    steps = {key: dataflow_steps(a, b, flow.order, windows=windows[key]) for key, flow in STEPPED.items()}
    traffic = StreamBytes(dataflows=("all",), streams=STREAMS, bytes=np.ones((1, 6)), note="made up")
    return TrafficScene(
        title="a pair",
        a=operand("A", a),
        b=operand("B", b),
        c=operand("C", spgemm(a, b)),
        products=steps["row"].products,
        traffic=traffic,
        orders={flow: dataflow_order(a, b, flow) for flow in DATAFLOWS},
        steps=steps,
        births={flow: output_births(a, b, flow) for flow in DATAFLOWS},
        windows=windows,
        slots=64,
    )


def loops(name, key):
    flow = STEPPED[key]
    a, b = pairs()[name]
    windows = {"line": np.arange(100), "table": TABLE, None: None}[flow.windows]
    return list(BY_HAND[flow.order](a, b, windows))


@pytest.fixture
def view():
    hooks = TrafficHooks(operands=(Knob("operands", "Operands", "one", choices=tuple((n, n) for n in pairs())),))
    made = SpGEMMTrafficView(lambda state, progress: scene_of(*pairs()[state["operands"]]), hooks)
    yield made
    made.close()


def named(view):
    return [html.unescape(text) for text in re.findall(r"<li[^>]*>(.*?)</li>", view._kept.value)]


def words_of(key, kept):
    """What the place must name: sums, products of the list, or elements of B that wait."""
    for (i, j, k), value in kept:
        if k < 0:
            yield f"C[{i}, {j}] = {value:.4g}"
        elif STEPPED[key].waits_in_b:
            yield f"B[{k}, {j}] = {value:.4g} waits"
        else:
            yield f"A[{i}, {k}] B[{k}, {j}] = {value:.4g}"


@pytest.mark.parametrize("name", pairs())
def test_captions_and_pictures_tell_the_state_at_every_step(view, name):
    view.operands = name
    for key in STEPPED:
        view.dataflow = key
        steps, births = loops(name, key), view.scene.births[STEPPED[key].order]
        assert view._stepper.steps == (len(steps) + 1 if steps else 0)
        opened = set()
        for position, step in enumerate(steps, 1):
            view.step = position
            said = view._stepper.sentence
            now = f"A[{step.i}, {step.k}] = {step.a:g} times B[{step.k}, {step.j}] = {step.b:g} "
            assert now in said and f"C[{step.i}, {step.j}]" in said and f"{step.a * step.b:g}" in said
            merges = (step.i, step.j) in opened and key != "outer"
            assert ("adds" in said) == merges
            opened.add((step.i, step.j))
            count = len(step.kept)
            state = (
                f"On the chip: {count} element{'s' * (count != 1)} ({16 * count} B). Written: {len(step.written)} of"
            )
            assert f"{state} {len(births)} entr" in said
            left = steps[position - 2].written if position > 1 else {}
            assert said.startswith(now) == (set(left) == set(step.written))  # what was written is told first
            listed = [text.partition(": ")[2] if text.startswith("slot") else text for text in named(view)]
            assert listed[-NAMED:] == list(words_of(key, step.kept))[-NAMED:]
            _check_picture(view, key, step)
            assert view.error == ""
        if steps:
            view.step = len(steps) + 1
            assert f"C is complete with {len(births)} entr" in view._stepper.sentence
            assert "nothing is left on the chip" in view._stepper.sentence and named(view) == []
        view.step = 0
        start = f"Nothing is formed yet; {len(steps)} partial product" if steps else "form no partial product at all"
        assert start in view._stepper.sentence and named(view) == []


def _check_picture(view, key, step):
    picture = view._cells["C"].picture
    if not picture["cells"]:
        return
    cells = np.frombuffer(picture["cells"], np.uint8).reshape(picture["height"], picture["width"])
    on_chip = {(i, j) for (i, j, k), _ in step.kept if k < 0 or STEPPED[key].merges_last}
    assert cells[step.i, step.j] == NOW
    for i, j in np.ndindex(cells.shape):
        if (i, j) != (step.i, step.j):
            wanted = WRITTEN_CELL if (i, j) in step.written else ON_CHIP if (i, j) in on_chip else None
            assert cells[i, j] == wanted if wanted else cells[i, j] in (0, ON_LINE, TO_COME)
    texts = {(i, j): text for i, j, text in picture["texts"]}
    assert set(texts) == on_chip | set(step.written)
    for place in texts:
        values = [value for (i, j, _), value in step.kept if (i, j) == place]
        spelled = "+".join(f"{value:.4g}" for value in values)
        if STEPPED[key].merges_last:
            assert texts[place] in (spelled, f"{len(values)} values")
        elif place in step.written:
            assert texts[place] == f"{step.written[place]:.4g}"


def test_nothing_of_an_earlier_dataflow_or_step_stays(view):
    """Going somewhere directly, and by way of everything else, ends in the same words."""
    view.operands = "square"
    stops = [(key, step) for key in STEPPED for step in (0, 3, len(loops("square", key)), 10**4)]
    direct = {}
    for key, step in stops:
        fresh = SpGEMMTrafficView(view._compute_scene, view._hooks, operands="square", dataflow=key, step=step)
        direct[key, step] = said(fresh)
        fresh.close()
    assert len(set(direct.values())) == len(stops)
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(stops), 100):
        view.dataflow, view.step = stops[place]
        assert said(view) == direct[stops[place]]


def said(view):
    pane = view._panes["step live"]
    return (view._stepper.sentence, view._kept.value, pane.alt, view.alt_text(view.scene), pane.figure.data[-1].name)


def test_unmerged_values_of_the_outer_product_stay_apart_until_the_merge(view):
    view.operands, view.dataflow = "doubled", "outer"
    texts = {}
    for step in (view._stepper.steps - 1, view._stepper.steps):
        view.step = step
        texts[step] = {(r, c): text for r, c, text in view._cells["C"].picture["texts"]}
    before, after = texts.values()
    a, b = (x.toarray() for x in pairs()["doubled"])
    assert {place: float(text) for place, text in after.items()} == {
        place: value for place, value in np.ndenumerate(a @ b) if place in after
    }
    assert any("+" in text or "values" in text for text in before.values())
    for place, text in before.items():
        if "+" in text:
            assert sum(map(float, text.split("+"))) == float(after[place])


def test_every_slot_of_the_table_is_named_and_empties_with_its_window(view):
    view.operands, view.dataflow = "tall", "hash"
    steps = loops("tall", "hash")
    for position, step in enumerate(steps, 1):
        view.step = position
        first = max(w for w in TABLE if w <= step.i)
        tags = [(i - first) * view.scene.c.shape[1] + j for (i, j, _), _ in step.kept]
        taken = [int(re.match(r"slot ([\d,]+):", text)[1]) for text in named(view)]
        assert taken == [tag % 64 for tag in tags]  # 64 slots hold every place of these windows: nothing collides


def test_curves_of_all_dataflows_share_one_axis_and_end_with_nothing_kept(view):
    for name in ("square", "tall", "long"):
        view.operands = name
        scene, total = view.scene, view.scene.products
        curves = live_curves(scene)
        assert [curve.label.split(" (")[0] for curve in curves] == [f.label.split(" (")[0] for f in STEPPED.values()]
        for key, curve in zip(STEPPED, curves, strict=True):
            steps = loops(name, key)
            assert curve.x.tolist() == [0, *range(1, total + 1), total]
            assert curve.live.tolist() == [0, *(len(step.kept) for step in steps), 0]
        falls = np.flatnonzero(np.diff(curves[0].live[:-1]) < 0)
        rows = [step.i for step in steps_of_rows(name)]
        ends = [t for t in range(1, total) if rows[t] != rows[t - 1]]
        assert set(falls) <= set(ends)  # the row-wise curve falls where a row is written, and only there
        full = [t for t in ends if curves[0].live[t] > 1]
        assert set(full) <= set(falls)
        figure = view._panes["step live"].figure
        assert len(figure.data) == len(STEPPED) + 1 and len({trace.xaxis for trace in figure.data}) == 1


def steps_of_rows(name):
    return loops(name, "row")


def test_a_story_leaves_when_its_settings_do():
    from widgets.views.frame.story import Story

    hooks = TrafficHooks(
        operands=(Knob("operands", "Operands", "one", choices=tuple((n, n) for n in pairs())),),
        stories={"third": Story("Third step", {"operands": "square", "step": 3}, "This one merges.")},
    )
    view = SpGEMMTrafficView(lambda state, progress: scene_of(*pairs()[state["operands"]]), hooks)
    for change in ({"step": 4}, {"dataflow": "outer"}, {"operands": "tall"}):
        view._tell("third")
        assert (view._stories.selected, view._stories.text) == ("third", "This one merges.")
        for key, value in change.items():
            setattr(view, key, value)
        assert (view._stories.selected, view._stories.text) == ("", "")
    view.close()


def test_many_elements_are_counted_and_the_newest_named():
    rng = np.random.default_rng(1)
    import scipy.sparse as sp

    a, b = (sp.csr_array((rng.random((30, 30)) < 0.4).astype(float)) for _ in range(2))
    scene = scene_of(a, b)
    marks = step_marks(scene, "outer", 200)
    assert marks.kept.total == 200 and len(marks.kept.row) == NAMED
    assert "On the chip: 200 elements (3.2 kB)." in marks.sentence
    assert max(scene.c.shape) > WRITTEN
