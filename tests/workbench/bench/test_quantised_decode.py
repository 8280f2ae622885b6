"""The bench of compressed decoding: contenders agree, and a wrong result is seen."""

import numpy as np
import pytest

from workbench.bench import quantised_decode as bench
from workbench.bench.timing import checked


@pytest.fixture
def case(monkeypatch):
    monkeypatch.setattr(bench, "WIDTH", 64)
    monkeypatch.setattr(bench, "QUERIES", 4)
    return bench._build(192, 2, 2, 1, [bench.DENSE, bench.UNPACKED])


def test_all_contenders_pass_their_check(case):
    assert [c.name for c in case.contenders] == ["ours", bench.DENSE, bench.UNPACKED]
    assert checked(case) == {}
    assert case.facts["share of f32 bytes"] < 0.2


def test_a_wrong_result_is_named(case):
    right = case.contenders[0].run()
    for wrong in (right * 1.01, np.where(right > 0, right, np.nan)):
        with pytest.raises(ValueError, match="values differ from float64"):
            case.check("ours", wrong)


def test_specs_hold_the_groups_of_the_goals():
    groups = {spec.group for spec in bench.BENCH.specs(False, 1, [])}
    assert {goal.group for goal in bench.BENCH.goals} <= groups
