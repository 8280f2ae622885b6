r"""A dataflow of C = A B step by step: its partial products in order, and how much is kept on the chip meanwhile.

`kernels.matmul.dataflow_order` says what the dataflows are. After each product, a dataflow keeps

- inner: the running dot product;
- outer: every product so far, until all are merged after the last one;
- row, column: the accumulator of the line of C that is being made, or of a window of lines;
- merge: the running sum of the entry of C that is being made, and the first element still to come of every other row
  of B that is being merged.

The worked example, F = 7 and nnz(C) = 6:

>>> import numpy as np, scipy.sparse as sp
>>> a = sp.csr_array(np.array([[1., 0, 2], [0, 0, 3], [4, 5, 0]]))
>>> b = sp.csr_array(np.array([[0., 6], [7, 0], [8, 9]]))
>>> for dataflow in DATAFLOWS:
...     steps = dataflow_steps(a, b, dataflow)
...     print(f"{dataflow:6}", steps.products, steps.live, "for", steps.outputs)
inner  7 [1 1 1 1 1 1 1] for 6
outer  7 [1 2 3 4 5 6 7] for 6
row    7 [1 2 2 3 4 5 6] for 6
column 7 [1 2 3 4 5 5 6] for 6
merge  7 [2 2 1 1 1 2 1] for 6

Row by row, the third product merges: C[0, 1] = 1 * 6 + 2 * 9. With a window for each row, its accumulator is written
out before the next row begins.

>>> steps = dataflow_steps(a, b, "row", windows=[0, 1, 2])
>>> [(int(i), int(k), int(j), float(v), bool(m)) for i, k, j, v, m in
...  zip(steps.i, steps.k, steps.j, steps.product, steps.merged)][:3]
[(0, 0, 1, 6.0, False), (0, 2, 0, 16.0, False), (0, 2, 1, 18.0, True)]
>>> steps.live
array([1, 2, 2, 1, 2, 1, 2])

Source: as in `kernels.matmul.dataflow_order`.
"""

from dataclasses import dataclass

import numpy as np

from kernels.check import as_int, check_callable
from kernels.matmul.dataflow_order import (
    DATAFLOWS,
    dataflow_order,
    entries_between,
    products_of,
    window_starts,
)

_CHUNK_PRODUCTS = 1 << 18
_SCATTER_KEYS = 1 << 24


@dataclass(frozen=True)
class DataflowSteps:
    """A dataflow cut into steps: one product each up to the limit, equal runs of products beyond it.

    Parameters
    ----------
    dataflow, products : as in ``DataflowOrder``.
    edges : int64[steps + 1]; step s forms the products edges[s] .. edges[s + 1] - 1.
    i, k, j, a_entry, b_entry, product : the first product of each step.
    merged : int64[steps]; how many of the step's products were added at once to a sum that was there.
    live : int64[steps]; elements kept on the chip after the step: partial sums, unmerged products, or elements of B
        that wait in a merge.
    live_max : int64[steps]; the most after any product of the step.
    outputs : structural nnz(C).
    """

    dataflow: str
    products: int
    edges: np.ndarray
    i: np.ndarray
    k: np.ndarray
    j: np.ndarray
    a_entry: np.ndarray
    b_entry: np.ndarray
    product: np.ndarray
    merged: np.ndarray
    live: np.ndarray
    live_max: np.ndarray
    outputs: int

    @property
    def exact(self):
        """True when every step is a single product."""
        return len(self.edges) == self.products + 1


