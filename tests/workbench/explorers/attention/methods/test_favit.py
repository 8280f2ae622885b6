"""FaViT on the explorer's pictures: photographs in patches, and maps that follow the settings."""

import numpy as np
import pytest

from workbench.explorers.attention.method import methods
from workbench.explorers.attention.source import PICTURE_SIDE, load_input
from workbench.models.attention.pixel_readings import pixel_readings

METHOD = methods()["favit"]
SETTINGS = {knob.key: knob.default for knob in METHOD.knobs}
ROW, COLUMN = 10, 40


@pytest.fixture(scope="module")
def coffee():
    return load_input("coffee")


def maps(given, **settings):
    s = SETTINGS | settings
    return METHOD.query(given, METHOD.trace(given, s))(ROW * PICTURE_SIDE + COLUMN, s)


def test_a_picture_is_a_photograph_in_patches(coffee):
    assert coffee.picture.shape == (PICTURE_SIDE, PICTURE_SIDE, 3)
    assert coffee.q.shape == (1, 1, PICTURE_SIDE**2, 8) and coffee.grid == (PICTURE_SIDE, PICTURE_SIDE)
    assert np.corrcoef(coffee.picture[..., 0].ravel(), coffee.q[0, 0, :, 0])[0, 1] > 0.999


def test_the_view_shows_the_readings_that_its_settings_ask_for(coffee):
    found = maps(coffee, window=5, dilation=4, square=4)
    wanted = pixel_readings(coffee.q[0, 0].numpy(), PICTURE_SIDE, PICTURE_SIDE, found.row, window=5, dilation=4, sr=4)
    assert list(found.maps) == [reading.name for reading in wanted]
    for reading in wanted:
        np.testing.assert_allclose(found.maps[reading.name], reading.heat, atol=1e-6)
        assert found.keys_met[reading.name] == reading.keys
        assert found.reach[reading.name] == reading.reached.mean()


def test_settings_reach_the_readings(coffee):
    found = maps(coffee, window=5, dilation=4, square=8)
    names = list(found.maps)
    full, window, fine, coarse, summary = names
    assert [found.keys_met[name] for name in names] == [3136, 25, 25, 25, 49]
    inside = np.zeros((PICTURE_SIDE, PICTURE_SIDE), bool)
    inside[10:15, 40:45] = True
    shown = found.maps[window].reshape(inside.shape)
    assert (shown[inside] > 0).all() and (shown[~inside] == 0).all()
    assert found.reach[fine] == 1 and found.reach[coarse] < 0.2 and "dilation 4" in coarse
    assert found.reach[full] == found.reach[summary] == 1


def test_published_reach_of_the_first_stage(coffee):
    coarse = maps(coffee).maps["FaSA, dilation 8"].reshape(PICTURE_SIDE, PICTURE_SIDE) > 0
    assert coarse.any(1).sum() == coarse.any(0).sum() == 14  # of 56 rows and columns
