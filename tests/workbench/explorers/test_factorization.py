"""The explorer of factorisations: every method on a layer and on a reader's own matrix, links, stories, refusals."""

import gc
import weakref

import numpy as np
import pytest

from kernels.factor.svd import rank_for_ratio
from widgets.views.factorization import MOST_FACTORS, SECTIONS
from workbench.explorers.factorization.explorer import OWN, explorer
from workbench.explorers.factorization.method import methods

LAYER = "layers.1.query"


@pytest.fixture
def view():
    shown = explorer(layer=LAYER)
    yield shown.wait()
    shown.close()


@pytest.mark.parametrize("key", list(methods()))
def test_the_factors_of_every_method_multiply_to_what_is_shown(view, key):
    view.method = key
    view.wait(300)
    scene = view.scene
    assert view.error == "" and 1 <= len(scene.factors) <= MOST_FACTORS
    left = scene.weight - scene.rebuilt
    assert scene.weight_error == pytest.approx(np.linalg.norm(left) / np.linalg.norm(scene.weight))
    assert np.allclose(scene.residual_spectrum[0], np.linalg.norm(left, 2), rtol=1e-4)
    assert 0 < scene.output_error < 1 and 0 < scene.ratio < 1.5 and scene.layer == LAYER
    for section, _ in SECTIONS:
        view.section = section
        columns, rows = view.table(scene)
        assert view.error == "" and view.alt_text(scene) and columns and len(rows)


def test_truncated_svd_keeps_the_largest_singular_values(view):
    scene, rank = view.scene, rank_for_ratio(0.5, view.scene.weight.shape)
    assert [each.values.shape for each in scene.factors] == [(len(scene.weight), rank), (rank, scene.weight.shape[1])]
    assert np.allclose(scene.residual_spectrum[:5], scene.spectrum[rank : rank + 5], rtol=1e-3)
    assert view.arrays(scene)["factor_1"] is scene.factors[0].values
    before = scene.weight_error
    view.share = 0.8
    view.wait()
    assert view.scene.weight_error > before


def test_errors_weighed_by_the_inputs_are_larger_in_the_weights_and_smaller_in_the_outputs(view):
    plain = view.scene
    view.method = "asvd"
    view.wait()
    assert view.scene.weight_error > plain.weight_error and view.scene.output_error < plain.output_error


def test_every_layer_is_factorised_where_it_is_asked_for(view):
    assert not view.scene.layers
    view.all_layers = True
    view.wait(120)
    found = {each.name: each for each in view.scene.layers}
    assert len(found) >= 12 and found[LAYER].weight_error == view.scene.weight_error


def test_links_and_recipes_bring_the_state_back(view):
    with view.changes():
        view.method, view.share, view.section = "asvd", 0.7, "error"
    view.wait()
    again = explorer(query=view.query)
    again.wait()
    assert again.state == view.state and again.alt_text(again.scene) == view.alt_text(view.scene)
    made = {}
    exec(view.recipe(), made)
    assert made["view"].state == view.state
    for each in (again, made["view"]):
        each.close()


def test_a_matrix_of_ones_own_needs_no_model():
    weight = np.outer(np.arange(1, 9), np.ones(6)).astype(np.float32)
    shown = explorer(weight, share=0.6)
    shown.wait()
    assert (shown.model, shown.error) == (OWN, "") and shown.scene.weight_error < 1e-6  # its rank is 1
    assert "outputs" not in shown._headline.value
    shown.method = "asvd"
    assert "Choose a layer of a model" in shown.error
    shown.close()
    empty = explorer(model=OWN)
    assert "no matrix of your own yet" in empty.error
    empty.close()
    for wrong, told in ((np.full((2, 2), np.nan), "real numbers"), (np.zeros((2000, 2000)), "the limit of this view")):
        with pytest.raises(ValueError, match=told):
            explorer(wrong)


def test_a_share_that_no_factors_meet_is_told():
    shown = explorer(np.ones((2, 2)), share=0.5)
    shown.wait()
    assert "rank" in shown.error and shown.scene is None
    shown.close()


@pytest.mark.parametrize("key", [f"{key}_{i}" for key, by in methods().items() for i in range(1, len(by.stories) + 1)])
def test_stories_show_what_they_tell_of(view, key):
    view._tell(key)
    view.wait(300)
    assert view.error == "" and view._stories.text


def tops(view):
    return [view._canvases[name].scale_top for name in ("weight", "rebuilt", "left")]


def test_a_locked_colour_scale_stays_while_knobs_turn_and_comes_back_with_the_link(view):
    largest = float(np.abs(view.scene.weight).max())
    before = tops(view)
    assert before[0] == pytest.approx(largest, rel=1e-5) and len(set(before)) == 1 and view._factors[0].scale_top == 0
    view.colours = "locked"
    assert view.colour_tops == f"magnitude:{before[0]:.6g}"
    view.layer = "layers.0.feed_in"
    view.wait()
    now = tops(view)
    assert len(set(now)) == 1 and now[0] == float(f"{before[0]:.6g}")
    again = explorer(query=view.query).wait()
    assert tops(again) == now and again.state == view.state
    again.close()
    view.colours = "shared"
    assert tops(view)[0] != now[0] and view.colour_tops == ""
    view.colours = "own"
    assert tops(view) == [0, 0, 0]
    wrong = explorer(colour_tops="magnitude")
    assert wrong.error.startswith("colour_tops: must be unit:number pairs")
    wrong.close()


def test_the_colour_scale_is_offered_beside_the_pictures_only(view):
    assert "colours" in {knob.key for knob in view._shown_knobs()}
    view.section = "bytes"
    assert "colours" not in {knob.key for knob in view._shown_knobs()}


def test_a_closed_view_is_freed():
    shown = explorer(layer=LAYER)
    shown.wait()
    gone = weakref.ref(shown)
    shown.close()
    del shown
    gc.collect()
    assert gone() is None
