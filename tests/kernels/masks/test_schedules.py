import itertools
from math import sqrt

import pytest

from kernels.masks.schedules import SCHEDULES, scheduled_sparsity


def test_by_hand():
    halfway = {name: scheduled_sparsity(5, 10, 0.75, schedule=name) for name in SCHEDULES}
    assert halfway == pytest.approx(
        {"exp": 0.5, "cos": 0.75 * (1 - sqrt(0.5)), "linear": 0.375, "cube": 0.09375, "cubic": 0.65625}
    )
    assert scheduled_sparsity(5, 10, 0.75) == 0.5  # exp
    # a cubic ramp over 60 steps of 100 that begins at step 10, as in parameter-efficient sparse training
    wanted = {1: 0.044254, 10: 0.379167, 30: 0.7875, 45: 0.885938}
    assert {t: round(scheduled_sparsity(t, 60, 0.9, schedule="cubic"), 6) for t in wanted} == wanted


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("final", [0.0, 0.3, 0.9, 1.0])
def test_ends_are_exact_and_it_never_falls(schedule, final):
    values = [scheduled_sparsity(step, 7, final, schedule=schedule) for step in range(10)]
    assert values[0] == 0 and values[7:] == [final] * 3
    assert values == sorted(values)
    assert scheduled_sparsity(1, 1, final, schedule=schedule) == final


def test_exp_removes_the_same_share_of_what_is_left():
    left = [1 - scheduled_sparsity(step, 4, 0.9984) for step in range(5)]
    assert [b / a for a, b in itertools.pairwise(left)] == pytest.approx([0.2] * 4)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="steps must be an int of at least 1"):
        scheduled_sparsity(0, 0, 0.5)
    with pytest.raises(ValueError, match="step must be an int of at least 0"):
        scheduled_sparsity(-1, 3, 0.5)
    with pytest.raises(ValueError, match="final must be a finite number from 0 to 1"):
        scheduled_sparsity(1, 3, 1.5)
    with pytest.raises(ValueError, match="schedule must be one of exp, cos, linear, cube, cubic"):
        scheduled_sparsity(1, 3, 0.5, schedule="step")
