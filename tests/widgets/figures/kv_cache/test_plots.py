"""Plots and words of a cache small enough to be counted on paper."""

from dataclasses import replace

import numpy as np
import pytest

from widgets.figures.kv_cache.plots import (
    bytes_figure,
    channel_figure,
    drift_figure,
    spectrum_figure,
    timeline_figure,
)
from widgets.figures.kv_cache.scene import METHODS, PARTS, CacheScene, Drift
from widgets.figures.kv_cache.words import (
    bytes_columns,
    corrections_columns,
    drift_columns,
    drift_words,
    headline,
    picture_columns,
    picture_words,
    spectrum_words,
    timeline_words,
)
from widgets.figures.sentence import sentence_of


@pytest.fixture
def scene():
    exact = np.array([[1, 2], [3, -40], [5, 6]], np.float32)
    sparse = np.where(np.abs(exact) > 30, exact, 0).astype(np.float32)
    low = np.full((3, 2), 0.25, np.float32)
    levels = np.array([[1, 2], [2.5, 0], [5, 5]], np.float32)
    held = {method: dict.fromkeys(PARTS, 10 * (i + 1)) for i, method in enumerate(METHODS)}
    return CacheScene(
        title="A cache", what="keys", kind="counted", head=0, channel=1, bits=2, rank=1, buffer=4, prompt=9,
        exact=exact, levels=levels, low_rank=low, sparse=sparse, rest=exact - levels - low - sparse,
        spectrum=np.array([4.0, 3.0]), before=exact[:, 1], after=np.array([2, 4, 6], np.float32),
        steps=(np.linspace(-40, 6, 4), np.linspace(2, 6, 4)),
        errors=dict(zip(METHODS, (0.4, 0.3, 0.2, 0.1), strict=True)), bytes=held, plain_bytes=400,
        drift=Drift(
            tokens=np.array([10, 20]), error={m: np.array([0.1, 0.2]) * (i + 1) for i, m in enumerate(METHODS)}
        ),
    )  # fmt: skip


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_first_singular_values_are_drawn_apart_and_their_energy_is_told(scene, theme):
    figure = spectrum_figure(scene, theme)
    colours = figure.data[0].marker.color
    assert colours[0] != colours[1] and "64%" in figure.layout.title.text  # 16 of 25
    assert "64.0%" in spectrum_words(scene)
    assert "no error" in sentence_of(spectrum_figure(replace(scene, spectrum=np.zeros(2)), theme))


def test_the_channel_shows_both_ranges_and_both_sets_of_levels(scene):
    figure = channel_figure(scene)
    assert [trace.name for trace in figure.data] == ["all entries", "without outliers", "levels of all",
                                                    "levels without outliers"]  # fmt: skip
    assert sum(figure.data[0].y) == 3 and sum(figure.data[1].y) == 3
    assert "range 46, without its outliers 4" in figure.layout.title.text
    np.testing.assert_array_equal(figure.data[3].x, scene.steps[1])


def test_bytes_are_stacked_by_part_with_their_share(scene):
    figure = bytes_figure(scene)
    assert [trace.x for trace in figure.data[: len(PARTS)]] == [(10, 20, 30, 40)] * len(PARTS)
    assert figure.data[-1].text[-1].strip() == "200 B, 50.0%"
    columns = bytes_columns(scene)
    assert columns["total (B)"].tolist() == [50, 100, 150, 200]
    assert columns["relative error of the head"].tolist() == [0.4, 0.3, 0.2, 0.1]


HELD = {0: (0, 0, 0), 3: (0, 0, 3), 4: (4, 0, 0), 9: (8, 0, 1), 12: (8, 1, 0), 22: (8, 3, 2)}


@pytest.mark.parametrize(("tokens", "held"), HELD.items())
def test_the_timeline_follows_the_rule_of_the_buffer(scene, tokens, held):
    assert scene.held(tokens) == held
    figure = timeline_figure(replace(scene, exact=np.zeros((30, 2), np.float32)), tokens)
    assert sum(trace.x[0] for trace in figure.data) == tokens
    assert f"{held[2]} of 4 in the buffer" in figure.layout.title.text and f"{held[2]} in the buffer" in timeline_words(
        scene, tokens
    )


def test_the_error_of_decoding_has_one_curve_a_method_or_a_sentence(scene):
    assert [trace.y[-1] for trace in drift_figure(scene).data] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert "quantiser alone 0.1 to 0.2" in drift_words(scene)
    assert drift_columns(scene)["with both"].tolist() == pytest.approx([0.4, 0.8])
    none = replace(scene, drift=Drift(tokens=np.zeros(0, int), error=dict.fromkeys(METHODS, np.zeros(0))))
    assert "shorten the prompt" in sentence_of(drift_figure(none)) and "No token" in drift_words(none)


def test_words_name_sizes_and_tables_hold_every_entry(scene):
    assert "1 entries" in picture_words(scene, "sparse") and "3 tokens by 2 channels" in picture_words(scene, "exact")
    assert "40.0% off" in headline(scene) and "10.0%" in headline(scene) and "50.0% of the bytes" in headline(scene)
    columns = picture_columns(scene)
    total = sum(columns[name] for name in ("levels", "low rank", "sparse", "rest"))
    np.testing.assert_allclose(total, columns["exact"], rtol=1e-6)
    assert columns["token"].tolist() == [0, 0, 1, 1, 2, 2]
    corrections = corrections_columns(scene)
    assert corrections["singular value"][:2].tolist() == [4, 3] and np.isnan(corrections["singular value"][2])
