import numpy as np
import pytest

from workbench.bench import selected_adamw
from workbench.bench.runner import load_peers

LOADED = load_peers(selected_adamw.BENCH)[0]


@pytest.mark.parametrize(("m", "n", "density"), [(30, 40, 0.1), (7, 5, 0.5)])
def test_every_contender_passes_the_check_and_they_stay_together(m, n, density):
    case = selected_adamw._build(m, n, density, 2, LOADED)
    assert {c.name for c in case.contenders} == {"ours", *LOADED}
    results = {}
    for contender in case.contenders:
        case.check(contender.name, contender.run())
        for _ in range(4):
            results[contender.name] = contender.run()
    for name in LOADED:
        np.testing.assert_allclose(results[name], results["ours"], atol=1e-5)
    assert case.facts["entries"] == round(density * m * n) == case.work


def test_the_check_sees_wrong_results():
    weights, gradients, index = selected_adamw.draw(6, 5, 0.3)
    assert np.abs(weights.reshape(-1)[index]).max() <= np.delete(np.abs(weights).reshape(-1), index).min()
    check = selected_adamw._checker(weights, gradients, index)
    good = selected_adamw._ours(weights, gradients, index)()
    check("ours", good)
    with pytest.raises(ValueError, match="wanted"):
        check("x", good.astype(float))
    with pytest.raises(ValueError, match="differ from float64"):
        check("x", weights)
    moved = good.copy()
    moved.reshape(-1)[np.delete(np.arange(30), index)[0]] += 1e-7
    with pytest.raises(ValueError, match="not chosen has moved"):
        check("x", moved)


def test_sizes_and_densities_are_run():
    quick, whole = (selected_adamw._specs(quick, 2, []) for quick in (True, False))
    assert [case.name for case in quick] == ["512x2048/0.02", "512x2048/0.1", "512x2048/0.2"]
    assert len(whole) == 9 and {goal.group for goal in selected_adamw.BENCH.goals} == {case.group for case in whole}