def dataflow_steps(a, b, dataflow, limit=10**5, *, bins=2000, windows=None, progress=None):
    """Cut a dataflow into steps and count what is kept on the chip after each.

    Up to ``limit`` products every step is one product. Beyond it there are ``bins`` equal runs of products; their
    live counts are exact, sampled at the end of each run.

    Parameters
    ----------
    a, b, dataflow : as for ``dataflow_order``.
    limit : most products that are listed one by one, at least 0.
    bins : number of runs beyond it, at least 1.
    windows : strictly ascending first rows (column dataflow: first columns) of the windows whose accumulators live
        together, beginning with 0; a window's accumulators are written out at its end. Default: one window.
    progress : called with the fraction done, every 2^18 products or so; an exception from it stops the work.

    Returns
    -------
    DataflowSteps

    Raises
    ------
    TypeError : a or b is not CSR or not real.
    ValueError : shapes do not match, or an argument is outside its range.

    Cost: O(F + nnz(A) + nnz(B)) time, about a second for 10^7 products; O(nnz + limit) memory beyond 2^18 products.
    """
    order = dataflow_order(a, b, dataflow)
    total = order.products
    check_callable(progress, function="dataflow_steps", name="progress")
    limit = as_int(limit, function="dataflow_steps", name="limit", low=0)
    bins = as_int(bins, function="dataflow_steps", name="bins", low=1)
    starts = window_starts(order, windows, function="dataflow_steps")
    exact = total <= limit or total <= bins
    edges = np.arange(total + 1) if exact else np.linspace(0, total, bins + 1).astype(np.int64)
    if DATAFLOWS[dataflow].lines == "inner":
        outputs = sum(int(new.sum()) for _, new in _first_touches(dataflow_order(a, b, "row"), progress))
        merged, live = np.zeros(len(edges) - 1, np.int64), edges[1:].copy()
        live_max = live.copy()
    else:
        merged, live, live_max = _sampled(edges, _LIVE[dataflow](order, starts, progress))
        outputs = total - int(merged.sum())
    at = products_of(order, *_entries_at(order, edges, exact))
    first = (at.i, at.k, at.j, at.a_entry, at.b_entry, at.product)
    return DataflowSteps(dataflow, total, edges, *first, merged, live, live_max, outputs)


def output_births(a, b, dataflow, *, progress=None):
    """Return which product of a dataflow is the first to reach each entry of C.

    Parameters
    ----------
    a, b, dataflow, progress : as for ``dataflow_steps``.

    Returns
    -------
    int64[nnz(C)], product numbers, entries of C row by row with ascending columns (structural zeros included).

    Cost: O(F log F) time in pieces of 2^18 products.
    """
    check_callable(progress, function="output_births", name="progress")
    wanted = dataflow_order(a, b, dataflow)
    by_rows = DATAFLOWS[dataflow].lines == "row"
    rows = wanted if by_rows else dataflow_order(a, b, "row")
    n = wanted.shape[2]
    rank = np.empty(len(wanted.item), np.int64)
    rank[wanted.item] = np.arange(len(wanted.item))
    place = np.empty(len(wanted.partner), np.int64)
    place[wanted.partner] = np.arange(len(wanted.partner))
    found = [np.zeros(0, np.int64)]
    for start, stop in _line_chunks(rows, progress):
        a_entry, b_entry = entries_between(rows, start, stop)
        if by_rows:
            number = np.arange(start, stop)
        else:
            own, other = (b_entry, a_entry) if DATAFLOWS[dataflow].lines == "column" else (a_entry, b_entry)
            number = wanted.first[rank[own]] + place[other] - wanted.partner_start[rank[own]]
        key = rows.a_row[a_entry] * n + rows.b_col[b_entry]
        by_output = np.argsort(key, kind="stable")
        opens = np.flatnonzero(np.diff(key[by_output], prepend=-1))
        found.append(np.minimum.reduceat(number[by_output], opens))
    return np.concatenate(found)


def dataflow_steps_reference(a, b, dataflow, windows=None):
    """List every product as (i, k, j, product, merged, live): the five loop nests, written out."""
    rows_a, rows_b = ([{j: x[i, j] for j in x[[i]].indices} for i in range(x.shape[0])] for x in (a, b))
    rows, inner, columns = range(a.shape[0]), range(a.shape[1]), range(b.shape[1])
    loops = {
        "inner": ((i, k, j) for i in rows for j in columns for k in inner),
        "outer": ((i, k, j) for k in inner for i in rows for j in columns),
        "row": ((i, k, j) for i in rows for k in inner for j in columns),
        "column": ((i, k, j) for j in columns for k in inner for i in rows),
        "merge": ((i, k, j) for i in rows for j in columns for k in inner),
    }[dataflow]
    windows = set(windows if windows is not None else [0])
    steps, seen, alive, line = [], set(), set(), 0
    for i, k, j in loops:
        if k not in rows_a[i] or j not in rows_b[k]:
            continue
        here = j if dataflow == "column" else i
        if dataflow in ("row", "column") and any(w in windows for w in range(line + 1, here + 1)):
            alive = set()
        line = here
        merged = dataflow != "outer" and (i, j) in seen
        seen.add((i, j))
        alive.add((i, j))
        ahead = [other for other in rows_a[i] if any((column, other) >= (j, k) for column in rows_b[other])]
        live = {"inner": 1, "outer": len(steps) + 1, "merge": len(ahead)}.get(dataflow, len(alive))
        steps.append((i, k, j, float(rows_a[i][k]) * float(rows_b[k][j]), merged, live))
    return steps


