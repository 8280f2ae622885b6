"""The explorer of Monarch matrices: its states, own matrices, stories, links, and what it refuses."""

import gc
import weakref

import numpy as np
import pytest
import torch
from scipy import linalg, sparse

from kernels.transforms.monarch import monarch_project
from widgets.views.monarch import SECTIONS
from workbench.explorers.monarch.explorer import MOST_SIDE, explorer
from workbench.explorers.monarch.source import sources
from workbench.explorers.monarch.stories import STORIES


@pytest.fixture
def view():
    shown = explorer()
    yield shown
    shown.close()


def test_every_section_of_every_matrix_is_drawn(view):
    for key, of in sources().items():
        if of.missing():
            continue
        with view.changes():
            view.matrix, view.nblocks, view.rank = key, 4, 2
        for section, _ in SECTIONS:
            view.section = section
            assert view.error == "" and view.alt_text(view.scene), (key, section)
            columns, rows = view.table(view.scene)
            assert columns and len(rows) and view.settings()
        assert view.kind == view.scene.kind == of.kind
        assert of.remark.endswith(".") and of.told(view.state)


def test_scene_is_the_projection_and_its_rivals(view):
    with view.changes():
        view.matrix, view.n, view.nblocks, view.rank = "random", "16", 4, 2
    scene = view.scene
    w1, w2, error = monarch_project(scene.matrix, 4, rank=2)
    assert scene.error == error == scene.rivals[0].error
    assert scene.parameters == scene.multiply_adds == w1.size + w2.size == 256
    np.testing.assert_allclose(scene.second @ scene.first, scene.product, atol=1e-12)
    np.testing.assert_array_equal(scene.first, linalg.block_diag(*w1))
    assert np.linalg.norm(scene.matrix - scene.product) / np.linalg.norm(scene.matrix) == pytest.approx(error)
    u, s, vt = np.linalg.svd(scene.matrix)
    low, blocks, largest = scene.rivals[2:]
    assert (low.name, low.parameters) == ("low rank (8)", 256)
    near = (u[:, :8] * s[:8]) @ vt[:8]
    assert low.error == pytest.approx(np.linalg.norm(scene.matrix - near) / np.linalg.norm(scene.matrix))
    assert (blocks.name, blocks.parameters, blocks.error) == ("block-diagonal (1)", 256, 0)
    assert largest.error == 0


def test_curves_go_through_the_point_that_is_shown(view):
    with view.changes():
        view.matrix, view.nblocks, view.rank = "small_encoder", 4, 1
    shares, errors = view.scene.curves["4 blocks"]
    assert shares[0] == pytest.approx(view.scene.share()) and errors[0] == pytest.approx(view.scene.error)
    assert all(np.all(np.diff(x) > 0) and np.all(np.diff(y) < 0) for x, y in view.scene.curves.values())
    assert list(view.scene.curves)[-1] == "low rank"


def test_permuting_the_inputs_of_the_fourier_transform_leaves_one_bar(view):
    assert view.scene.error == pytest.approx((1 - 1 / 8) ** 0.5)
    flat = view.scene.spectra
    view.permuted = True
    assert view.scene.error < 1e-12 and view.scene.kept(view.scene.spectra).min() > 1 - 1e-12
    np.testing.assert_array_equal(view.scene.turned, flat)


def test_blocks_are_filled_in_one_after_the_other(view):
    with view.changes():
        view.section, view.filled, view.permuted = "factors", 3, True
    done = view.scene.filled(3)
    assert done[:, :24].all() and not done[:, 24:].any()
    assert "3 blocks of 8" in view.alt_text(view.scene)
    view.filled = 10**4
    np.testing.assert_array_equal(view.scene.filled(8), view.scene.product)


def test_a_part_is_picked_and_stays_within_the_grid(view):
    view._pick(5, 7)
    assert (view.part_row, view.part_column) == (5, 7) and view.error == ""
    with view.changes():
        view.nblocks = 2
        view.rank = 1
    assert view.error == "" and view._picked(view.scene) == (1, 1)


def test_the_link_brings_the_state_back(view):
    with view.changes():
        view.matrix, view.nblocks, view.section, view.part_row = "digits", 4, "errors", 2
    again = explorer(query=view.query)
    assert again.state == view.state and again.alt_text(again.scene) == view.alt_text(view.scene)
    assert len(view.query) < 2000
    again.close()


def test_the_recipe_remakes_the_view(view):
    with view.changes():
        view.matrix, view.n, view.nblocks, view.permuted = "hadamard", "16", 4, True
    made = {}
    exec(view.recipe(), made)
    assert made["view"].state == view.state
    made["view"].close()
    own = explorer(np.eye(12), rank=2)
    made = {"w": np.eye(12)}
    exec(own.recipe(), made)
    assert made["view"].state == own.state
    for shown in (own, made["view"]):
        shown.close()


@pytest.mark.parametrize("key", list(STORIES))
def test_stories_show_what_they_tell_of(key):
    shown = explorer(**STORIES[key].state)
    assert shown.error == "" and shown.scene is not None
    shown.close()


def test_ones_own_matrix_is_projected(rng, tmp_path):
    dense = rng.standard_normal((24, 40))
    np.save(tmp_path / "w.npy", dense)
    for given in (dense, sparse.csr_array(dense), torch.from_numpy(dense), str(tmp_path / "w.npy"), dense * 1j):
        shown = explorer(given)
        assert shown.error == "" and shown.nblocks == 8
        assert shown.scene.error == pytest.approx(monarch_project(dense, 8)[2])
        shown.close()
    shown = explorer("own")
    assert "There is no matrix of your own yet" in shown.error
    shown._hooks.uploads[0].received("w.npy", (tmp_path / "w.npy").read_bytes())
    shown.refresh()
    assert shown.error == "" and shown.scene.title == "W.npy"
    shown.close()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (np.ones((MOST_SIDE + 1, 4)), "sides up to 1,536"),
        (np.ones((1200, 1200)), "this view takes up to 589,824"),
        (np.full((4, 4), np.nan), "holds NaN or infinity"),
        (np.ones((1, 8)), "a side must be at least 2"),
    ],
)
def test_a_matrix_that_cannot_be_shown_is_refused(given, told):
    with pytest.raises(ValueError, match=told):
        explorer(given)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"nblocks": 3}, "3 blocks do not divide 64 x 64: choose one of 1, 2, 4, 8, 16, 32, 64."),
        ({"rank": 9}, "With 8 blocks a part is 8 x 8, so its rank is at most 8."),
        ({"matrix": "hadamard", "n": 144}, "made for powers of two, and 144 is none"),
        ({"colour_tops": "x"}, "colour_tops: must be unit:number pairs"),
    ],
)
def test_settings_that_do_not_fit_are_told_in_a_sentence(state, told):
    shown = explorer(**state)
    assert told in shown.error
    shown.close()


def test_a_closed_view_is_freed():
    shown = explorer(section="factors")
    gone = weakref.ref(shown)
    shown.close()
    del shown
    gc.collect()
    assert gone() is None
