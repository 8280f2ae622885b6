import numpy as np
import pytest

from workbench.bench import spmm
from workbench.bench.runner import load_peers

LOADED = load_peers(spmm.BENCH)[0]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_every_contender_passes_the_check(dtype, packed):
    case = spmm._build((130, 70, 40), 80, dtype, packed, 2, LOADED)
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


def test_least_bytes_are_the_operands_and_the_result():
    case = spmm._build((130, 70, 40), 80, "f64", True, 1, [])
    pattern = case.facts["nnz"] * (8 + 4) + 131 * 4  # float64 values, int32 indices and 131 row pointers
    assert case.result_bytes == 130 * 40 * 8
    assert case.bytes == pattern + 70 * 40 * 8 + case.result_bytes


def test_every_shape_is_run_at_every_sparsity_in_float32_and_one_in_float64():
    names = [case.name for case in spmm._specs(False, 2, [])]
    assert len(set(names)) == len(names) == 2 * 4 * 6 + 4
    assert sum(name.endswith("/f32/csr") for name in names) == 4 * 6
    assert [name for name in names if name.endswith("f64")] == [f"768x768x256/{s}/f64" for s in (70, 80, 90, 95)]
    assert len(spmm._specs(True, 2, [])) == 12


def test_every_library_gets_the_threads_of_the_bench():
    import torch

    import kernels

    before = kernels.get_num_threads(), torch.get_num_threads()
    try:
        spmm._set_threads(1, LOADED)
        assert (kernels.get_num_threads(), torch.get_num_threads()) == (1, 1)
    finally:
        kernels.set_num_threads(before[0])
        torch.set_num_threads(before[1])
