import numpy as np
import pytest

from workbench.bench import spmm_int8
from workbench.bench.runner import load_peers

LOADED = load_peers(spmm_int8.BENCH)[0]


@pytest.mark.parametrize("kind", ["product", "layer"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_contender_passes_the_check(kind):
    case = spmm_int8._build(kind, (128, 72, 40), 70, 2, LOADED)
    assert {c.name for c in case.contenders} == {"ours", *LOADED}
    for contender in case.contenders:
        case.check(contender.name, contender.run())
    assert case.work == 2 * 4 * case.facts["blocks"] * 40


def test_the_check_of_a_product_is_exact_and_that_of_a_layer_allows_for_the_bytes():
    w, x = spmm_int8.weights(16, 24, 50), spmm_int8._activations("product", 24, 10)
    check, good = spmm_int8._checker("product", w, x), w.astype(np.int32) @ x.astype(np.int32)
    check("ours", good)
    for wrong, told in ((good + 1, "values differ"), (good[:-1], "wanted"), (good * np.nan, "values differ")):
        with pytest.raises(ValueError, match=told):
            check("ours", wrong)
    x = spmm_int8._activations("layer", 24, 10)
    check, good = spmm_int8._checker("layer", w, x), w @ x / 127
    check("ours", good * 1.02)
    for name, wrong in (("ours", good * 1.04), ("torch f32", good * 1.001)):
        with pytest.raises(ValueError, match="values differ"):
            check(name, wrong)


def test_as_many_blocks_are_gone_as_the_case_says():
    w = spmm_int8.weights(768, 768, 90)
    kept = (w.reshape(192, 4, 768) != 0).any(axis=1)
    assert abs(kept.mean() - 0.1) < 0.004  # five standard deviations
    assert w.dtype == np.int8


def test_least_bytes_are_the_operands_and_the_result():
    case = spmm_int8._build("product", (64, 32, 40), 80, 1, [])
    groups = (case.facts["blocks"] + case.facts["padding"]) // 4
    assert case.bytes == groups * (16 + 4 * 2) + 17 * 8 + 32 * 40 + 64 * 40 * 4
    assert spmm_int8._build("layer", (64, 32, 40), 80, 1, []).bytes == case.bytes + 3 * 32 * 40


def test_every_shape_is_run_at_every_sparsity():
    names = [case.name for case in spmm_int8._specs(False, 2, [])]
    assert len(set(names)) == len(names) == 3 * (9 + 4)
    assert len(spmm_int8._specs(True, 2, [])) == 6


def test_bytes_of_a_product_fit_into_signed_ones():
    x = spmm_int8._activations("product", 100, 100)
    assert (x.dtype, int(x.max())) == (np.uint8, 127)
