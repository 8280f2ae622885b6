import numpy as np
import pytest

from workbench.bench import spmm
from workbench.bench.runner import load_peers

LOADED = load_peers(spmm.BENCH)[0]


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_every_contender_passes_the_check(dtype):
    case = spmm._build((130, 70, 40), 80, dtype, 2, LOADED)
    assert {c.name for c in case.contenders} == {"ours", *LOADED}
    for contender in case.contenders:
        case.check(contender.name, contender.run())
    assert case.flops == case.work == 2 * case.facts["nnz"] * 40


def test_the_check_sees_wrong_values_shapes_and_dtypes():
    a, b = spmm.weights(20, 30, 50, "f64"), np.ones((30, 4))
    check, good = spmm._checker(a, b, "f64"), a @ b
    check("x", good)
    for wrong, told in ((good * (1 + 1e-9), "values differ"), (good * np.nan, "values differ"), (good[:-1], "wanted")):
        with pytest.raises(ValueError, match=told):
            check("x", wrong)
    with pytest.raises(ValueError, match="float32"):
        check("x", good.astype(np.float32))


def test_as_many_weights_are_gone_as_the_case_says():
    a = spmm.weights(768, 768, 90, "f32")
    assert abs(a.nnz / 768**2 - 0.1) < 0.002  # five standard deviations
    assert a.has_canonical_format
