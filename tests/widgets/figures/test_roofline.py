"""The roof has its corner at the ridge, and every group of points its own mark and colour."""

import numpy as np

from widgets.figures.roofline import RooflinePoint, RooflineScene, decades, roofline_alt, roofline_figure


def point(group, intensity, speed=1e9):
    return RooflinePoint(group=group, label=f"{group} {intensity}", intensity=intensity, flops_per_s=speed)


SCENE = RooflineScene(
    machine="a machine",
    peak_flops=1e12,
    bandwidth=1e10,
    points=(point("dense", 8, 8e10), point("dense", 200, 9e11), point("sparse", 20, 1e11)),
    kind="modelled",
)


def test_the_roof_rises_to_the_ridge_and_stays():
    roof = roofline_figure(SCENE).data[0]
    np.testing.assert_allclose(roof.x, [1, 100, 1000])
    np.testing.assert_allclose(roof.y, [1e10, 1e12, 1e12])


def test_axes_go_from_one_power_of_ten_to_another_and_label_nothing_between():
    assert decades([8, 20, 200]) == [0, 3]
    assert decades([1.2, 9.0]) == [-1, 2]  # some room beside points at the edge
    layout = roofline_figure(SCENE).layout
    assert (layout.xaxis.range, layout.yaxis.range) == ((0, 3), (10, 13))
    assert layout.xaxis.dtick == layout.yaxis.dtick == 1


def test_groups_are_told_apart_by_more_than_colour():
    _, dense, sparse = roofline_figure(SCENE).data
    assert (dense.name, list(dense.x), list(dense.y)) == ("dense", [8, 200], [8e10, 9e11])
    assert dense.marker.symbol != sparse.marker.symbol and dense.marker.color != sparse.marker.color


def test_axes_say_how_numbers_came_about():
    figure = roofline_figure(SCENE, theme="dark")
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    assert "modelled" in figure.layout.yaxis.title.text and "a machine" in figure.layout.xaxis.title.text


def test_alternative_text_counts_sides():
    assert roofline_alt(SCENE).startswith("Roofline of a machine: 2 of 3 products lie left of the ridge at 100")
