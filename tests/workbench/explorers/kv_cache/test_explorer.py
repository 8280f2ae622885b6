"""The explorer of compressed caches: its states, own arrays, stories, links, and what it refuses."""

import gc
import io
import weakref

import numpy as np
import pytest
import torch

from widgets.figures.kv_cache.scene import METHODS, PICTURES
from widgets.views.kv_cache import SECTIONS
from workbench.explorers.kv_cache.explorer import explorer
from workbench.explorers.kv_cache.source import sources
from workbench.explorers.kv_cache.stories import STORIES


@pytest.fixture
def view():
    shown = explorer(cache="generated", drawn_tokens=128, prompt=64)
    yield shown
    shown.close()


def arrays(rng, heads=2, n=64, d=32):
    return [rng.standard_normal((heads, n, d)).astype(np.float32) for _ in range(3)]


@pytest.mark.parametrize("backbone", ["kivi", "kcvt", "token"])
@pytest.mark.parametrize("what", ["key", "value"])
def test_every_section_is_drawn_for_every_quantiser(view, what, backbone):
    with view.changes():
        view.what, view.backbone, view.head, view.channel, view.bits = what, backbone, 3, 5, 3
    for section, _ in SECTIONS:
        view.section = section
        assert view.error == "" and view.alt_text(view.scene)
        columns, rows = view.table(view.scene)
        assert columns and len(rows)
    scene = view.scene
    total = scene.levels + scene.low_rank + scene.sparse + scene.rest
    np.testing.assert_allclose(total, scene.exact, atol=1e-4)
    assert scene.errors["both"] < scene.errors["quantiser"]
    assert len(scene.steps[0]) == 8 and set(scene.bytes) == set(scene.drift.error) == set(METHODS)


def test_pictures_share_one_colour_scale(view):
    tops = {canvas.scale_top for canvas in view._canvases.values()}
    assert len(tops) == 1 and tops.pop() == pytest.approx(max(np.abs(getattr(view.scene, n)).max() for n in PICTURES))
    answer = view._canvases["exact"].query(3, 4, 7, 8)
    assert answer["value"] == pytest.approx(float(view.scene.exact[3, 7]))


def test_the_error_of_the_picture_is_that_of_the_block(view):
    scene = view.scene
    size = np.linalg.norm(scene.rest) / np.linalg.norm(scene.exact)
    assert size == pytest.approx(scene.errors["both"], rel=0.1)  # the low-rank part acts on outliers as well
    assert np.count_nonzero(scene.sparse) == 64 * 2 * int(128 * 0.02 / 2)


def test_steps_of_the_timeline_only_repaint(view):
    view.section = "bytes"
    scene = view.scene
    for step in (0, 63, 64, 100, 10**6):
        view.step = step
        assert view.scene is scene and f"{min(step, 128):,} tokens" in view.alt_text(scene)


def test_the_link_and_the_recipe_bring_the_state_back(view):
    with view.changes():
        view.bits, view.rank, view.section, view.sparsity = 4, 2, "corrections", 5.0
    again = explorer(query=view.query)
    assert again.state == view.state and again.alt_text(again.scene) == view.alt_text(view.scene)
    again.close()
    made = {}
    exec(view.recipe(), made)
    assert made["view"].state == view.state
    made["view"].close()


@pytest.mark.parametrize("key", list(STORIES))
def test_stories_can_be_told(key):
    shown = explorer(**({"cache": "generated", "drawn_tokens": 128} | dict(STORIES[key].state)))
    assert shown.error == "" and shown.section == STORIES[key].state["section"]
    shown.close()


def test_ones_own_arrays_are_taken_as_arrays_tensors_and_files(rng):
    q, k, v = arrays(rng)
    for given in ((k, v), (torch.from_numpy(k), torch.from_numpy(v[None]), torch.from_numpy(np.tile(q, (2, 1, 1))))):
        shown = explorer(*given, prompt=16, group="32", bits=4)
        np.testing.assert_array_equal(shown.scene.exact, k[0].astype(np.float16))
        assert shown.error == "" and shown.state["cache"] == "own"
        shown.close()
    shown = explorer(cache="own", group="32")
    assert "There is no cache of your own yet" in shown.error
    file = io.BytesIO()
    np.savez(file, k=k, v=v)
    shown._uploaded(shown._hooks.uploads[0].received, "mine.npz", file.getvalue())
    assert shown.error == "" and "Mine.npz" in shown.alt_text(shown.scene)
    file = io.BytesIO()
    np.savez(file, k=k)
    shown._uploaded(shown._hooks.uploads[0].received, "half.npz", file.getvalue())
    assert "half.npz must hold arrays k and v" in shown.error
    shown.close()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda q, k, v: (k[:, :, None], v), "keys must be finite floats"),
        (lambda q, k, v: (k, v[:, 1:]), "keys and values must have one shape"),
        (lambda q, k, v: (k * np.nan, v), "keys must be finite floats"),
        (lambda q, k, v: (np.zeros((64, 1100, 32), np.float32),) * 2, "the limit of this view"),
    ],
)
def test_arrays_that_cannot_be_shown_are_refused(rng, change, told):
    with pytest.raises(ValueError, match=told):
        explorer(*change(*arrays(rng)))


def test_groups_that_do_not_fit_are_refused_before_any_work(rng):
    _, k, v = arrays(rng, n=60)
    shown = explorer(k, v)
    assert "Groups of 64 do not divide 60 tokens" in shown.error and shown.scene is None
    shown.backbone = "kcvt"
    assert shown.error == ""
    shown.close()


@pytest.mark.slow
def test_real_caches_are_there(view):
    for key, of in sources().items():
        if not of.missing():
            view.cache = key
            view.wait()
            assert view.error == "" and view.scene.errors["both"] < view.scene.errors["quantiser"] < 1


def test_a_closed_view_is_freed():
    shown = explorer(cache="generated")
    gone = weakref.ref(shown)
    shown.close()
    del shown
    gc.collect()
    assert gone() is None
