"""Rounding as a method of the pruning explorer: its bits by hand, and the nearest level of every group."""

import numpy as np
import pytest

from workbench.explorers.pruning.budget import solve_budget
from workbench.explorers.pruning.method import Knowledge, method

QUANT = method("quant")


@pytest.mark.parametrize(
    ("shape", "level", "codes", "scales"),
    [
        ((384, 384), "4", 384 * 384 * 4, 384 * 6 * 32),
        ((256, 704), "3", 256 * 704 * 3, 256 * 11 * 32),
        ((8, 48), "2", 8 * 48 * 2, 8 * 3 * 32),  # 16 divides 48 and 64
    ],
)
def test_codes_and_scales_are_counted_whatever_the_bits_of_a_value(shape, level, codes, scales):
    for value_bits in (4, 16):
        assert QUANT.count(shape, level, value_bits) == {"codes": codes, "scales": scales}


@pytest.mark.parametrize("level", ["2", "5", "8"])
def test_every_weight_is_rounded_to_a_level_of_its_group(level, rng):
    """A step is at most the group's range over 2^b - 1, and a little more for scales in half precision."""
    weight = rng.standard_normal((6, 128)).astype(np.float32) * np.repeat([1, 50], 64).astype(np.float32)
    made = QUANT.compress(weight, Knowledge(), level)
    groups, rounded = weight.reshape(6, 2, 64), made.weight.reshape(6, 2, 64)
    step = np.ptp(groups, axis=-1) / (2 ** int(level) - 1)
    assert (np.abs(groups - rounded).max(-1) <= 0.51 * step + 1e-3 * np.abs(groups).max(-1)).all()
    assert all(len(np.unique(row)) <= 2 ** int(level) for row in rounded.reshape(12, 64))
    assert np.abs(groups - rounded).max() > 0.2 * step.min() and made.weight.dtype == np.float32
    assert made.kept is None and made.pack is None and made.multiply_adds == 6 * 128
    assert made.bits == QUANT.count((6, 128), level, 16)


def test_a_budget_finds_the_most_bits_that_fit():
    assert [solve_budget("quant", (384, 384), most) for most in (0.5625, 0.45, 0.35, 0.25)] == ["8", "6", "5", "3"]


@pytest.mark.parametrize("level", ["0", "9", "-4", "0.5", "2:4", ""])
def test_levels_that_are_no_bits_are_refused(level):
    with pytest.raises(ValueError, match="quant: level must be the bits of a code, from 1 to 8"):
        QUANT.count((16, 64), level, 16)
