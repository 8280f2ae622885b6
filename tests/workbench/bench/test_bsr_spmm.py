import numpy as np
import pytest

from workbench.bench import bsr_spmm
from workbench.bench.runner import load_peers

LOADED = load_peers(bsr_spmm.BENCH)[0]


@pytest.mark.parametrize("block", bsr_spmm.BLOCKS)
def test_every_contender_passes_the_check(block):
    case = bsr_spmm._build((128, 96, 40), block, 80, 2, LOADED)
    assert {c.name for c in case.contenders} == {"ours", *LOADED}
    for contender in case.contenders:
        case.check(contender.name, contender.run())
    assert case.flops == case.work == 2 * case.facts["blocks"] * block[0] * block[1] * 40


def test_the_check_sees_wrong_values_shapes_and_dtypes():
    a, b = bsr_spmm.weights(32, 32, (4, 4), 50), np.ones((32, 4), np.float32)
    check, good = bsr_spmm._checker(a, b), (a @ b).astype(np.float32)
    check("x", good)
    for wrong, told in ((good * 1.001, "values differ"), (good * np.nan, "values differ"), (good[:-1], "wanted")):
        with pytest.raises(ValueError, match=told):
            check("x", wrong)
    with pytest.raises(ValueError, match="float32"):
        check("x", good.astype(np.float64))


def test_as_many_blocks_are_gone_as_the_case_says():
    a = bsr_spmm.weights(768, 768, (4, 1), 90)
    assert a.blocksize == (4, 1)
    assert abs(len(a.indices) / (192 * 768) - 0.1) < 0.004  # five standard deviations


def test_least_bytes_are_the_operands_and_the_result():
    case = bsr_spmm._build((64, 32, 40), (4, 4), 80, 1, [])
    stored = case.facts["blocks"] * (16 * 4 + 4) + 17 * 4  # float32 values, int32 indices and 17 row pointers
    assert case.bytes == stored + 32 * 40 * 4 + 64 * 40 * 4


def test_every_shape_is_run_with_every_block():
    names = [case.name for case in bsr_spmm._specs(False, 2, [])]
    assert len(set(names)) == len(names) == 2 * 5 * 3
    assert len(bsr_spmm._specs(True, 2, [])) == 10
