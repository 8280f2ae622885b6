import numpy as np
import pytest

from workbench.bench import sddmm, spmm
from workbench.bench.runner import load_peers

LOADED = load_peers(sddmm.BENCH)[0]


@pytest.mark.parametrize("density", sddmm.DENSITIES)
def test_every_contender_passes_the_check(density):
    case = sddmm._build((130, 70, 40), density, 1, LOADED)
    assert {c.name for c in case.contenders} == {"ours", *LOADED}
    for contender in case.contenders:
        case.check(contender.name, contender.run())
    assert case.flops == case.work == 2 * case.facts["nnz"] * 40


def test_the_check_sees_wrong_values_shapes_and_dtypes(rng):
    pattern = spmm.weights(20, 30, 50, "f32")
    x, y = rng.standard_normal((20, 8)).astype(np.float32), rng.standard_normal((30, 8)).astype(np.float32)
    check, good = sddmm._checker(pattern, x, y), (x @ y.T)[pattern.nonzero()]
    check("x", good)
    for wrong, told in ((good * (1 + 1e-4), "values differ"), (good * np.nan, "values differ"), (good[:-1], "wanted")):
        with pytest.raises(ValueError, match=told):
            check("x", wrong.astype(np.float32))
    with pytest.raises(ValueError, match="float64"):
        check("x", good.astype(np.float64))


def test_least_bytes_are_the_pattern_both_operands_and_the_result():
    case = sddmm._build((130, 70, 40), 10, 1, [])
    nnz = case.facts["nnz"]
    assert case.result_bytes == 4 * nnz
    assert case.bytes == 4 * nnz + 131 * 4 + 4 * 40 * (130 + 70) + case.result_bytes


def test_every_shape_is_run_at_every_density():
    names = [case.name for case in sddmm._specs(False, 1, [])]
    assert len(set(names)) == len(names) == 9
    assert len(sddmm._specs(True, 1, [])) == 3
