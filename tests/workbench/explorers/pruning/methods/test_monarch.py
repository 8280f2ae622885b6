"""Monarch as a method of the pruning explorer: its size by hand, its nearest matrix, its kernel."""

import numpy as np
import pytest

from kernels.transforms.monarch import monarch_project_reference
from workbench.explorers.pruning.budget import solve_budget
from workbench.explorers.pruning.method import Knowledge, method

MONARCH = method("monarch")


@pytest.mark.parametrize(
    ("shape", "level", "numbers"),
    [
        ((384, 384), "4", 73_728),  # two factors of 4 blocks of 96 x 96
        ((1536, 384), "4", 184_320),
        ((384, 384), "8", 8 * 6 * 768),
        ((384, 384), "16", 16 * 768),
    ],
)
def test_size_is_that_of_the_papers_layer(shape, level, numbers):
    assert MONARCH.count(shape, level, 16) == {"dense factors": 16 * numbers}


@pytest.mark.parametrize("level", ["2", "4"])
def test_weight_is_the_nearest_one_and_the_kernel_multiplies_with_it(level, rng, assert_close):
    weight = rng.standard_normal((16, 48)).astype(np.float32)
    made = MONARCH.compress(weight, Knowledge(), level)
    blocks = int(level)
    assert_close(made.weight, monarch_project_reference(weight, blocks, blocks, 16 // blocks**2).astype(np.float32))
    product, size = made.pack()
    x = rng.standard_normal((48, 5)).astype(np.float32)
    assert_close(product(x), made.weight @ x)
    assert product(x).flags.c_contiguous
    assert size == 4 * made.multiply_adds == made.bits["dense factors"] // 4


def test_a_budget_finds_the_most_numbers_that_fit():
    assert solve_budget("monarch", (384, 384), 0.5) == "4"
    assert solve_budget("monarch", (384, 384), 0.3) == "8"


@pytest.mark.parametrize("level", ["5", "0", "-4", "2:4", "0.5", ""])
def test_levels_that_are_no_number_of_blocks_are_refused(level):
    with pytest.raises(ValueError, match="monarch: level must be a number of blocks that divides 16 and 48"):
        MONARCH.count((16, 48), level, 16)
