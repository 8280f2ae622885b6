"""Figures and words of layer densities: every number drawn is the scene's, and what is missing is a sentence."""

from dataclasses import replace

import numpy as np
import pytest

from widgets.figures.layer_density import (
    AccuracyPoint,
    DensityScene,
    density_figure,
    kept_figure,
    network_figure,
    points_figure,
)
from widgets.figures.layer_density_mask import SHADES, mask_picture, stored, three_masks
from widgets.figures.layer_density_words import (
    density_words,
    group_columns,
    headline,
    kept_words,
    layer_columns,
    mask_words,
    network_words,
    point_columns,
    points_words,
    triptych_html,
)
from widgets.figures.sentence import sentence_of


@pytest.fixture
def scene(rng):
    masks = tuple(rng.random(shape) < share for shape, share in (((6, 3, 9), 0.5), ((6, 1, 9), 0.4), ((4, 6, 1), 0.25)))
    points = (
        AccuracyPoint(
            name="SynFlow", density=0.1, accuracy=0.9, low=0.8, high=1.0, parameters=50, time_ms=2.0, seeds=3
        ),
        AccuracyPoint(name="cropped", density=0.1, accuracy=1.0, low=1.0, high=1.0, parameters=45, here=True),
    )
    return DensityScene(
        title="A net", scored="pruning by chance", names=("a", "b", "c"), masks=masks, once=np.array([20, 0, 3]),
        rounds=7, channels=np.array([[3, 6], [6, 6], [6, 4]]), cropped=np.array([[3, 2], [2, 2], [2, 4]]),
        groups=(("a", 6, 2, True),), level=33.0, budget=100.0, used=98.0, unit="weights", points=points,
        recorded="here",
    )  # fmt: skip


def test_sizes_follow_from_the_masks_and_a_depthwise_layer_grows_with_one_group(scene):
    assert scene.sizes.tolist() == [162, 54, 24] and scene.kept.tolist() == [int(m.sum()) for m in scene.masks]
    assert scene.cropped_sizes.tolist() == [9 * 3 * 2, 9 * 2, 2 * 4]
    assert scene.place("b") == 1 and scene.place("nothing") == 0


def test_bars_are_densities_and_boxes_the_cropped_shares(scene):
    bars, boxes = density_figure(scene, "b").data
    np.testing.assert_allclose(bars.x, scene.kept / scene.sizes)
    np.testing.assert_allclose(boxes.x, [54 / 162, 18 / 54, 8 / 24])
    assert list(bars.y) == ["a", "<b>b</b>", "c"] and not any(bars.text)
    lost = replace(scene, masks=(scene.masks[0], scene.masks[1] & False, scene.masks[2]))
    assert list(density_figure(lost).data[0].text) == ["", "nothing stays", ""]
    assert "1 layer keeps nothing" in headline(lost) and "keep" not in headline(scene).partition("layer.")[2]


def test_the_water_stands_at_the_level_or_at_the_size(scene):
    once, kept, water = kept_figure(scene).data
    assert list(water.x) == [33, 33, 24] and list(kept.customdata) == scene.kept.tolist()
    assert list(once.customdata) == [20, 0, 3] and np.isnan(once.x[1])
    assert len(kept_figure(replace(scene, rounds=1)).data) == 2
    assert "After one round 1 layer would keep nothing, after 7 rounds no layers" in kept_words(scene)


def test_boxes_of_the_network_are_as_wide_and_high_as_the_channels(scene):
    figure = network_figure(scene)
    for i in range(3):
        before, after = figure.data[2 * i : 2 * i + 2]
        for axis, side in (("x", 0), ("y", 1)):
            spans = [np.ptp(getattr(trace, axis)) for trace in (before, after)]
            logs = [np.log2(channels[i, side] + 1) for channels in (scene.channels, scene.cropped)]
            assert spans[1] / spans[0] == pytest.approx(logs[1] / logs[0])
    assert dict(zip(figure.layout.yaxis.ticktext, figure.layout.yaxis.tickvals, strict=True))["1"] == 1.0
    assert "a 6 to 2" in network_words(scene)


def test_points_stand_at_their_error_over_weights_or_time(scene):
    first, second = points_figure(scene, "parameters").data
    assert first.x[0] == 50 and first.y[0] == pytest.approx(0.1) and second.y[0] == 1e-3  # none missed: the least drawn
    assert first.error_y.array[0] == pytest.approx(0.1) and first.error_y.arrayminus[0] == pytest.approx(0.099)
    assert second.marker.size[0] > first.marker.size[0]
    (timed,) = points_figure(scene, "time").data
    assert timed.x[0] == 2.0 and "cropped" not in points_words(scene, "time")
    assert "(trained here)" in points_words(scene, "parameters")
    assert "Train one" in sentence_of(points_figure(replace(scene, points=()), "time"))


def test_where_nothing_is_cropped_it_is_told(scene):
    refused = replace(scene, refused="It is infeasible.")
    assert "It is infeasible." in sentence_of(network_figure(refused)) and len(density_figure(refused).data) == 1
    assert "Nothing is cropped" in headline(refused) and "cropped" not in density_words(refused)
    assert not three_masks(refused, "a", 0)["cropped"].any() and "inputs, cropped" not in layer_columns(refused)
    assert "It is infeasible." in mask_words(refused, "a", "cropped", scene.masks[0])


def test_three_masks_keep_as_many_places_or_whole_channels(scene):
    masks = three_masks(scene, "a", 5)
    assert masks["shuffled"].sum() == masks["scored"].sum() and not np.array_equal(masks["shuffled"], masks["scored"])
    assert np.array_equal(masks["shuffled"], three_masks(scene, "a", 5)["shuffled"])
    assert not np.array_equal(masks["shuffled"], three_masks(scene, "a", 6)["shuffled"])
    assert stored(masks["cropped"]) == (2, 3) and masks["cropped"][:2].all() and not masks["cropped"][2:].any()
    assert three_masks(scene, "b", 0)["cropped"].sum() == 18  # depthwise: one input a channel
    html = triptych_html(scene, "a", masks)
    assert "accuracy" not in html
    told = triptych_html(replace(scene, outcomes={"scored": scene.points[0], "cropped": scene.points[1]}), "a", masks)
    assert "<td>0.900</td><td>2</td>" in told and "<td>1.000</td><td></td>" in told and "density 0.1" in told
    assert "<td>54</td><td>54</td>" in html and f"<td>{int(masks['scored'].sum()):,}</td>" in html


def test_cells_are_shares_of_the_kernel_and_large_layers_are_drawn_by_blocks():
    mask = np.zeros((2, 2, 9), bool)
    mask[0, 0, :1], mask[1, 1] = True, True
    picture = mask_picture(mask, "t", "w")
    assert picture["cells"].tolist() == [[1, 0], [0, SHADES]] and len(picture["palette"]) == SHADES + 1
    large = np.zeros((600, 300, 1), bool)
    large[:3, :3] = True
    cells = mask_picture(large, "t", "w")["cells"]
    assert cells.shape == (200, 100) and cells[0, 0] == SHADES and cells[1:].sum() == 0


def test_columns_are_plain_and_as_long_as_the_layers(scene):
    for columns, rows in ((layer_columns(scene), 3), (group_columns(scene), 1), (point_columns(scene), 2)):
        assert {len(column) for column in columns.values()} == {rows}
    assert np.isnan(point_columns(scene)["time (ms)"][1]) and group_columns(scene)["residual stream"][0] == "yes"
