import numpy as np
import pytest

from workbench.bench import nm_spmm, skinny_spmm, spmm
from workbench.bench.runner import load_peers

LOADED = load_peers(skinny_spmm.BENCH)[0]
BUILD = {
    "skinny": lambda loaded: skinny_spmm._build((130, 70), 5, 80, 1, loaded),
    "2:4": lambda loaded: nm_spmm._build((130, 72), 5, (2, 4), 1, loaded),
}


@pytest.mark.parametrize("kind", BUILD)
def test_every_contender_passes_the_check(kind):
    case = BUILD[kind](LOADED)
    assert {c.name for c in case.contenders} == {"ours", *LOADED}
    for contender in case.contenders:
        case.check(contender.name, contender.run())
    assert case.flops == case.work == 2 * case.facts["nnz"] * 5


def test_the_check_allows_each_precision_its_own_error():
    a, b = spmm.weights(20, 30, 50, "f32"), np.ones((30, 4), np.float32)
    check, good = skinny_spmm.checker(a, b), a @ b
    check("ours", good)
    check(skinny_spmm.BF16, good * np.float32(1.005))
    for name, wrong in (("ours", good * np.float32(1.005)), (skinny_spmm.BF16, good * np.float32(1.05))):
        with pytest.raises(ValueError, match="values differ"):
            check(name, wrong)
    for wrong in (good[:-1], good.astype(np.float64)):
        with pytest.raises(ValueError, match="wanted"):
            check("ours", wrong)


def test_least_bytes_are_the_packed_weights_and_the_dense_operands():
    nm = BUILD["2:4"]([])
    assert nm.bytes == 130 * 36 * 5 + 4 * 5 * (72 + 130)
    assert nm.facts["nnz"] == 130 * 36
    skinny = BUILD["skinny"]([])
    words = skinny.bytes - 4 * 5 * (70 + 130) - 4 * (2 + 2)  # two tiles of 128 rows
    assert 0 <= words - 4 * skinny.facts["nnz"] < 2 * 16  # at most three words fill up a tile
    assert skinny.result_bytes == 130 * 5 * 4


def test_the_largest_of_every_group_stay():
    w, whole = nm_spmm.weights(6, 40, 1, 4).reshape(-1, 4), nm_spmm.weights(6, 40, 4, 4).reshape(-1, 4)
    assert (np.count_nonzero(w, axis=1) == 1).all()
    np.testing.assert_array_equal(np.abs(w).max(1), np.abs(whole).max(1))


def test_cases_cover_every_shape():
    for bench, whole, quick in ((skinny_spmm, 3 * 4 * 4, 12), (nm_spmm, 2 * 5 * 3 + 3 * 5, 9)):
        names = [case.name for case in bench._specs(False, 2, [])]
        assert len(set(names)) == len(names) == whole
        assert len(bench._specs(True, 2, [])) == quick
        groups = {case.group for case in bench._specs(False, 2, [])}
        assert {goal.group for goal in bench.BENCH.goals} <= groups
