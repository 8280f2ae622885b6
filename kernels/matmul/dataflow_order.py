r"""The order in which a dataflow forms the partial products of C = A B, and any run of them by number.

Every dataflow forms the same F = sum over the nonzeros a_ik of (nonzeros in row k of B) products a_ik b_kj; only the
order of the three loops differs, and with it what has to be kept on the chip meanwhile:

==========  ==================  ========================================================================
dataflow    order of the loops  a product a_ik b_kj ...
==========  ==================  ========================================================================
inner       i, j, k             adds to the one running dot product C[i, j]
outer       k, i, j             is stored; all F are merged after the last one
row         i, k, j             adds to the accumulator of row i of C (Gustavson)
column      j, k, i             adds to the accumulator of column j of C
merge       i, j, k             comes out of a merge of the sorted rows of B that meet row i of A, and adds to
                                the one entry of C that is being made
==========  ==================  ========================================================================

Entries are walked as stored: k ascends within a row of A when A's indices are sorted. A merge takes the entries of a
row of B by column, and of equal columns the row that comes first in A's row.

Source: Shivdikar 2021 (SMASH), chapter on dataflows, compares the first four; Zhang et al. 2021 (Gamma) run Gustavson's
algorithm on processing elements with mergers of high radix.
*Differs from the paper:* one merge takes all rows of B that meet a row of A, however many they are.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kernels.check import as_csr, as_int, check_choice, check_inner


@dataclass(frozen=True, kw_only=True)
class Dataflow:
    """One order of the three loops.

    Parameters
    ----------
    loops : the loops from the outermost to the innermost.
    lines : what the outermost loop takes one after the other: rows of C, columns of C, or k (inner indices).
    source : who described it.
    by_output : within a row of C, products are sorted by column, so that those of an entry follow each other.
    """

    loops: str
    lines: Literal["row", "column", "inner"]
    source: str
    by_output: bool = False

    @property
    def accumulates_lines(self):
        """Whether a whole row or column of C is summed at a time, so that windows of several may be taken together."""
        return self.lines != "inner" and not self.by_output


DATAFLOWS = {
    "inner": Dataflow(loops="i, j, k", lines="row", by_output=True, source="the definition of the product"),
    "outer": Dataflow(loops="k, i, j", lines="inner", source="Pal et al. 2018 (OuterSPACE)"),
    "row": Dataflow(loops="i, k, j", lines="row", source="Gustavson 1978"),
    "column": Dataflow(loops="j, k, i", lines="column", source="Gustavson 1978, on the transposes"),
    "merge": Dataflow(loops="i, j, k", lines="row", by_output=True, source="Zhang et al. 2021 (Gamma)"),
}


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

    Dataflows that go by output hold the row order; within a row their products are sorted by j when they are asked for.
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


def dataflow_order(a, b, dataflow):
    """Prepare a dataflow so that any run of its products can be named in time proportional to the run.

    Parameters
    ----------
    a : csr_array (m, k), float32 or float64.
    b : csr_array (k, n).
    dataflow : one of ``DATAFLOWS``.

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
    lines_of = DATAFLOWS[dataflow].lines
    if lines_of == "column":
        item = np.argsort(b_col, kind="stable")
        partner = np.argsort(a_col, kind="stable")
        starts, inner, lines, line_count = _pointers(a_col, k), b_row[item], b_col[item], n
    else:
        item = np.argsort(a_col, kind="stable") if lines_of == "inner" else np.arange(len(a_col))
        partner = np.arange(len(b_row))
        starts, inner = _pointers(b_row, k), a_col[item]
        lines, line_count = (inner, k) if lines_of == "inner" else (a_row[item], m)
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

    Cost: O(stop - start + log nnz); dataflows that go by output expand whole rows of C.
    """
    if not isinstance(order, DataflowOrder):
        raise TypeError(f"products_between: order must come from dataflow_order, got {type(order).__name__}")
    start = as_int(start, function="products_between", name="start")
    stop = as_int(stop, function="products_between", name="stop")
    if not 0 <= start <= stop <= order.products:
        raise ValueError(f"products_between: needs 0 <= start <= stop <= {order.products}; got {start} and {stop}")
    a_entry, b_entry = entries_between(order, start, stop)
    return products_of(order, a_entry, b_entry)


def entries_between(order, start, stop):
    """Return the positions in A.data and B.data of the products ``start`` .. ``stop - 1``; trusts its arguments."""
    if not DATAFLOWS[order.dataflow].by_output:
        return _walk(order, start, stop)
    if start == stop:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    row = np.searchsorted(order.line_first, start, "right") - 1
    end = np.searchsorted(order.line_first, stop, "left")
    base = int(order.line_first[row])
    a_entry, b_entry = _walk(order, base, int(order.line_first[end]))
    by_output = np.lexsort((order.b_col[b_entry], order.a_row[a_entry]))[start - base : stop - base]
    return a_entry[by_output], b_entry[by_output]


def products_of(order, a_entry, b_entry):
    """Return the products of pairs of entries; trusts its arguments."""
    i, k, j = order.a_row[a_entry], order.a_col[a_entry], order.b_col[b_entry]
    return Products(i, k, j, a_entry, b_entry, order.a_data[a_entry] * order.b_data[b_entry])


def window_starts(order, windows, *, function):
    """Return int64[windows], the number of the first product of every window that has any; 0 alone without windows.

    Raises
    ------
    ValueError : ``windows`` are not strictly ascending numbers of lines from 0 on; ``function`` is named as asking.
    """
    if windows is None:
        return np.zeros(1, np.int64)
    lines = len(order.line_first) - 1
    starts = np.asarray(windows)
    good = starts.ndim == 1 and len(starts) and np.issubdtype(starts.dtype, np.integer)
    if not good or starts[0] != 0 or np.any(np.diff(starts) <= 0) or starts[-1] > max(lines - 1, 0):
        raise ValueError(
            f"{function}: windows must be strictly ascending whole numbers from 0 to {max(lines - 1, 0)}, "
            f"the first 0; got {windows!r}"
        )
    if not DATAFLOWS[order.dataflow].accumulates_lines:
        return np.zeros(1, np.int64)
    return np.unique(order.line_first[starts])


def _entries(a):
    rows = np.repeat(np.arange(a.shape[0]), np.diff(a.indptr).astype(np.int64))
    return rows, a.indices[: len(rows)].astype(np.int64), a.data[: len(rows)].astype(np.float64)


def _pointers(sorted_or_not, count):
    return np.concatenate(([0], np.cumsum(np.bincount(sorted_or_not, minlength=count)))).astype(np.int64)


def _walk(order, start, stop):
    g = slice(max(np.searchsorted(order.first, start, "right") - 1, 0), np.searchsorted(order.first, stop, "left"))
    begin = np.maximum(order.first[:-1][g], start)
    counts = np.minimum(order.first[1:][g], stop) - begin
    own = np.repeat(order.item[g], counts)
    shift = np.repeat(order.partner_start[g] - order.first[:-1][g], counts)
    other = order.partner[np.arange(start, stop) + shift]
    return (other, own) if DATAFLOWS[order.dataflow].lines == "column" else (own, other)
