"""What a dataflow keeps on the chip, product by product, against loops that hold it in plain dicts and a heap."""

import doctest

import numpy as np
import pytest
import scipy.sparse as sp

from kernels.matmul import on_chip
from kernels.matmul.dataflow import dataflow_steps, output_births
from kernels.matmul.dataflow_order import DATAFLOWS, dataflow_order, products_between
from kernels.matmul.on_chip import kept_on_chip, probe_slots
from tests.dataflow_loops import BY_HAND, merge, pairs


def test_worked_example_is_the_doctest():
    result = doctest.testmod(on_chip)
    assert result.attempted >= 5 and result.failed == 0


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("per_window", [1, 3, 100])
@pytest.mark.parametrize("name", pairs())
def test_every_element_after_every_product(dataflow, per_window, name):
    a, b = pairs()[name]
    lines = b.shape[1] if dataflow == "column" else a.shape[0]
    windows = np.arange(0, max(lines, 1), per_window) if DATAFLOWS[dataflow].accumulates_lines else None
    order = dataflow_order(a, b, dataflow)
    births = output_births(a, b, dataflow)
    places = [tuple(map(int, place)) for place in np.argwhere(_pattern(a) @ _pattern(b))]
    live = dataflow_steps(a, b, dataflow, windows=windows).live.tolist()
    start = kept_on_chip(order, 0, windows=windows)
    assert (start.total, start.since, len(start.value)) == (0, 0, 0)
    steps = list(BY_HAND[dataflow](a, b, windows))
    assert len(steps) == order.products
    for formed, step in enumerate(steps, 1):
        kept = kept_on_chip(order, formed, windows=windows)
        columns = (kept.row, kept.column, kept.inner, kept.value)
        listed = [(tuple(map(int, place)), float(value)) for *place, value in zip(*columns, strict=True)]
        assert listed == step.kept
        assert kept.total == len(step.kept) == live[formed - 1]
        assert {place for place, birth in zip(places, births, strict=True) if birth < kept.since} == set(step.written)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("name", pairs())
def test_what_is_written_in_the_end_is_the_product(dataflow, name):
    a, b = pairs()[name]
    found, order = np.zeros((a.shape[0], b.shape[1])), dataflow_order(a, b, dataflow)
    end = kept_on_chip(order, order.products)
    before = products_between(order, 0, end.since)
    np.add.at(found, (before.i, before.j), before.product)  # written
    sums = (end.inner < 0) | (dataflow == "outer")
    np.add.at(found, (end.row[sums], end.column[sums]), end.value[sums])
    np.testing.assert_array_equal(found, a.toarray() @ b.toarray())


def test_a_merge_takes_the_same_products_in_the_order_of_its_heap():
    for a, b in pairs().values():
        run = products_between(dataflow_order(a, b, "merge"), 0, dataflow_order(a, b, "merge").products)
        popped = [(step.i, step.k, step.j) for step in merge(a, b, None)]
        assert list(zip(run.i.tolist(), run.k.tolist(), run.j.tolist(), strict=True)) == popped


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_only_the_newest_are_named_and_all_are_counted(dataflow):
    a, b = pairs()["square"]
    order = dataflow_order(a, b, dataflow)
    for formed in (1, order.products // 2, order.products):
        whole, some = kept_on_chip(order, formed), kept_on_chip(order, formed, most=2)
        assert some.total == whole.total and some.since == whole.since
        for name in ("row", "column", "inner", "value"):
            assert getattr(some, name).tolist() == getattr(whole, name)[-2:].tolist()
    assert kept_on_chip(order, order.products, most=0).row.tolist() == []


def test_slots_are_the_low_bits_or_the_next_free_one():
    assert probe_slots(np.array([5, 13, 7, 21, 15, 0]), 8).tolist() == [5, 6, 7, 0, 1, 2]
    assert probe_slots(np.array([], np.int64), 1).tolist() == []
    assert probe_slots(np.array([3, 1]), 2).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("tags", "slots", "words"),
    [
        (np.array([1, 1]), 8, "tags must be distinct"),
        (np.array([-1]), 8, "not negative"),
        (np.array([[1]]), 8, "one dimension"),
        (np.array([1, 2, 3]), 2, "slots must be a power of two of at least 3, got 2"),
        (np.array([1]), 6, "slots must be a power of two"),
    ],
)
def test_tags_that_fit_no_table_are_refused(tags, slots, words):
    with pytest.raises(ValueError, match=words):
        probe_slots(tags, slots)


def _pattern(x):
    return np.clip(sp.csr_array((np.ones(x.nnz), x.indices, x.indptr), shape=x.shape).toarray(), 0, 1)
