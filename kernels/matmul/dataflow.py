r"""The order in which a dataflow forms the partial products of C = A B, and how many of them are alive meanwhile.

Every dataflow forms the same F = sum over the nonzeros a_ik of (nonzeros in row k of B) products a_ik b_kj; only the
order of the three loops differs:

==========  ==================  =====================================================
dataflow    order of the loops  a product a_ik b_kj ...
==========  ==================  =====================================================
inner       i, j, k             adds to the one running dot product C[i, j]
outer       k, i, j             is stored; all F are merged after the last one
row         i, k, j             merges into row i's accumulator at once (Gustavson)
column      j, k, i             merges into column j's accumulator at once
==========  ==================  =====================================================

Entries are walked as stored: k ascends within a row of A when A's indices are sorted.

The worked example, F = 7 and nnz(C) = 6:

>>> import numpy as np, scipy.sparse as sp
>>> a = sp.csr_array(np.array([[1., 0, 2], [0, 0, 3], [4, 5, 0]]))
>>> b = sp.csr_array(np.array([[0., 6], [7, 0], [8, 9]]))
>>> for dataflow in DATAFLOWS:
...     steps = dataflow_steps(a, b, dataflow)
...     print(f"{dataflow:6}", steps.products, steps.live, "then", steps.merge_live)
inner  7 [1 1 1 1 1 1 1] then []
outer  7 [1 2 3 4 5 6 7] then [6]
row    7 [1 2 2 3 4 5 6] then []
column 7 [1 2 3 4 5 5 6] then []

Row by row, the third product merges: C[0, 1] = 1 * 6 + 2 * 9.

>>> steps = dataflow_steps(a, b, "row")
>>> [(int(i), int(k), int(j), float(v), bool(m)) for i, k, j, v, m in
...  zip(steps.i, steps.k, steps.j, steps.product, steps.merged)][:3]
[(0, 0, 1, 6.0, False), (0, 2, 0, 16.0, False), (0, 2, 1, 18.0, True)]

Source: Gustavson 1978 for the row-wise order; Shivdikar 2021 (SMASH), chapter on dataflows, for the four of them.
"""

from dataclasses import dataclass

import numpy as np

from kernels.check import as_csr, as_int, check_callable, check_choice, check_inner

DATAFLOWS = ("inner", "outer", "row", "column")
_CHUNK_PRODUCTS = 1 << 18
_SCATTER_KEYS = 1 << 24


@dataclass(frozen=True)
class DataflowOrder:
    """What it takes to name any run of products without forming the ones before it.

    Parameters
    ----------
    dataflow, shape : one of ``DATAFLOWS``, and (m, k, n).
    a_row, a_col, a_data, b_row, b_col, b_data : coordinates and values of every entry, in storage order.
    item : int64[items]; entries of A (column: of B) in the order in which the outer two loops take them.
    first : int64[items + 1]; item g forms the products first[g] .. first[g + 1] - 1.
    partner : int64; entries of the other operand, grouped by k.
    partner_start : int64[items]; where item g's partners begin in ``partner``.
    line_first : int64[lines + 1]; first product of each row of C (column: each column; outer: of each k).

    The inner dataflow holds the row order; within a row its products are sorted by j when they are asked for.
    """

    dataflow: str
    shape: tuple[int, int, int]
    a_row: np.ndarray
    a_col: np.ndarray
    a_data: np.ndarray
    b_row: np.ndarray
    b_col: np.ndarray
    b_data: np.ndarray
    item: np.ndarray
    first: np.ndarray
    partner: np.ndarray
    partner_start: np.ndarray
    line_first: np.ndarray

    @property
    def products(self):
        """Number of partial products F."""
        return int(self.first[-1])


