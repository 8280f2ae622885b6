"""One colour scale for two pictures: shared, locked, or each its own; what a link says of it."""

import numpy as np
import pytest
from scipy import sparse

from widgets.canvas.canvas import RasterCanvas
from widgets.canvas.source import CsrSource, WeightSource
from widgets.views.frame.colour_scale import locked_tops, paint_colours
from widgets.views.sparsity import SparsityView


@pytest.fixture
def canvases():
    made = [RasterCanvas() for _ in range(3)]
    for canvas, weight in zip(made, (0.25, 0.75), strict=False):
        canvas.show(WeightSource(np.full((4, 4), weight, np.float32)))
    made[2].show(CsrSource(sparse.csr_array(np.eye(1024))))
    yield made
    for canvas in made:
        canvas.close()


def tops(canvases):
    return [round(canvas.scale_top, 4) for canvas in canvases]


def test_pictures_of_one_unit_share_a_scale_and_others_keep_theirs(canvases):
    assert paint_colours(canvases, "shared", "") == ""
    assert tops(canvases) == [0.75, 0.75, 0]
    assert [canvas.scale_note for canvas in canvases] == ["one scale for both pictures"] * 2 + [""]
    paint_colours(canvases[:1], "shared", "")
    assert tops(canvases)[0] == 0 and canvases[0].scale_note == ""
    canvases[2].show(WeightSource(np.full((4, 4), 2, np.float32)))
    paint_colours(canvases, "shared", "")
    assert {canvas.scale_note for canvas in canvases} == {"one scale for these 3 pictures"}


def test_each_picture_may_have_its_own(canvases):
    paint_colours(canvases, "shared", "")
    assert paint_colours(canvases, "own", "weight:3") == ""
    assert tops(canvases) == [0, 0, 0] and {canvas.scale_note for canvas in canvases} == {""}


def test_a_locked_scale_stays_while_the_pictures_change(canvases):
    locked = paint_colours(canvases, "locked", "")
    assert locked == "weight:0.75,entries:0.5"
    canvases[0].show(WeightSource(np.full((4, 4), 9, np.float32)))
    canvases[2].show(CsrSource(sparse.csr_array(np.ones((3, 3)))))
    assert paint_colours(canvases, "locked", locked) == locked
    assert tops(canvases) == [0.75, 0.75, 0.5] and {canvas.scale_note for canvas in canvases} == {"locked"}
    assert paint_colours(canvases, "shared", locked) == "" and tops(canvases)[0] == 9


def test_what_is_empty_locks_nothing_yet():
    canvas = RasterCanvas()
    canvas.show(CsrSource(sparse.csr_array((3, 3))))
    assert paint_colours([canvas], "locked", "") == "" and canvas.scale_top == 0
    canvas.show(CsrSource(sparse.csr_array(np.eye(3))))
    assert paint_colours([canvas], "locked", "") == "entries:1"
    canvas.close()


@pytest.mark.parametrize("text", ["weight", "weight:x", "weight:0", "weight:-1", "weight:inf", "a:1:2", "weight:nan"])
def test_a_lock_that_is_none_is_refused_in_a_sentence(text):
    with pytest.raises(ValueError, match=r"colour_tops: must be unit:number pairs"):
        locked_tops(text)
    view = SparsityView(np.eye(8), query=f"colours=locked&colour_tops={text}")
    assert view.error.startswith("colour_tops: must be unit:number pairs") and view.scene is None
    view.close()


def ends(view):
    return [part.scale_top for part in view._row.children if isinstance(part, RasterCanvas)]


@pytest.fixture
def banded():
    """1,024 rows whose entries lie in a dense corner as given, and apart once they are shuffled."""
    matrix = np.zeros((1024, 1024))
    matrix[:40, :40] = 1
    return sparse.csr_array(matrix)


def test_before_and_after_a_reordering_share_one_scale(banded):
    view = SparsityView(banded)
    assert len(ends(view)) == 1 and ends(view) == [0]
    view.ordering = "random"
    assert len(ends(view)) == 2 and len(set(ends(view))) == 1 and ends(view)[0] == 1
    assert view._given_canvas.query(0, 40, 0, 40)["count"] == 1600
    view.beside = False
    assert ends(view) == [0]
    view.beside, view.colours = True, "own"
    assert ends(view) == [0, 0] and view.error == ""
    view.close()


def test_a_lock_is_kept_by_the_link(banded):
    matrices = {"eye": np.eye(1024), "banded": banded}
    view = SparsityView(matrices)
    view.colours = "locked"
    assert ends(view) == [0.5] and view.colour_tops == "entries:0.5"
    view.matrix, view.ordering = "banded", "random"
    assert ends(view) == [0.5, 0.5]
    again = SparsityView(matrices, query=view.query)
    assert ends(again) == [0.5, 0.5] and again.state == view.state
    view.colours = "shared"
    assert "colour" not in view.query and ends(view) == [1, 1]
    view.close()
    again.close()


def test_all_pictures_are_closed_with_the_view(banded):
    view = SparsityView(banded, ordering="rcm")
    given = view._given_canvas
    view.beside = False
    view.close()
    assert given._source is None and given.comm is None
