"""The bench of block-diagonal products: its contenders agree, and a wrong result is noticed."""

import numpy as np
import pytest

from workbench.bench.block_diagonal import BENCH, CONTENDERS
from workbench.bench.timing import checked


@pytest.mark.parametrize("name", ["one/384/4/1", "one/1024/32/32", "two/384/4/32", "two/1024/32/1"])
def test_contenders_give_the_same_product(name):
    (spec,) = [spec for spec in BENCH.specs(True, 1, list(CONTENDERS)) if spec.name == name]
    case = spec.build()
    assert checked(case) == {}
    assert {c.name for c in case.contenders} == {"ours", *CONTENDERS}
    factors, (_, n, count, rows) = (1 if name.startswith("one") else 2), name.split("/")
    assert case.flops == 2 * factors * int(rows) * int(n) ** 2 / int(count)
    right = case.contenders[0].run()
    with pytest.raises(ValueError, match="values differ from float64"):
        case.check("ours", right + np.float32(0.1))
    with pytest.raises(ValueError, match="result is"):
        case.check("ours", right.astype(np.float64))


def test_every_goal_has_its_group():
    assert {goal.group for goal in BENCH.goals} == {spec.group for spec in BENCH.specs(True, 1, [])}
