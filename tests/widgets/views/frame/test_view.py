"""Promises of every view that need no browser: state, links, work in the background, errors, end of life."""

import asyncio
import gc
import threading
import time

import ipywidgets
import pytest
import traitlets

from widgets.controls.knob import Knob, KnobError
from widgets.views.frame.toolbar import ALL
from widgets.views.frame.view import View, link_views


def test_state_is_typed_and_json_safe(wave):
    view = wave(points=50)
    assert view.state["points"] == 50 and view.state["shape"] == "sin" and view.state["filled"] is False
    view.points = "60"
    assert view.points == 60
    for bad in ({"points": 5}, {"points": "many"}, {"shape": "tan"}, {"filled": "perhaps"}):
        with pytest.raises(traitlets.TraitError):
            view.set_trait(*next(iter(bad.items())))
    with pytest.raises(TypeError, match="no knob 'colour'"):
        wave(colour=1)


def test_knob_may_not_hide_an_attribute():
    with pytest.raises(TypeError, match="'theme' hides"):
        type("Bad", (View,), {"knobs": (Knob("theme", "Theme", "x"),)})


def test_a_view_may_bring_knobs_of_its_own(wave):
    class Tuned(wave):
        def __init__(self, *more, **state):
            self.knobs = (*wave.knobs, *more)
            super().__init__(**state)

    view = Tuned(Knob("phase", "Phase", 0, 0, 9), query="phase=4&points=50")
    assert isinstance(view, wave) and (view.phase, view.points, view.query) == (4, 50, "points=50&phase=4")
    before = view.computed
    view.phase = "7"
    assert (view.phase, view.computed) == (7, before + 1)
    with pytest.raises(traitlets.TraitError, match="phase: must be from 0 to 9"):
        view.phase = 10
    assert not wave().has_trait("phase")
    with pytest.raises(TypeError, match="'theme' hides"):
        Tuned(Knob("theme", "Theme", "x"))


def test_query_round_trip(wave):
    view = wave(points=50, frequency=2.5, filled=True, fail="a & b = c?")
    again = wave.from_query("?" + view.query + "&theme=dark&foreign=1")
    assert again.state == view.state and again.theme == "dark"
    assert len(view.query) < 2000
    assert wave().query == ""
    again.load_query("")
    assert again.query == ""


def test_query_with_bad_values_keeps_defaults_and_says_so(wave):
    view = wave.from_query("points=5&shape=cos")
    assert view.points == 100 and view.shape == "cos"
    assert view.note == "Link not read in full: points: must be from 10 to 100000; got '5'."


def test_state_too_long_for_a_link_is_refused_in_words(wave):
    view = wave()
    view.fail = "x" * 2000
    with pytest.raises(ValueError, match="a link holds 2000"):
        _ = view.query


def test_query_is_computed_once(wave):
    assert wave.from_query("points=50").computed == 1


def test_without_a_loop_the_picture_is_there_at_once(wave):
    view = wave(points=20)
    assert view.painted == [(20, False)]
    assert view.pane.alt == "A wave of 20 points between -1.00 and 1.00."
    assert view._twin.caption == view.pane.alt


def test_several_changes_compute_once(wave):
    view = wave()
    with view.changes():
        view.points, view.frequency = 30, 3.0
    assert view.computed == 2


def test_paint_only_knobs_do_not_compute(wave):
    view = wave()
    view.filled = True
    assert view.computed == 1 and view.painted[-1] == (100, True)


def test_error_is_one_sentence_and_the_last_picture_stays(wave):
    view = wave(points=20)
    view.fail = "spmm: b has 5 rows,\n a has 7 columns"
    assert view.error == "spmm: b has 5 rows, a has 7 columns."
    assert len(view.scene[0]) == 20 and view.pane.figure is not None
    view.fail = ""
    assert view.error == ""


def test_budget_refuses_before_any_work(wave):
    view = wave()
    view.points = 60_000
    assert view.error == "Wave: at most 50,000 points." and view.computed == 1


