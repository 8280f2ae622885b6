"""What a dataflow keeps on the chip, product by product, against loops that hold it in plain dicts and a heap."""

import doctest
import heapq

import numpy as np
import pytest
import scipy.sparse as sp

from kernels.matmul import on_chip
from kernels.matmul.dataflow import dataflow_steps, output_births
from kernels.matmul.dataflow_order import DATAFLOWS, dataflow_order, products_between
from kernels.matmul.on_chip import kept_on_chip, probe_slots


def rows_of(x):
    """Return every row as (column, value) pairs, as stored."""
    return [
        list(zip(x.indices[lo:hi].tolist(), x.data[lo:hi].tolist(), strict=True))
        for lo, hi in zip(x.indptr[:-1], x.indptr[1:], strict=True)
    ]


def line_by_line(a, b, windows, by_column):
    """Row- or column-wise: one accumulator for a window of lines, written when the next window begins."""
    rows_a, rows_b, kept, written, present = rows_of(a), rows_of(b), {}, {}, None
    lines = [
        (i, k, j, av * bv) for i, row in enumerate(rows_a) for k, av in row for j, bv in rows_b[k]
    ] if not by_column else [
        (i, k, j, av * bv)
        for j in range(b.shape[1]) for k, row in enumerate(rows_b) for column, bv in row if column == j
        for i, row_a in enumerate(rows_a) for inner, av in row_a if inner == k
    ]  # fmt: skip
    for i, _, j, product in lines:
        window = max(w for w in windows if w <= (j if by_column else i))
        if window != present:
            written |= kept
            kept, present = {}, window
        kept[i, j, -1] = kept.get((i, j, -1), 0.0) + product
        yield dict(kept), dict(written)


def outer(a, b, windows):
    rows_b, kept = rows_of(b), []
    for k in range(a.shape[1]):
        for i, row in enumerate(rows_of(a)):
            for inner, av in row:
                for j, bv in rows_b[k] if inner == k else ():
                    kept.append(((i, j, k), av * bv))
                    yield list(kept), {}


def inner(a, b, windows):
    rows_b, written = rows_of(b), {}
    for i, row in enumerate(rows_of(a)):
        for j in range(b.shape[1]):
            total = None
            for k, av in row:
                for bv in (value for column, value in rows_b[k] if column == j):
                    total = (total or 0.0) + av * bv
                    yield {(i, j, -1): total}, dict(written)
            if total is not None:
                written[i, j, -1] = total


def merge(a, b, windows):
    """Row by row, a heap with the first element of every row of B; what is popped is multiplied and added up."""
    rows_b, written = rows_of(b), {}
    for i, row in enumerate(rows_of(a)):
        ways = [sorted(rows_b[k], key=lambda pair: pair[0]) for k, _ in row]
        heap = [(way[0][0], w, 0) for w, way in enumerate(ways) if way]
        heapq.heapify(heap)
        entry, total = None, 0.0
        while heap:
            j, w, at = heapq.heappop(heap)
            if entry not in (None, j):
                written[i, entry, -1] = total
                total = 0.0
            entry, total = j, total + row[w][1] * ways[w][at][1]
            waiting = {(i, column, row[v][0], v): ways[v][place][1] for column, v, place in heap}
            in_order = {key: waiting[key] for key in sorted(waiting, key=lambda key: key[3])}
            yield in_order | {(i, j, -1): total}, dict(written)
            if at + 1 < len(ways[w]):
                heapq.heappush(heap, (ways[w][at + 1][0], w, at + 1))
        if entry is not None:
            written[i, entry, -1] = total


BY_HAND = {
    "inner": inner,
    "outer": outer,
    "row": lambda a, b, windows: line_by_line(a, b, windows, by_column=False),
    "column": lambda a, b, windows: line_by_line(a, b, windows, by_column=True),
    "merge": merge,
}


def pairs():
    rng = np.random.default_rng(2)
    for m, k, n in ((1, 1, 1), (6, 5, 7), (9, 3, 4), (2, 12, 3)):
        a, b = (rng.integers(1, 9, s) * (rng.random(s) < 0.5) for s in ((m, k), (k, n)))
        a[m // 2 :: 4], b[:, n // 2 :: 3] = (0, 0) if m > 1 else (1, 1)
        yield sp.csr_array(a.astype(float)), sp.csr_array(b.astype(float))
    doubled = sp.csr_array((np.array([1.0, 2, 0, 4]), np.array([2, 0, 0, 1]), np.array([0, 3, 4])), shape=(2, 3))
    unsorted = sp.csr_array((np.array([5.0, 6, 7, 8]), np.array([1, 1, 0, 0]), np.array([0, 2, 2, 4])), shape=(3, 2))
    yield doubled, unsorted
    yield sp.csr_array((3, 2)), sp.csr_array((2, 4))


def test_worked_example_is_the_doctest():
    result = doctest.testmod(on_chip)
    assert result.attempted >= 5 and result.failed == 0


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("per_window", [1, 3, 100])
def test_every_element_after_every_product(dataflow, per_window):
    for a, b in pairs():
        lines = b.shape[1] if dataflow == "column" else a.shape[0]
        windows = np.arange(0, max(lines, 1), per_window) if DATAFLOWS[dataflow].accumulates_lines else None
        order = dataflow_order(a, b, dataflow)
        births = output_births(a, b, dataflow)
        places = [tuple(map(int, place)) for place in np.argwhere(_pattern(a) @ _pattern(b))]
        live = dataflow_steps(a, b, dataflow, windows=windows).live.tolist()
        assert kept_on_chip(order, 0, windows=windows).total == 0
        states = list(BY_HAND[dataflow](a, b, windows))
        assert len(states) == order.products
        for formed, (wanted, written) in enumerate(states, 1):
            kept = kept_on_chip(order, formed, windows=windows)
            columns = (kept.row, kept.column, kept.inner, kept.value)
            listed = [(tuple(map(int, place)), float(value)) for *place, value in zip(*columns, strict=True)]
            wanted = wanted if isinstance(wanted, list) else list(wanted.items())
            assert listed == [(key[:3], value) for key, value in wanted]
            assert kept.total == len(wanted) == live[formed - 1]
            done = {place for place, birth in zip(places, births, strict=True) if birth < kept.since}
            assert done == {key[:2] for key in written}


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_what_is_written_in_the_end_is_the_product(dataflow):
    for a, b in pairs():
        found = np.zeros((a.shape[0], b.shape[1]))
        for wanted, written in BY_HAND[dataflow](a, b, [0]):
            last = wanted, written
        if dataflow_order(a, b, dataflow).products:
            for part in (list(x.items()) if isinstance(x, dict) else x for x in last):
                for (i, j, *_), value in part:
                    found[i, j] += value
        np.testing.assert_array_equal(found, a.toarray() @ b.toarray())


def test_a_merge_takes_the_same_products_in_the_order_of_its_heap():
    for a, b in pairs():
        run = products_between(dataflow_order(a, b, "merge"), 0, dataflow_order(a, b, "merge").products)
        popped = [list(kept)[-1][:2] for kept, _ in merge(a, b, None)]
        assert list(zip(run.i.tolist(), run.j.tolist(), strict=True)) == popped


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_only_the_newest_are_named_and_all_are_counted(dataflow):
    a, b = list(pairs())[1]
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
