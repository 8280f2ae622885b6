"""The explorer of storage formats: its states, own weights, stories, links, and what it refuses."""

import gc
import weakref

import numpy as np
import pytest
from scipy import sparse

from widgets.views.weight_format import SECTIONS
from workbench.explorers.own_weight import MOST_PLACES
from workbench.explorers.weight_format.explorer import explorer
from workbench.explorers.weight_format.source import sources
from workbench.explorers.weight_format.stories import STORIES
from workbench.machines.peaks import stored_peaks


@pytest.fixture
def view():
    shown = explorer()
    yield shown
    shown.close()


def test_every_section_of_every_format_is_drawn(view):
    with view.changes():
        view.pattern, view.value_bits = "blocks", "16"
    for section, _ in SECTIONS:
        view.section = section
        for stored in view.scene.formats:
            view.format = stored.key
            assert view.error == "" and view.alt_text(view.scene)
            columns, rows = view.table(view.scene)
            assert columns and len(rows)
    assert {each.key for each in view.scene.formats} >= {"dense", "groups", "tiled_csl", "bsr"}


def test_steps_go_to_the_end_and_no_further(view):
    view.section = "step"
    stored = view.scene.stored(view.format)
    view.step = 10**6
    last = stored.slots(stored.steps - 1)
    rows = stored.row[last][stored.row[last] >= 0]
    assert view.error == "" and f"rows {rows.min()} to {rows.max()}" in view.alt_text(view.scene)
    view.step = 0
    assert view.error == ""


def test_the_link_brings_the_state_back(view):
    with view.changes():
        view.pattern, view.sparsity, view.section, view.format, view.step = "any", 0.4, "step", "csr16", 5
    again = explorer(query=view.query)
    assert again.state == view.state and again.alt_text(again.scene) == view.alt_text(view.scene)
    again.close()


def test_the_recipe_remakes_the_view(view):
    with view.changes():
        view.value_bits, view.tile_rows, view.section, view.format = "16", 32, "step", "tiled_csl"
    made = {}
    exec(view.recipe(), made)
    assert made["view"].state == view.state
    made["view"].close()


@pytest.mark.parametrize("key", list(STORIES))
def test_stories_show_what_they_tell_of(key):
    story = STORIES[key]
    shown = explorer(**story.state)
    assert shown.error == "" and shown.scene.stored(shown.format).key == shown.format
    shown.close()


def test_ones_own_weight_is_shown_as_it_is_given(rng, tmp_path):
    own = sparse.random_array((24, 40), density=0.2, rng=rng, format="csr")
    np.save(tmp_path / "w.npy", own.toarray())
    for given in (own, own.toarray(), str(tmp_path / "w.npy")):
        shown = explorer(given)
        np.testing.assert_array_equal(shown.scene.weight, own.toarray().astype(np.float16).astype(np.float32))
        assert shown.state["pattern"] == "given" and shown.error == ""
        shown.close()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (np.ones((2**11 + 1, 2**10)), f"the limit of this view is {MOST_PLACES:,}"),
        (np.full((4, 4), 1e6), "real numbers up to 65,504"),
        (np.full((4, 4), np.nan), "real numbers"),
        (np.ones((4, 4), complex), "real numbers"),
    ],
)
def test_a_weight_that_cannot_be_shown_is_refused(given, told):
    with pytest.raises((ValueError, TypeError), match=told):
        explorer(given)


def test_a_pattern_that_does_not_fit_is_told_in_a_sentence():
    shown = explorer(np.ones((6, 10)), pattern="blocks")
    assert "6 rows, no multiple of 4" in shown.error
    shown.pattern = "nm"
    assert "10 columns, no multiple of 4" in shown.error
    shown.close()


def test_without_a_file_there_is_nothing_of_ones_own():
    shown = explorer(weights="own")
    assert "There is no weight of your own yet" in shown.error
    shown.close()


def test_other_machines_move_the_roof(view):
    view.section = "roofline"
    words = {}
    for machine in ("cpu", "a100", "custom"):
        view.machine = machine
        words[machine] = view.alt_text(view.scene)
    assert len(set(words.values())) == 3 and view.kind == "modelled"


def test_tiles_are_chosen_where_values_have_16_bits_and_move_bytes_and_banks():
    shown = explorer(rows=128, columns=128, sparsity=0.8, value_bits="16", section="step", format="tiled_csl")
    assert {"tile_rows", "tile_columns"} <= {control["key"] for control in shown._panel.controls}
    whole = shown.scene.stored("tiled_csl")
    shown.tile_rows = 16
    small = shown.scene.stored("tiled_csl")
    assert small.bits["pointers"] == 32 * (8 * 2 + 2) and whole.bits["pointers"] == 32 * (2 + 2)
    assert small.steps > whole.steps and shown.error == ""
    means = [each.banks.fullest("plain").mean() for each in (whole, small)]
    assert means[0] != means[1] and f"{means[1]:.2f} at the fullest bank" in shown._panes["banks"].spec
    again = explorer(query=shown.query)
    assert again.alt_text(again.scene) == shown.alt_text(shown.scene)
    again.close()
    shown.value_bits = "8"
    assert "tile_rows" not in {control["key"] for control in shown._panel.controls}
    shown.close()


def test_ceilings_are_those_of_the_values_type_or_the_page_says_whose_they_are(view):
    with view.changes():
        view.section, view.value_bits, view.pattern = "roofline", "8", "any"
    peaks = stored_peaks().ceilings
    for bits, gflops, kind in (("8", 624e3, "8-bit"), ("16", 312e3, "half precision"), ("32", 19.5e3, "float32")):
        view.value_bits = bits
        a100, cpu = view.scene.machines["a100"], view.scene.machines["cpu"]
        assert a100.gflops == gflops and kind in a100.label and kind in a100.origin
        assert (cpu.gflops, cpu.gbps) == (peaks.fma_gflops_f32, peaks.copy_gbps) and "float32" in cpu.label
        told = f"Instructions for {bits}-bit values make more operations"
        assert (told in view._machine_note.value) == (bits != "32")


@pytest.mark.slow
def test_real_layers_are_there(view):
    for key, of in sources().items():
        if not of.missing():
            view.weights = key
            view.wait()
            assert view.error == "" and view.scene.nnz > 0


def test_a_closed_view_is_freed():
    shown = explorer()
    gone = weakref.ref(shown)
    shown.close()
    del shown
    gc.collect()
    assert gone() is None