def test_what_a_knob_reads_and_what_fails_for_it_stands_below_its_field(wave):
    def read(value, state):
        if value > 8:
            raise ValueError(f"{value} is too late")
        return f"late at {state['points']} points" if value > 5 else ""

    class Tuned(wave):
        knobs = (*wave.knobs, Knob("phase", "Phase", 0, 0, 9, read=read))

        def compute(self, state, progress):
            if state["phase"] == 3:
                raise KnobError("phase", "three is odd")
            return super().compute(state, progress)

    view = Tuned(points=50)
    assert view._panel.notes == {}
    for phase, note, error in (
        (6, ["note", "late at 50 points."], ""),
        (9, ["error", "9 is too late."], ""),
        (3, ["error", "three is odd."], "three is odd."),
    ):
        view.phase = phase
        assert view._panel.notes == {"phase": note} and view.error == error
    view.phase = 0
    assert view._panel.notes == {} and view.error == ""


def test_a_refused_control_goes_back(wave):
    view = wave()
    view._turn("points", 1)
    assert view.error.startswith("points: must be from 10") and view._panel.values["points"] == 100


def in_loop(work):
    """Run ``work()`` where an event loop is running, as in a Jupyter kernel."""

    async def main():
        await work()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_latest_wins_with_at_most_one_stale_paint(wave):
    async def work():
        view = wave(points=20, slow=50)
        for points in range(21, 60):
            view.points = points
            await asyncio.sleep(0.005)
        view.wait()
        assert view.painted[-1] == (59, False)
        assert len(view.painted) <= 2
        assert not view._toolbar.busy
        view.close()

    in_loop(work)


def test_uncooperative_work_paints_one_stale_result_at_most(wave):
    async def work():
        view = wave(points=20, stubborn=100)
        await asyncio.sleep(0.02)
        for points in (21, 22, 23):
            view.points = points
        view.wait()
        assert view.painted == [(20, False), (23, False)]
        view.close()

    in_loop(work)


def test_the_loop_stays_free_while_computing(wave):
    async def work():
        view = wave(slow=400)
        longest, last = 0.0, time.monotonic()
        while view._worker.busy:
            await asyncio.sleep(0.005)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        assert longest < 0.2 and len(view.painted) == 1
        view.close()

    in_loop(work)


def test_painting_happens_on_the_loops_thread(wave):
    async def work():
        threads = []

        class Here(wave):
            def paint(self, scene):
                threads.append(threading.current_thread())

            def compute(self, state, progress):
                assert threading.current_thread() is not threading.main_thread()
                return super().compute(state, progress)

        view = Here(slow=20)
        while view._worker.busy:
            await asyncio.sleep(0.01)
        assert threads == [threading.main_thread()] and view.error == ""
        view.close()

    in_loop(work)


@pytest.mark.parametrize("kind", ("slow", "stubborn"))
def test_cancel_answers_at_once_and_keeps_the_picture(wave, kind):
    async def work():
        view = wave(points=20)
        view.wait()
        setattr(view, kind, 900)
        await asyncio.sleep(0.1)
        assert view._toolbar.busy
        begin = time.monotonic()
        view._from_page({"type": "cancel"})
        assert time.monotonic() - begin < 0.3 and not view._toolbar.busy
        assert view.note == "Cancelled. The picture still shows the settings before."
        await asyncio.sleep(1.1)
        assert view.painted == [(20, False)]
        setattr(view, kind, 0)
        view.points = 30
        view.wait()
        assert view.painted[-1] == (30, False)
        view.close()

    in_loop(work)


def test_progress_reaches_the_bar(wave):
    async def work():
        view = wave(slow=600)
        await asyncio.sleep(0.4)
        assert 0 < view._toolbar.progress < 1 and view._toolbar.step == "waiting"
        view.close()

    in_loop(work)


def test_wait_gives_up_after_its_time(wave):
    async def work():
        view = wave(slow=2000)
        with pytest.raises(TimeoutError, match=r"still computing after 0\.05 s"):
            view.wait(0.05)
        view.close()

    in_loop(work)


def test_parts_of_a_generator_are_painted_one_by_one(wave):
    class Twice(wave):
        def compute(self, state, progress):
            scene = super().compute(state, progress)
            yield scene[0][:10], scene[1][:10]
            yield scene

    assert Twice(points=20).painted == [(10, False), (20, False)]

    async def work():
        view = Twice(points=20)
        view.wait()
        assert view.painted == [(10, False), (20, False)] and not view._toolbar.busy
        view.close()

    in_loop(work)


def test_threads_end(wave):
    async def work():
        views = [wave(slow=100) for _ in range(3)]
        views[0].close()
        for view in views[1:]:
            view.wait()
            view.close()
        await asyncio.sleep(0.3)

    in_loop(work)
    assert not [t for t in threading.enumerate() if t.name == "view-worker"]


