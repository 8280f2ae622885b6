r"""What a dataflow of C = A B keeps on the chip after some of its products: which elements, and of what value.

`kernels.matmul.dataflow` counts them after every product; this module names them after one.

The worked example of `kernels.matmul.dataflow` after three products row by row: the accumulator holds both entries of
row 0. After two products of the merge C[0, 0] = 16 is written, C[0, 1] is being summed, and B[2, 1] = 9 waits.

>>> import numpy as np, scipy.sparse as sp
>>> from kernels.matmul.dataflow_order import dataflow_order
>>> a = sp.csr_array(np.array([[1., 0, 2], [0, 0, 3], [4, 5, 0]]))
>>> b = sp.csr_array(np.array([[0., 6], [7, 0], [8, 9]]))
>>> kept = kept_on_chip(dataflow_order(a, b, "row"), 3)
>>> kept.column, kept.value
(array([1, 0]), array([24., 16.]))
>>> kept = kept_on_chip(dataflow_order(a, b, "merge"), 2)
>>> kept.inner, kept.column, kept.value, kept.since
(array([ 2, -1]), array([1, 1]), array([9., 6.]), 1)

Source: as in `kernels.matmul.dataflow_order`; the table with linear probing is that of Shivdikar 2021 (SMASH), V2.
"""

from dataclasses import dataclass

import numpy as np

from kernels.check import as_int, check_array
from kernels.matmul.dataflow_order import DataflowOrder, products_between, window_starts


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Elements that are on the chip once some products are formed, before anything more is written.

    Parameters
    ----------
    row, column : int64[t]; the place in C that each element belongs to. Sums come in the order in which they were
        opened, products in that in which they were formed, elements of B as A's row asks for them and before the sum.
    inner : int64[t]; k of a single product that is not merged yet, or of an element of B that waits in a merge; -1 for
        a sum.
    value : float64[t]; the sum, the product, or the element of B.
    total : how many are kept; more than t where only the newest are named.
    since : the first product whose result is not written to C yet; what was reached before it is.
    """

    row: np.ndarray
    column: np.ndarray
    inner: np.ndarray
    value: np.ndarray
    total: int
    since: int


def kept_on_chip(order, formed, *, windows=None, most=10**6) -> Kept:
    """Return what a dataflow keeps on the chip after its first ``formed`` products.

    Parameters
    ----------
    order : from ``dataflow_order``.
    formed : from 0 (nothing is kept yet) to order.products (the last line is not written yet).
    windows : as for ``dataflow_steps``; lines whose accumulators are kept together.
    most : how many elements are named at most, the newest; at least 0.

    Returns
    -------
    Kept

    Raises
    ------
    TypeError : order does not come from ``dataflow_order``.
    ValueError : formed, windows or most is out of range.

    Cost: O(products of the present window, row or entry of C); outer: O(most).
    """
    if not isinstance(order, DataflowOrder):
        raise TypeError(f"kept_on_chip: order must come from dataflow_order, got {type(order).__name__}")
    formed = as_int(formed, function="kept_on_chip", name="formed", low=0, high=order.products)
    most = as_int(most, function="kept_on_chip", name="most", low=0)
    starts = window_starts(order, windows, function="kept_on_chip")
    if formed == 0:
        nowhere = np.zeros(0, np.int64)
        return _named(nowhere, nowhere, nowhere, np.zeros(0), 0, most)
    return _KEPT[order.dataflow](order, formed, starts, most)


def probe_slots(tags, slots) -> np.ndarray:
    """Return the slot that each tag takes in a hash table: its low-order bits, or the next that is free.

    Parameters
    ----------
    tags : int64[t], distinct, not negative, in the order in which they come.
    slots : size of the table, a power of two of at least t and at most 2^62.

    Returns
    -------
    int64[t]

    Raises
    ------
    TypeError, ValueError : tags or slots are none of that.

    Cost: O(t + probes), in Python.
    """
    check_array(tags, function="probe_slots", name="tags", dtypes=(np.int64,))
    slots = as_int(slots, function="probe_slots", name="slots", low=1, high=2**62)
    if tags.ndim != 1 or (len(tags) and tags.min() < 0) or len(np.unique(tags)) != len(tags):
        raise ValueError("probe_slots: tags must be distinct, not negative, and have one dimension")
    if slots & (slots - 1) or slots < len(tags):
        raise ValueError(f"probe_slots: slots must be a power of two of at least {len(tags)}, got {slots}")
    taken, found = set(), []
    for slot in (tags % slots).tolist():
        while slot in taken:
            slot = (slot + 1) % slots
        taken.add(slot)
        found.append(slot)
    return np.array(found, np.int64)


def _running_sum(order, formed, starts, most):
    run, base, begin = _row_so_far(order, formed)
    return _named(run.i[-1:], run.j[-1:], np.full(1, -1), run.product[begin:].sum(keepdims=True), base + begin, most)


def _unmerged(order, formed, starts, most):
    run = products_between(order, max(0, formed - most), formed)
    return Kept(row=run.i, column=run.j, inner=run.k, value=run.product, total=formed, since=0)


def _accumulators(order, formed, starts, most):
    since = int(starts[np.searchsorted(starts, formed, "left") - 1])
    run = products_between(order, since, formed)
    _, first, place = np.unique(run.i * order.shape[2] + run.j, return_index=True, return_inverse=True)
    opened = np.argsort(first)
    value = np.bincount(place, run.product)[opened]
    return _named(run.i[first[opened]], run.j[first[opened]], np.full(len(first), -1), value, since, most)


def _merge_heads(order, formed, starts, most):
    run, base, begin = _row_so_far(order, formed)
    end = int(order.line_first[np.searchsorted(order.line_first, formed, "left")])
    ahead = products_between(order, formed, end)
    way, head = np.unique(ahead.a_entry, return_index=True)
    head = head[way != run.a_entry[-1]]  # its next element is fetched when this one is written
    return _named(
        np.append(ahead.i[head], run.i[-1]),
        np.append(ahead.j[head], run.j[-1]),
        np.append(ahead.k[head], -1),
        np.append(order.b_data[ahead.b_entry[head]], run.product[begin:].sum()),
        base + begin,
        most,
    )


_KEPT = {
    "inner": _running_sum,
    "outer": _unmerged,
    "row": _accumulators,
    "column": _accumulators,
    "merge": _merge_heads,
}


def _row_so_far(order, formed):
    """Return the products of the present row of C, the number of the first, and where those of its last entry begin."""
    base = int(order.line_first[np.searchsorted(order.line_first, formed, "left") - 1])
    run = products_between(order, base, formed)
    return run, base, int(np.searchsorted(run.j, run.j[-1]))


def _named(row, column, inner, value, since, most):
    total = len(row)
    newest = slice(max(0, total - most), total)
    parts = {"row": row[newest], "column": column[newest], "inner": inner[newest], "value": value[newest]}
    return Kept(**parts, total=total, since=since)
