import doctest

import numpy as np
import pytest
import scipy.sparse as sp

from kernels.matmul import dataflow as module
from kernels.matmul.dataflow import dataflow_steps, dataflow_steps_reference, output_births
from kernels.matmul.dataflow_order import DATAFLOWS, dataflow_order, products_between


def random_pair(seed, shape=(7, 9, 5), density=0.3, index_dtype=np.int32):
    rng = np.random.default_rng(seed)
    m, k, n = shape
    pair = []
    for rows, cols in ((m, k), (k, n)):
        dense = rng.integers(1, 10, (rows, cols)) * (rng.random((rows, cols)) < density)
        matrix = sp.csr_array(dense.astype(np.float64))
        matrix.indices, matrix.indptr = matrix.indices.astype(index_dtype), matrix.indptr.astype(index_dtype)
        pair.append(matrix)
    return pair


def listed(steps):
    merged = steps.merged.astype(bool)
    columns = (steps.i, steps.k, steps.j, steps.product, merged, steps.live)
    return [tuple(x.item() for x in row) for row in zip(*columns, strict=True)]


def test_worked_example_is_the_doctest():
    result = doctest.testmod(module)
    assert result.attempted >= 5
    assert result.failed == 0


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", [(7, 9, 5), (1, 1, 1), (12, 3, 17), (4, 20, 1)])
def test_every_product_in_order(dataflow, seed, shape):
    a, b = random_pair(seed, shape, index_dtype=(np.int32, np.int64)[seed % 2])
    steps = dataflow_steps(a, b, dataflow)
    assert steps.exact
    assert listed(steps) == dataflow_steps_reference(a, b, dataflow)
    assert np.array_equal(steps.product, a.data[steps.a_entry] * b.data[steps.b_entry])
    structure = (a.astype(bool).astype(float) @ b.astype(bool).astype(float)).nnz
    assert steps.outputs == structure


@pytest.mark.parametrize("dataflow", ["row", "column"])
@pytest.mark.parametrize("windows", [[0], [0, 1, 2, 3, 4], [0, 2], [0, 3, 4]])
def test_live_falls_to_zero_where_a_window_ends(dataflow, windows):
    a, b = random_pair(3, (5, 8, 5), 0.4)
    a, b = a.toarray(), b.toarray()
    a[1] = b[:, 2] = 0  # an empty row and an empty column of C must not disturb the windows
    a, b = sp.csr_array(a), sp.csr_array(b)
    steps = dataflow_steps(a, b, dataflow, windows=windows)
    assert listed(steps) == dataflow_steps_reference(a, b, dataflow, windows)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_runs_sample_the_exact_curve(dataflow):
    a, b = random_pair(4, (30, 25, 40), 0.2)
    windows = [0, 7, 8, 20]
    exact = dataflow_steps(a, b, dataflow, windows=windows)
    runs = dataflow_steps(a, b, dataflow, limit=10, bins=37, windows=windows)
    assert exact.exact and not runs.exact
    assert (runs.edges[0], runs.edges[-1], len(runs.edges)) == (0, exact.products, 38)
    for s in range(37):
        lo, hi = runs.edges[s], runs.edges[s + 1]
        assert runs.merged[s] == exact.merged[lo:hi].sum()
        assert runs.live[s] == exact.live[hi - 1]
        assert runs.live_max[s] == exact.live[lo:hi].max()
        for name in ("i", "k", "j", "a_entry", "b_entry", "product"):
            assert getattr(runs, name)[s] == getattr(exact, name)[lo]
    assert runs.outputs == exact.outputs