@dataclass(frozen=True)
class Products:
    """Consecutive partial products a_ik b_kj of a dataflow.

    Parameters
    ----------
    i, k, j, a_entry, b_entry : int64[t]; coordinates, and positions in A.data and B.data.
    product : float64[t].
    """

    i: np.ndarray
    k: np.ndarray
    j: np.ndarray
    a_entry: np.ndarray
    b_entry: np.ndarray
    product: np.ndarray


@dataclass(frozen=True)
class DataflowSteps:
    """A dataflow cut into steps: one product each up to the limit, equal runs of products beyond it.

    Parameters
    ----------
    dataflow, products : as in ``DataflowOrder``.
    edges : int64[steps + 1]; step s forms the products edges[s] .. edges[s + 1] - 1.
    i, k, j, a_entry, b_entry, product : the first product of each step.
    merged : int64[steps]; how many of the step's products were added at once to an accumulator that was there.
    live : int64[steps]; partial products alive after the step.
    live_max : int64[steps]; the most alive after any product of the step.
    merge_live : int64; alive during the merge that follows the last product (outer only), down to nnz(C); sampled
        when the steps are runs.
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
    merge_live: np.ndarray
    outputs: int

    @property
    def exact(self):
        """True when every step is a single product."""
        return len(self.edges) == self.products + 1


def dataflow_order(a, b, dataflow):
    """Prepare a dataflow so that any run of its products can be named in time proportional to the run.

    Parameters
    ----------
    a : csr_array (m, k), float32 or float64.
    b : csr_array (k, n).
    dataflow : "inner", "outer", "row" or "column".

    Returns
    -------
    DataflowOrder

    Raises
    ------
    TypeError : a or b is not CSR or not real.
    ValueError : inner dimensions differ, no such dataflow, or m n passes 2^63.

    Cost: O(nnz(A) + nnz(B) + m + k), and n in the column dataflow.
    """
    check_choice(dataflow, DATAFLOWS, function="dataflow_order", name="dataflow")
    a = as_csr(a, function="dataflow_order", name="a")
    b = as_csr(b, function="dataflow_order", name="b")
    check_inner(a, b, function="dataflow_order")
    (m, k), n = a.shape, b.shape[1]
    if m * n >= 2**63:
        raise ValueError(f"dataflow_order: the product has {m} x {n} places, more than 2^63; use fewer columns")
    a_row, a_col, a_data = _entries(a)
    b_row, b_col, b_data = _entries(b)
    if dataflow == "column":
        item = np.argsort(b_col, kind="stable")
        partner = np.argsort(a_col, kind="stable")
        starts, inner, lines, line_count = _pointers(a_col, k), b_row[item], b_col[item], n
    else:
        item = np.argsort(a_col, kind="stable") if dataflow == "outer" else np.arange(len(a_col))
        partner = np.arange(len(b_row))
        starts, inner = _pointers(b_row, k), a_col[item]
        lines, line_count = (inner, k) if dataflow == "outer" else (a_row[item], m)
    first = np.concatenate(([0], np.cumsum(np.diff(starts)[inner])))
    line_first = first[_pointers(lines, line_count)]
    return DataflowOrder(
        dataflow, (m, k, n), a_row, a_col, a_data, b_row, b_col, b_data, item, first, partner, starts[inner], line_first
    )


def products_between(order, start, stop):
    """Return the products ``start`` .. ``stop - 1`` of a dataflow.

    Parameters
    ----------
    order : from ``dataflow_order``.
    start, stop : 0 <= start <= stop <= order.products.

    Returns
    -------
    Products

    Raises
    ------
    ValueError : start and stop are out of range.

    Cost: O(stop - start + log nnz); the inner dataflow expands whole rows of C.
    """
    if not isinstance(order, DataflowOrder):
        raise TypeError(f"products_between: order must come from dataflow_order, got {type(order).__name__}")
    start = as_int(start, function="products_between", name="start")
    stop = as_int(stop, function="products_between", name="stop")
    if not 0 <= start <= stop <= order.products:
        raise ValueError(f"products_between: needs 0 <= start <= stop <= {order.products}; got {start} and {stop}")
    a_entry, b_entry = _entries_between(order, start, stop)
    return _products(order, a_entry, b_entry)


def dataflow_steps(a, b, dataflow, limit=10**5, *, bins=2000, windows=None, progress=None):
    """Cut a dataflow into steps and count the partial products alive after each.

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
    starts = _window_starts(windows, order)
    exact = total <= limit or total <= bins
    edges = np.arange(total + 1) if exact else np.linspace(0, total, bins + 1).astype(np.int64)
    merge_live = edges[:0]
    if dataflow == "outer":
        outputs = sum(int(new.sum()) for _, new in _first_touches(dataflow_order(a, b, "row"), progress))
        merged, live = np.zeros(len(edges) - 1, np.int64), edges[1:].copy()
        live_max = live.copy()
        falls = np.arange(1, total - outputs + 1)
        if not exact and len(falls) > bins:
            falls = np.linspace(0, total - outputs, bins + 1).astype(np.int64)[1:]
        merge_live = total - falls
    else:
        merged, live, live_max, outputs = _accumulate(order, edges, starts, progress)
    at = _products(order, *_entries_at(order, edges, exact))
    first = (at.i, at.k, at.j, at.a_entry, at.b_entry, at.product)
    return DataflowSteps(dataflow, total, edges, *first, merged, live, live_max, merge_live, outputs)


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
    rows = wanted if dataflow in ("row", "inner") else dataflow_order(a, b, "row")
    n = wanted.shape[2]
    rank = np.empty(len(wanted.item), np.int64)
    rank[wanted.item] = np.arange(len(wanted.item))
    place = np.empty(len(wanted.partner), np.int64)
    place[wanted.partner] = np.arange(len(wanted.partner))
    found = [np.zeros(0, np.int64)]
    for start, stop in _line_chunks(rows, progress):
        a_entry, b_entry = _entries_between(rows, start, stop)
        if dataflow in ("row", "inner"):
            number = np.arange(start, stop)
        else:
            own, other = (b_entry, a_entry) if dataflow == "column" else (a_entry, b_entry)
            number = wanted.first[rank[own]] + place[other] - wanted.partner_start[rank[own]]
        key = rows.a_row[a_entry] * n + rows.b_col[b_entry]
        by_output = np.argsort(key, kind="stable")
        opens = np.flatnonzero(np.diff(key[by_output], prepend=-1))
        found.append(np.minimum.reduceat(number[by_output], opens))
    return np.concatenate(found)


