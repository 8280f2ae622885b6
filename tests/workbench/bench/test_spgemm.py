import numpy as np
import pytest
import scipy.sparse as sp

from workbench.bench import spgemm
from workbench.bench.runner import load_peers
from workbench.data.matrices import erdos_renyi

LOADED = load_peers(spgemm.BENCH)[0]


@pytest.fixture
def pair():
    return erdos_renyi(60, 40, 4, seed=1), erdos_renyi(40, 50, 5, seed=2)


@pytest.mark.parametrize("dtype", ["f64", "f32"])
@pytest.mark.parametrize("is_sorted", [True, False])
def test_every_contender_passes_the_check(pair, dtype, is_sorted):
    case = spgemm._build(lambda: pair, dtype, is_sorted, 2, LOADED)
    assert {c.name for c in case.contenders} == {"ours", *LOADED}
    for contender in case.contenders:
        case.check(contender.name, contender.run())
    products = sum(int(row.sum()) for row in (pair[0] != 0) @ (pair[1] != 0).astype(int).toarray())
    assert case.flops == case.work == 2 * products
    assert case.facts["nnz_c"] == (pair[0] @ pair[1]).nnz


def test_the_check_sees_every_sort_of_wrong_result(pair):
    check, _ = spgemm._checker(*pair, "f64", True)
    good = sp.csr_array(pair[0] @ pair[1])
    good.sort_indices()
    check("x", good)
    swapped = good.copy()
    row = int(np.argmax(np.diff(good.indptr)))
    first = good.indptr[row]
    for array in (swapped.indices, swapped.data):
        array[first], array[first + 1] = array[first + 1], array[first]
    with pytest.raises(ValueError, match="not sorted"):
        check("x", swapped)
    spgemm._checker(*pair, "f64", False)[0]("x", swapped)
    wrong = good.copy()
    wrong.data[3] *= 1 + 1e-6
    with pytest.raises(ValueError, match="values differ"):
        check("x", wrong)
    wrong.data[3] = np.nan
    with pytest.raises(ValueError, match="values differ"):
        check("x", wrong)
    with pytest.raises(ValueError, match="structure differs"):
        check("x", sp.csr_array(good.multiply(good > good.data.min())))
    with pytest.raises(ValueError, match="float32"):
        check("x", good.astype(np.float32))
    with pytest.raises(ValueError, match="wanted"):
        check("x", good[:-1])


def test_the_quick_cases_are_real_inputs_of_the_suite():
    for make in (spgemm.QUICK["poisson2d-300 A*A"], spgemm.SUITE["word-cooccurrence A*A"]):
        a, b = make()
        assert a.shape[1] == b.shape[0] and a.has_canonical_format and b.has_canonical_format
