"""Budgets of entries: the schedule's numbers, and sharing out by hand-worked cases and properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.models.fine_tuning.budget import allocate_budget, cubic_budget, cubic_share


def test_the_schedule_by_hand():
    found = [cubic_budget(t, 10, 192, 0.2 * 192) for t in range(11)]
    assert found == [192, 150, 117, 91, 71, 57, 48, 42, 39, 38, 38]
    held = [cubic_share(t, 10, 192, 38.4, t_i=2, t_f=3) for t in (0, 2, 3, 7, 8, 10)]
    np.testing.assert_allclose(held, [192, 192, 38.4 + 153.6 * 0.8**3, 38.4, 38.4, 38.4])
    sparsity = [cubic_share(t, 100, 0.0, 0.9, t_i=10, t_f=30) for t in (0, 10, 11, 20, 40, 55, 70, 100)]
    np.testing.assert_allclose(sparsity, [0, 0, 0.044254, 0.379167, 0.7875, 0.885938, 0.9, 0.9], atol=1e-6)
    for wrong in ({"t": 11}, {"t": -1}, {"t_i": 5, "t_f": 5}):
        with pytest.raises(ValueError, match="cubic_share: "):
            cubic_share(**({"t": 3, "T": 10, "begin": 0, "end": 1} | wrong))


@pytest.mark.parametrize(("p", "v", "cut", "exact"), [
    ([0.7, 0.2, 0.1], 150, [100, 33, 16], [100, 33, 17]), ([0.9, 0.05, 0.05], 250, [100, 75, 75], [100, 75, 75]),
    ([0.5, 0.3, 0.2], 60, [30, 18, 12], [30, 18, 12]), ([0, 0, 0], 30, [10, 10, 10], [10, 10, 10]),
    ([1, 0, 0], 150, [100, 25, 25], [100, 25, 25]), ([1, 1, 1], 0, [0, 0, 0], [0, 0, 0]),
])  # fmt: skip
def test_sharing_out_by_hand(p, v, cut, exact):
    assert allocate_budget(p, v, [100] * 3, rounding="truncate").tolist() == cut
    assert allocate_budget(p, v, [100] * 3).tolist() == exact


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 10**10)), min_size=1, max_size=8), st.floats(0, 1))
def test_what_always_holds(layers, share):
    p, caps = (list(each) for each in zip(*layers, strict=True))
    v = int(share * sum(caps))
    found = allocate_budget(p, v, caps)
    assert found.sum() == v and (found >= 0).all() and (found <= caps).all()
    assert allocate_budget(p, sum(caps), caps).tolist() == caps
    assert (allocate_budget(p, v, caps, rounding="truncate") <= found).all()


def test_scores_count_by_their_ratios_and_more_budget_takes_nothing_away():
    p, caps = np.array([0.5, 2.0, 1.0]), [50, 60, 70]
    assert (allocate_budget(p, 90, caps) == allocate_budget(8 * p, 90, caps)).all()
    before = np.zeros(3)
    for v in range(0, 181, 5):
        now = allocate_budget(p, v, caps)
        assert (now >= before - 1).all()
        before = now
    assert np.ptp(allocate_budget([1, 1, 1], 50, [40] * 3)) <= 1


@pytest.mark.parametrize("wrong", [
    {"v": 301}, {"v": -1}, {"p": [1, -1, 1]}, {"p": [1, np.nan, 1]}, {"p": [1, 1]}, {"rounding": "up"},
])  # fmt: skip
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError, match="allocate_budget: "):
        allocate_budget(**({"p": [1, 1, 1], "v": 10, "caps": [100] * 3} | wrong))
