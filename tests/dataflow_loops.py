"""The dataflows of a sparse product as plain loops with dicts, lists and a heap, for tests to compare kernels with."""

import heapq
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp


class Formed(NamedTuple):
    """One product of a dataflow, what is on the chip after it, and what is written by then."""

    i: int
    k: int
    j: int
    a: float
    b: float
    kept: list  # ((i, j, k or -1 for a sum), value), in order
    written: dict  # (i, j) -> value


def rows_of(x):
    """Return every row as (column, value) pairs, as stored."""
    return [
        list(zip(x.indices[lo:hi].tolist(), x.data[lo:hi].tolist(), strict=True))
        for lo, hi in zip(x.indptr[:-1], x.indptr[1:], strict=True)
    ]


def line_by_line(products, window_of):
    """Add up the entries of a window of lines; write them when the next window begins."""
    kept, written, present = {}, {}, None
    for i, k, j, a, b in products:
        if window_of(i, j) != present:
            written |= kept
            kept, present = {}, window_of(i, j)
        kept[i, j] = kept.get((i, j), 0.0) + a * b
        yield Formed(i, k, j, a, b, [((*place, -1), value) for place, value in kept.items()], dict(written))


def row(a, b, windows):
    rows_b = rows_of(b)
    products = [(i, k, j, av, bv) for i, line in enumerate(rows_of(a)) for k, av in line for j, bv in rows_b[k]]
    return line_by_line(products, lambda i, j: max(w for w in windows if w <= i))


def column(a, b, windows):
    rows_a, rows_b = rows_of(a), rows_of(b)
    products = [
        (i, k, j, av, bv)
        for j in range(b.shape[1])
        for k, line in enumerate(rows_b)
        for other, bv in line if other == j
        for i, line_a in enumerate(rows_a)
        for inner_index, av in line_a if inner_index == k
    ]  # fmt: skip
    return line_by_line(products, lambda i, j: max(w for w in windows if w <= j))


def outer(a, b, windows):
    rows_b, kept = rows_of(b), []
    for k in range(a.shape[1]):
        for i, line in enumerate(rows_of(a)):
            for inner_index, av in line:
                for j, bv in rows_b[k] if inner_index == k else ():
                    kept.append(((i, j, k), av * bv))
                    yield Formed(i, k, j, av, bv, list(kept), {})


def inner(a, b, windows):
    rows_b, written = rows_of(b), {}
    for i, line in enumerate(rows_of(a)):
        for j in range(b.shape[1]):
            total = None
            for k, av in line:
                for bv in (value for other, value in rows_b[k] if other == j):
                    total = (total or 0.0) + av * bv
                    yield Formed(i, k, j, av, bv, [((i, j, -1), total)], dict(written))
            if total is not None:
                written[i, j] = total


def merge(a, b, windows):
    """Row by row, a heap with the first element of every row of B; what is popped is multiplied and added up."""
    rows_b, written = rows_of(b), {}
    for i, line in enumerate(rows_of(a)):
        ways = [sorted(rows_b[k], key=lambda pair: pair[0]) for k, _ in line]
        heap = [(way[0][0], w, 0) for w, way in enumerate(ways) if way]
        heapq.heapify(heap)
        entry, total = None, 0.0
        while heap:
            j, w, at = heapq.heappop(heap)
            if entry not in (None, j):
                written[i, entry] = total
                total = 0.0
            (k, av), bv = line[w], ways[w][at][1]
            entry, total = j, total + av * bv
            waiting = [
                ((i, other, line[v][0]), ways[v][place][1]) for other, v, place in sorted(heap, key=lambda x: x[1])
            ]
            yield Formed(i, k, j, av, bv, [*waiting, ((i, j, -1), total)], dict(written))
            if at + 1 < len(ways[w]):
                heapq.heappush(heap, (ways[w][at + 1][0], w, at + 1))
        if entry is not None:
            written[i, entry] = total


BY_HAND = {"inner": inner, "outer": outer, "row": row, "column": column, "merge": merge}


def pairs():
    """Return operands by name: 1 x 1, rectangular, empty rows and columns, duplicates, unsorted columns, nothing."""
    rng = np.random.default_rng(2)
    found = {}
    for name, (m, k, n) in {"one": (1, 1, 1), "square": (5, 4, 6), "tall": (8, 3, 4), "long": (2, 9, 3)}.items():
        a, b = (rng.integers(1, 9, shape) * (rng.random(shape) < 0.5) for shape in ((m, k), (k, n)))
        a[m // 2 :: 4], b[:, n // 2 :: 3] = (0, 0) if m > 1 else (1, 1)
        found[name] = sp.csr_array(a.astype(float)), sp.csr_array(b.astype(float))
    found["doubled"] = (
        sp.csr_array((np.array([1.0, 2, 0, 4]), np.array([2, 0, 0, 1]), np.array([0, 3, 4])), shape=(2, 3)),
        sp.csr_array((np.array([5.0, 6, 7, 8]), np.array([1, 1, 0, 0]), np.array([0, 2, 2, 4])), shape=(3, 2)),
    )
    found["empty"] = sp.csr_array((3, 2)), sp.csr_array((2, 4))
    found["no rows"] = sp.csr_array((0, 2)), sp.csr_array((2, 4))
    return found