def test_close_while_computing_paints_nothing_more(wave):
    async def work():
        view = wave(slow=100)
        view.close()
        await asyncio.sleep(0.3)
        assert view.painted == []

    in_loop(work)


@pytest.mark.slow
def test_views_leave_nothing_behind(wave):
    def alive():
        gc.collect()
        kinds = (View, ipywidgets.Widget)
        return sum(issubclass(type(thing), kinds) for thing in gc.get_objects()), len(
            ipywidgets.widgets.widget._instances
        )

    first = wave()
    first.close()
    del first
    before = alive()
    for _ in range(5):
        view = wave(points=20)
        view.points = 30
        view._repr_mimebundle_()
        view.close()
        del view
    assert alive() == before


def test_linked_views_share_a_brush_until_unlinked(wave):
    first, second, third = wave(), wave(), wave()
    unlink = link_views(first, second, third)
    first.brush_rows = "3:9"
    assert second.brush_rows == third.brush_rows == "3:9"
    third.close()
    second.brush_columns = "0:4"
    assert first.brush_columns == "0:4"
    unlink()
    first.brush_rows = ""
    assert second.brush_rows == "3:9"


def test_page_tells_theme_and_address(wave):
    view = wave()
    view._from_page({"type": "page", "theme": "dark", "host": "lab"})
    assert view.theme == "dark" and view.computed == 1 and len(view.painted) == 2
    view._from_page({"type": "address", "query": "points=44"})
    assert view.points == 44


def test_numbers_carry_a_label(wave):
    assert wave()._toolbar.kind == "modelled"


def test_table_travels_by_the_page_once_opened(wave):
    view = wave(points=60)
    twin = view._twin
    assert twin.rows == [] and twin.total == 60
    twin._receive(twin, {"type": "page", "page": 2, "open": True}, [])
    assert twin.columns == ["x", "y"] and len(twin.rows) == 10 and twin.rows[-1] == ["1", "-2.44929e-16"]
    view.points = 20
    assert twin.page == 0 and len(twin.rows) == 20


def test_first_message_of_a_view_is_light(wave, sent):
    view = wave()
    size = sum(len(str(data)) + sum(len(bytes(b)) for b in buffers) for _, data, buffers in sent)
    assert sent and size < 150_000
    sent.clear()
    view.points = 1000
    assert sum(len(str(data)) for _, data, _ in sent) < 60_000


def test_a_stale_picture_is_dimmed_until_the_new_one_is_painted(wave):
    async def work():
        view = wave(points=20)
        assert view._toolbar.stale == ""  # there is no picture yet that could be stale
        view.wait()
        view.slow, stale = 300, []
        view._toolbar.observe(lambda change: stale.append(change["new"]), names="stale")
        assert view._toolbar.stale == ALL
        view.filled = True  # painted at once, of the scene before: still stale
        assert view._toolbar.stale == ALL
        view.points = 30
        view.wait()
        assert view._toolbar.stale == "" and view.painted[-1] == (30, True)
        assert stale == [""]
        view.close()

    in_loop(work)


@pytest.mark.parametrize("end", ("fails", "is refused", "is cancelled"))
def test_no_picture_stays_dimmed_after_work_that(wave, end):
    async def work():
        view = wave(points=20)
        view.wait()
        view.slow = 300
        assert view._toolbar.stale == ALL
        {"fails": lambda: setattr(view, "fail", "no room"), "is refused": lambda: setattr(view, "points", 60_000),
         "is cancelled": view.cancel}[end]()  # fmt: skip
        view.wait()
        assert view._toolbar.stale == "" and not view._toolbar.busy and view.scene is not None
        view.close()

    in_loop(work)


def test_parts_that_a_first_scene_leaves_open_stay_dimmed(wave):
    class Twice(wave):
        def compute(self, state, progress):
            scene = super().compute(state, progress)
            yield scene[0][:10], scene[1][:10]
            yield scene

        def unfinished(self, scene):
            return "" if len(scene[0]) > 10 else "wb-side"

    async def work():
        view, stale = Twice(points=20), []
        view.wait()
        view._toolbar.observe(lambda change: stale.append(change["new"]), names="stale")
        view.points = 30
        view.wait()
        assert stale == [ALL, "wb-side", ""]
        view.close()

    in_loop(work)