def _entries_at(order, edges, exact):
    if exact:
        return entries_between(order, 0, order.products)
    pairs = [entries_between(order, int(t), int(t) + 1) for t in edges[:-1]]
    return tuple(np.concatenate(entries) for entries in zip(*pairs, strict=True))


def _line_chunks(order, progress=None):
    """Yield (start, stop) of runs of whole lines with about 2^18 products, or one line that has more."""
    line = 0
    while order.line_first[line] < order.products:
        start = int(order.line_first[line])
        end = int(np.searchsorted(order.line_first, start + _CHUNK_PRODUCTS, "right")) - 1
        line = max(end, line + 1)
        if order.line_first[line] > start:
            yield start, int(order.line_first[line])
            if progress:
                progress(int(order.line_first[line]) / order.products)


def _first_touches(order, progress=None):
    """Yield (first product, new[t]) chunk by chunk of whole lines; new[t] when product t opens its C[i, j]."""
    m, _, n = order.shape
    width, by_column = (m, True) if DATAFLOWS[order.dataflow].lines == "column" else (n, False)
    for start, stop in _line_chunks(order, progress):
        a_entry, b_entry = entries_between(order, start, stop)
        i, j = order.a_row[a_entry], order.b_col[b_entry]
        major, minor = (j, i) if by_column else (i, j)
        low = int(major.min())
        yield start, _is_first((major - low) * width + minor, (int(major.max()) - low + 1) * width)


def _is_first(key, span):
    position = np.arange(len(key), dtype=np.int32)
    if span > _SCATTER_KEYS:
        first = np.zeros(len(key), bool)
        first[np.unique(key, return_index=True)[1]] = True
        return first
    seen = np.empty(span, np.int32)
    seen[key[::-1]] = position[::-1]  # of equal keys the last assignment stays: the earliest product
    return seen[key] == position


def _running_sum(order, starts, progress):
    """Yield (first product, new[t], live[t]) where one sum is kept at a time."""
    for start, new in _first_touches(order, progress):
        yield start, new, np.ones(len(new), np.int64)


def _accumulators(order, starts, progress):
    """Yield the same where the entries of a window's lines are kept until the window ends."""
    opened = before = 0  # outputs opened so far, and those opened before the current window
    for start, new in _first_touches(order, progress):
        stop = start + len(new)
        total = opened + np.cumsum(new)
        resets = starts[np.searchsorted(starts, start) : np.searchsorted(starts, stop)]
        at_reset = np.concatenate(([opened], total))[resets - start]
        runs = np.diff(np.concatenate(([start], resets, [stop])))
        yield start, new, total - np.repeat(np.concatenate(([before], at_reset)), runs)
        before = int(at_reset[-1]) if len(resets) else before
        opened = int(total[-1])


def _merge_heads(order, starts, progress):
    """Yield the same for a merge: the rows of B that have elements left, of which one has just become the sum."""
    for start, new in _first_touches(order, progress):
        stop = start + len(new)
        a_entry, _ = entries_between(order, start, stop)
        low = int(a_entry.min())
        last = _is_first(a_entry[::-1] - low, int(a_entry.max()) - low + 1)[::-1]
        ended = np.concatenate(([0], np.cumsum(last)))  # rows of B that ended before each product
        lines = order.line_first[np.searchsorted(order.line_first, start) : np.searchsorted(order.line_first, stop)]
        row_end = np.append(lines[1:], stop) - start
        yield start, new, np.repeat(ended[row_end], np.diff(np.append(lines, stop))) - ended[:-1]


_LIVE = {"inner": _running_sum, "row": _accumulators, "column": _accumulators, "merge": _merge_heads}


def _sampled(edges, walk):
    """Return merged, live and live_max of every step from a walk over all products."""
    steps = len(edges) - 1
    merged, live, live_max = (np.zeros(steps, np.int64) for _ in range(3))
    for start, new, alive in walk:
        stop = start + len(new)
        low = np.searchsorted(edges, start, "right") - 1
        high = np.searchsorted(edges, stop, "left")
        cuts = np.maximum(edges[low:high], start) - start
        merged[low:high] += np.add.reduceat(~new, cuts, dtype=np.int64)
        live_max[low:high] = np.maximum(live_max[low:high], np.maximum.reduceat(alive, cuts))
        ended = edges[low + 1 : high + 1]
        ended = ended[ended <= stop]
        live[low : low + len(ended)] = alive[ended - 1 - start]
    return merged, live, live_max
