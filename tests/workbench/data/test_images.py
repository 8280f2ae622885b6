"""Pictures: real ones, patches that average, features on one scale, a fixed split of the digits."""

import numpy as np
import pytest

from workbench.data.images import FEATURES, PICTURES, digits, patch_features, patches, picture


@pytest.mark.parametrize("name", PICTURES)
def test_photographs_are_there(name):
    rgb = picture(name)
    assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.std() > 20


def test_patches_keep_the_mean_of_the_middle_square(rng):
    rgb = rng.integers(0, 256, (10, 13, 3), np.uint8)
    cut = patches(rgb, 5)
    assert cut.shape == (5, 5, 4, 3)
    np.testing.assert_allclose(cut.mean((0, 1, 2)), rgb[:, 1:11].mean((0, 1)) / 255, rtol=1e-5)
    np.testing.assert_allclose(cut[1, 2, :, 0], rgb[2:4, 5:7, 0].ravel() / 255, rtol=1e-6)
    with pytest.raises(ValueError, match="from 1 to 10"):
        patches(rgb, 11)


def test_features_are_on_one_scale():
    found = patch_features(picture("coffee"), 20)
    assert found.shape == (400, len(FEATURES)) and found.dtype == np.float32
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(0), 1, atol=1e-4)


def test_digits_are_split_once_and_for_all():
    (x, y), (z, w) = digits()
    assert x.shape == (1437, 8, 8) and z.shape == (360, 8, 8) and len(y) == 1437 and len(w) == 360
    assert x.min() >= 0 and x.max() == 1 and set(w) == set(range(10))


def test_an_unknown_picture_is_named():
    with pytest.raises(ValueError, match="astronaut, coffee, chelsea"):
        picture("lena")
