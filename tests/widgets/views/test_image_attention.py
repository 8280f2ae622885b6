"""ImageAttentionView on plain data: panels, clicks, marks, words, table."""

import numpy as np
import pytest

from widgets.controls.knob import Knob
from widgets.figures.image_attention import ImageReading, ImageScene, covered, image_attention_figure
from widgets.views.image_attention import ImageAttentionView

PLACES = (
    Knob("row", "Row", 1, 0, 7, 1),
    Knob("column", "Column", 1, 0, 7, 1),
    Knob("key", "Key", -1, -1, 3, 1),
)


class Small(ImageAttentionView):
    knobs = PLACES


def scene(state, progress=None):
    rng = np.random.default_rng(1)
    heat = rng.random((8, 8))
    reached = np.zeros((8, 8), bool)
    reached[::2, ::2] = True
    some = np.where(reached, heat, 0)
    sources = np.array([[0, 0], [4, 4]]) if state["key"] >= 0 else None
    readings = (
        ImageReading("all", heat / heat.sum(), np.ones((8, 8), bool), 64, 640),
        ImageReading("fused", some / some.sum(), reached, 4, 40, rng.random((2, 2)), sources),
    )
    rgb = rng.integers(0, 256, (8, 8, 3), np.uint8)
    return ImageScene("made up", rgb, (state["row"], state["column"]), readings, state["key"])


@pytest.fixture
def view():
    made = Small(scene)
    yield made.wait()
    made.close()


def panels(view):
    return [trace.type for trace in view.pane.figure.data if trace.type in ("image", "heatmap")]


def test_there_is_a_picture_a_map_per_reading_and_a_grid(view):
    assert panels(view) == ["image", "heatmap", "heatmap", "heatmap"]
    assert [a.text for a in view.pane.figure.layout.annotations] == ["made up", "all", "fused", "2 x 2 keys"]
    fused = view.pane.figure.data[[t.type for t in view.pane.figure.data].index("heatmap", 4)]
    assert sum(value is None for line in fused.z for value in line) == 48  # out of reach


def curve(view, meta, kind):
    return next(i for i, t in enumerate(view.pane.figure.data) if t.meta == meta and t.type == kind)


def test_a_click_on_a_map_asks_that_pixel(view):
    view.picked([{"curve": curve(view, "query", "image"), "index": 0, "x": 5, "y": 2}])
    assert (view.wait().row, view.column) == (2, 5) and view.scene.query == (2, 5)
    assert "row 2, column 5" in view.alt_text(view.scene)


def test_a_click_on_a_key_lights_its_pixels_and_another_click_lets_go(view):
    click = lambda: [{"curve": curve(view, "key", "heatmap"), "index": 0, "x": 1, "y": 1}]  # noqa: E731
    view.picked(click())
    assert view.wait().key == 3
    lit = [t for t in view.pane.figure.data if t.type == "scatter" and len(t.x) == 2]
    assert len(lit) == 1 and list(lit[0].x) == [0, 4]
    view.picked(click())
    assert view.wait().key == -1


def test_words_and_table_carry_the_numbers(view):
    columns, rows = view.table(view.scene)
    assert len(columns) == len(rows[0]) and rows[0][:3] == ("all", 64, 1.0)
    assert rows[1][3] == pytest.approx(covered(view.scene, view.scene.readings[1])) and 0 < rows[1][3] < 1
    assert "fused meets 4 keys and reaches 25.0%" in view.alt_text(view.scene)
    assert "640" in view._facts.value
    assert set(view.arrays(view.scene)) == {"map all", "map fused", "keys fused"}


def test_state_survives_a_link(view):
    view.row, view.key = 3, 2
    again = Small(scene, query=view.query)
    assert again.state == view.state
    again.close()


def test_what_the_source_refuses_is_said():
    def refuse(state, progress):
        raise ValueError("the map must be a multiple of the stride")

    view = Small(refuse)
    assert "multiple of the stride" in view.wait().error
    view.close()


def test_both_themes_draw(view):
    for theme in ("light", "dark"):
        figure = image_attention_figure(view.scene, theme)
        assert figure.layout.height > 200 and figure.data