def test_steps_are_single_products_up_to_the_limit_or_as_many_as_the_runs():
    a, b = random_pair(4, (6, 5, 7), 0.4)
    total = dataflow_order(a, b, "row").products
    for how in ({"limit": total, "bins": 1}, {"limit": 0, "bins": total}):
        assert dataflow_steps(a, b, "row", **how).edges.tolist() == list(range(total + 1))
    one = dataflow_steps(a, b, "row", limit=total - 1, bins=1)
    assert one.edges.tolist() == [0, total] and not one.exact
    assert one.merged.tolist() == [total - one.outputs] and one.live.tolist() == [one.outputs]
    outer = dataflow_steps(a, b, "outer", bins=2)  # listed one by one, however few the runs would be
    assert outer.live.tolist() == list(range(1, total + 1))


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("keys", [1, 1 << 24])
def test_small_chunks_change_nothing(dataflow, keys, monkeypatch):
    a, b = random_pair(5, (20, 20, 20), 0.25)
    whole = dataflow_steps(a, b, dataflow, windows=[0, 4, 11])
    monkeypatch.setattr(module, "_CHUNK_PRODUCTS", 16)
    monkeypatch.setattr(module, "_SCATTER_KEYS", keys)
    pieces = dataflow_steps(a, b, dataflow, windows=[0, 4, 11])
    for name, value in vars(whole).items():
        assert np.array_equal(value, getattr(pieces, name)), name


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_any_run_of_products_equals_the_slice(dataflow):
    a, b = random_pair(6, (9, 8, 10), 0.35)
    steps, order = dataflow_steps(a, b, dataflow), dataflow_order(a, b, dataflow)
    rng = np.random.default_rng(0)
    for start, stop in np.sort(rng.integers(0, order.products + 1, (40, 2)), axis=1):
        run = products_between(order, int(start), int(stop))
        for name in ("i", "k", "j", "a_entry", "b_entry", "product"):
            assert np.array_equal(getattr(run, name), getattr(steps, name)[start:stop]), name


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("chunk", [8, 1 << 20])
def test_births_name_the_first_product_of_each_output(dataflow, chunk, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_PRODUCTS", chunk)
    a, b = random_pair(8, (14, 10, 13), 0.3)
    steps = dataflow_steps(a, b, dataflow)
    first = {}
    for number, place in enumerate(zip(steps.i.tolist(), steps.j.tolist(), strict=True)):
        first.setdefault(place, number)
    assert output_births(a, b, dataflow).tolist() == [first[place] for place in sorted(first)]


def test_births_of_an_output_that_begins_at_the_second_column():
    """C = [[0 1 1], [0 0 1]] row by row: products 0 and 1 open C[0, 1] and C[0, 2], product 2 opens C[1, 2]."""
    a, b = (sp.csr_array(np.array(x, float)) for x in ([[1, 0], [0, 1]], [[0, 1, 1], [0, 0, 1]]))
    assert output_births(a, b, "row").tolist() == [0, 1, 2]
    assert output_births(a, b, "column").tolist() == [0, 1, 2]
    assert output_births(a, b, "outer").tolist() == [0, 1, 2]


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("walk", [dataflow_steps, output_births])
def test_progress_rises_to_one_and_may_stop_the_work(dataflow, walk, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_PRODUCTS", 16)
    a, b = random_pair(9, (20, 20, 20), 0.3)
    told = []
    walk(a, b, dataflow, progress=told.append)
    assert len(told) > 5
    assert told == sorted(told) and told[-1] == 1

    def stop(fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        walk(a, b, dataflow, progress=stop)


def test_products_are_the_same_multiset_and_sum_to_the_product():
    a, b = random_pair(7, (11, 13, 12))
    wanted = None
    for dataflow in DATAFLOWS:
        steps = dataflow_steps(a, b, dataflow)
        c = np.zeros((11, 12))
        np.add.at(c, (steps.i, steps.j), steps.product)
        assert np.array_equal(c, (a @ b).toarray())
        triples = sorted(zip(steps.i, steps.k, steps.j, strict=True))
        wanted = wanted or triples
        assert triples == wanted


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("shape", [(0, 3, 2), (3, 0, 2), (3, 2, 0), (0, 0, 0), (3, 2, 4)])
def test_empty_operands_have_no_steps(dataflow, shape):
    m, k, n = shape
    steps = dataflow_steps(sp.csr_array((m, k)), sp.csr_array((k, n)), dataflow)
    assert steps.products == steps.outputs == len(steps.live) == 0
    order = dataflow_order(sp.csr_array((m, k)), sp.csr_array((k, n)), dataflow)
    assert len(products_between(order, 0, 0).i) == 0
    assert len(output_births(sp.csr_array((m, k)), sp.csr_array((k, n)), dataflow)) == 0


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_unsorted_and_duplicate_entries_and_explicit_zeros_count(dataflow):
    a = sp.csr_array((np.array([1.0, 2, 0, 4]), np.array([2, 0, 0, 1]), np.array([0, 3, 4])), shape=(2, 3))
    b = sp.csr_array((np.array([5.0, 6, 7]), np.array([1, 1, 0]), np.array([0, 2, 2, 3])), shape=(3, 2))
    steps = dataflow_steps(a, b, dataflow)
    assert steps.products == 1 + 2 + 2
    c = np.zeros((2, 2))
    np.add.at(c, (steps.i, steps.j), steps.product)
    assert np.array_equal(c, a.toarray() @ b.toarray())
    assert steps.outputs == 2


def test_nan_and_inf_travel():
    a = sp.csr_array(np.array([[np.nan, np.inf]]))
    b = sp.csr_array(np.array([[2.0], [3.0]]))
    assert np.array_equal(dataflow_steps(a, b, "row").product, [np.nan, np.inf], equal_nan=True)


def test_wrong_arguments_are_named():
    a, b = random_pair(0)
    with pytest.raises(ValueError, match="dataflow must be one of inner, outer"):
        dataflow_steps(a, b, "diagonal")
    with pytest.raises(ValueError, match="b has 7 rows, a has 9 columns"):
        dataflow_steps(a, a, "outer")
    with pytest.raises(TypeError, match="dataflow_order: b must be"):
        dataflow_steps(a, b.toarray(), "outer")
    with pytest.raises(ValueError, match="limit must be an int of at least 0"):
        dataflow_steps(a, b, "outer", limit=-1)
    with pytest.raises(ValueError, match="bins must be"):
        dataflow_steps(a, b, "outer", bins=0)
    for windows in ([1, 2], [0, 0], [0, 7], [], [0.0, 1.5], [[0, 1]]):
        with pytest.raises(ValueError, match="windows must be strictly ascending"):
            dataflow_steps(a, b, "row", windows=windows)
    with pytest.raises(ValueError, match="needs 0 <= start <= stop"):
        products_between(dataflow_order(a, b, "outer"), 3, 2)


@pytest.mark.slow
def test_ten_million_products_are_walked_in_seconds():
    rng = np.random.default_rng(1)
    n, per_row = 100_000, 10
    pair = [
        sp.csr_array((np.ones(n * per_row), rng.integers(0, n, n * per_row), np.arange(0, n * per_row + 1, per_row)))
        for _ in range(2)
    ]
    pair = [sp.csr_array(x, shape=(n, n)) for x in pair]
    steps = dataflow_steps(*pair, "row", windows=np.arange(0, n, 1000))
    assert steps.products == n * per_row**2
    assert len(steps.live) == 2000
    assert steps.live_max.max() <= 1000 * per_row**2
