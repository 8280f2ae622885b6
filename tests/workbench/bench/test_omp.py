import numpy as np
import pytest

from workbench.bench import ksvd, omp
from workbench.bench.runner import load_peers


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("bench", [omp, ksvd], ids=["omp", "ksvd"])
def test_every_contender_passes_the_check(bench, dtype):
    loaded = load_peers(bench.BENCH)[0]
    case = bench._build(20, 16, 30, 5, dtype, 2, loaded)
    assert {c.name for c in case.contenders} == {"ours", *loaded}
    for contender in case.contenders:
        case.check(contender.name, contender.run())
    assert case.facts == {"d": 20, "k": 16, "n": 30, "s": 5} and case.flops > 0


def test_the_checks_see_wrong_codes():
    atoms, y = omp.problem(12, 8, 9, "f64")
    good = omp.load_sklearn()(atoms.T @ atoms, atoms.T @ y, n_nonzero_coefs=3)
    check = omp._checker(atoms, y, 3)
    check("x", good)
    for wrong, told in ((good[:, :5], "must be 8 x 9"), (np.ones((8, 9)), "at most 3"), (1.1 * good, "leave")):
        with pytest.raises(ValueError, match=told):
            check("x", wrong)
    with pytest.raises(ValueError, match="the round leaves"):
        ksvd._checker(atoms, y, 3)("x", (atoms, good))


def test_layers_and_a_block_are_run():
    names = ["384x256x1536/128", "384x158x384/79", "32x48x384/12"]
    for bench in (omp, ksvd):
        assert [case.name for case in bench._specs(False, 2, [])] == [f"{x}/{t}" for t in ("f32", "f64") for x in names]
        assert len(bench._specs(True, 2, [])) == 2