def dataflow_steps_reference(a, b, dataflow, windows=None):
    """List every product as (i, k, j, product, merged, live): the four loop nests, written out."""
    rows_a, rows_b = ([{j: x[i, j] for j in x[[i]].indices} for i in range(x.shape[0])] for x in (a, b))
    rows, inner, columns = range(a.shape[0]), range(a.shape[1]), range(b.shape[1])
    loops = {
        "inner": ((i, k, j) for i in rows for j in columns for k in inner),
        "outer": ((i, k, j) for k in inner for i in rows for j in columns),
        "row": ((i, k, j) for i in rows for k in inner for j in columns),
        "column": ((i, k, j) for j in columns for k in inner for i in rows),
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
        live = {"inner": 1, "outer": len(steps) + 1}.get(dataflow, len(alive))
        steps.append((i, k, j, float(rows_a[i][k]) * float(rows_b[k][j]), merged, live))
    return steps


def _entries(a):
    rows = np.repeat(np.arange(a.shape[0]), np.diff(a.indptr).astype(np.int64))
    return rows, a.indices[: len(rows)].astype(np.int64), a.data[: len(rows)].astype(np.float64)


def _pointers(sorted_or_not, count):
    return np.concatenate(([0], np.cumsum(np.bincount(sorted_or_not, minlength=count)))).astype(np.int64)


def _entries_between(order, start, stop):
    if order.dataflow != "inner":
        return _walk(order, start, stop)
    if start == stop:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    row = np.searchsorted(order.line_first, start, "right") - 1
    end = np.searchsorted(order.line_first, stop, "left")
    base = int(order.line_first[row])
    a_entry, b_entry = _walk(order, base, int(order.line_first[end]))
    by_output = np.lexsort((order.b_col[b_entry], order.a_row[a_entry]))[start - base : stop - base]
    return a_entry[by_output], b_entry[by_output]


def _walk(order, start, stop):
    g = slice(max(np.searchsorted(order.first, start, "right") - 1, 0), np.searchsorted(order.first, stop, "left"))
    begin = np.maximum(order.first[:-1][g], start)
    counts = np.minimum(order.first[1:][g], stop) - begin
    own = np.repeat(order.item[g], counts)
    shift = np.repeat(order.partner_start[g] - order.first[:-1][g], counts)
    other = order.partner[np.arange(start, stop) + shift]
    return (other, own) if order.dataflow == "column" else (own, other)


def _entries_at(order, edges, exact):
    if exact:
        return _entries_between(order, 0, order.products)
    pairs = [_entries_between(order, int(t), int(t) + 1) for t in edges[:-1]]
    return tuple(np.concatenate(entries) for entries in zip(*pairs, strict=True))


def _products(order, a_entry, b_entry):
    i, k, j = order.a_row[a_entry], order.a_col[a_entry], order.b_col[b_entry]
    return Products(i, k, j, a_entry, b_entry, order.a_data[a_entry] * order.b_data[b_entry])


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
    width, by_column = (m, True) if order.dataflow == "column" else (n, False)
    for start, stop in _line_chunks(order, progress):
        a_entry, b_entry = _entries_between(order, start, stop)
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


def _accumulate(order, edges, starts, progress):
    steps = len(edges) - 1
    merged, live, live_max = (np.zeros(steps, np.int64) for _ in range(3))
    opened = before = 0  # outputs opened so far, and those opened before the current window
    for start, new in _first_touches(order, progress):
        stop = start + len(new)
        total = opened + np.cumsum(new)
        resets = starts[np.searchsorted(starts, start) : np.searchsorted(starts, stop)]
        at_reset = np.concatenate(([opened], total))[resets - start]
        runs = np.diff(np.concatenate(([start], resets, [stop])))
        alive = total - np.repeat(np.concatenate(([before], at_reset)), runs)
        if order.dataflow == "inner":
            alive = np.ones_like(alive)
        low = np.searchsorted(edges, start, "right") - 1
        high = np.searchsorted(edges, stop, "left")
        cuts = np.maximum(edges[low:high], start) - start
        merged[low:high] += np.add.reduceat(~new, cuts, dtype=np.int64)
        live_max[low:high] = np.maximum(live_max[low:high], np.maximum.reduceat(alive, cuts))
        ended = edges[low + 1 : high + 1]
        ended = ended[ended <= stop]
        live[low : low + len(ended)] = alive[ended - 1 - start]
        before = int(at_reset[-1]) if len(resets) else before
        opened = int(total[-1])
    return merged, live, live_max, opened


def _window_starts(windows, order):
    """Return the number of the first product of every window."""
    if windows is None:
        return np.zeros(1, np.int64)
    lines = len(order.line_first) - 1
    starts = np.asarray(windows)
    good = starts.ndim == 1 and len(starts) and np.issubdtype(starts.dtype, np.integer)
    if not good or starts[0] != 0 or np.any(np.diff(starts) <= 0) or starts[-1] > max(lines - 1, 0):
        raise ValueError(
            f"dataflow_steps: windows must be strictly ascending whole numbers from 0 to {max(lines - 1, 0)}, "
            f"the first 0; got {windows!r}"
        )
    if order.dataflow in ("inner", "outer"):
        return np.zeros(1, np.int64)
    return np.unique(order.line_first[starts])
