"""SMASH's hash tables on a real input: which rows share a table, and what every partial product does in it. Exact.

Symbols: A is m x k, B is k x n; f_i = partial products of row i; S = slots of the table.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kernels._native import core, get_num_threads
from kernels.check import as_csr, as_int, as_number, check_callable, check_choice, check_inner

HASHES = ("high", "low", "multiplicative")
MAX_ITEMS = 2**27  # one item = one nonzero of A in one window; three int64 each

_FULL_CURE = "plan the windows for this table"

Progress = Callable[[float, str], None]


class HashTableFull(RuntimeError):
    """A probe went a whole turn through the table: the windows are too large for it."""


@dataclass(frozen=True)
class WindowPlan:
    """Windows of consecutive rows, each small enough for one hash table.

    A row that needs more than one table holds is cut into column ranges, one window (pass) per range.

    Parameters
    ----------
    row_start, row_stop : int64[windows], rows of A that the window covers.
    column_start, column_stop : int64[windows], columns of B it takes; all of them except in passes.
    item_start : int64[windows + 1], running number of A nonzeros that the windows read (passes read theirs again).
    need : int64[windows], upper bound of the claimed slots: sum of min(f_i, n).
    slots, load : the table's size and the share of it that a window may claim.
    shape : (m, n) of the product.
    """

    row_start: np.ndarray
    row_stop: np.ndarray
    column_start: np.ndarray
    column_stop: np.ndarray
    item_start: np.ndarray
    need: np.ndarray
    slots: int
    load: float
    shape: tuple[int, int]

    def __len__(self):
        return len(self.row_start)

    @property
    def rereads(self) -> int:
        """A nonzeros read again because their row takes several passes."""
        again = (self.column_start > 0) & (self.column_stop > 0)
        return int(np.diff(self.item_start)[again].sum())


@dataclass(frozen=True)
class HashTrace:
    """What happened in the hash tables, item by item (item = one nonzero of A in one window).

    Parameters
    ----------
    products, probes, inserts : int64[items]; probes counts those beyond the first of each product.
    histogram : int64[65], products by extra probes 0, 1, ..., 63, and 64 or more.
    plan, hash : what was replayed.
    """

    products: np.ndarray
    probes: np.ndarray
    inserts: np.ndarray
    histogram: np.ndarray
    plan: WindowPlan
    hash: str

    @property
    def mean_extra_probes(self) -> float:
        """Probes beyond the first, per partial product."""
        total = int(self.products.sum())
        return int(self.probes.sum()) / total if total else 0.0

    @property
    def nnz(self) -> int:
        """Structural nonzeros of the product: every claimed slot is one."""
        return int(self.inserts.sum())


@dataclass(frozen=True)
class Structure:
    """CSR structure of both operands in the form the compiled loops read."""

    a_indptr: np.ndarray
    a_indices: np.ndarray
    b_indptr: np.ndarray
    b_indices: np.ndarray
    shape: tuple[int, int]


def structure(a, b, function) -> Structure:
    a, b = as_csr(a, function=function, name="a"), as_csr(b, function=function, name="b")
    check_inner(a, b, function=function)
    parts = (a.indptr, a.indices[: a.indptr[-1]], b.indptr, b.indices[: b.indptr[-1]])
    return Structure(*(np.ascontiguousarray(x, dtype=np.int64) for x in parts), shape=(a.shape[0], b.shape[1]))


def row_work(s: Structure) -> np.ndarray:
    running = np.concatenate([[0], np.cumsum(np.diff(s.b_indptr)[s.a_indices])])
    return np.diff(running[s.a_indptr])


def plan_windows(a, b, slots, load) -> WindowPlan:
    """Group the rows of C = A B into windows whose hash table fits ``slots``.

    need_i = min(f_i, n) bounds the entries of row i; rows join a window in order while its needs sum to at most
    load * slots. A row above that alone is cut into ceil(need_i / (load * slots)) column ranges of equal width, and
    a range whose products could still fill the whole table is halved until they cannot.

    Parameters
    ----------
    a, b : CSR, m x k and k x n.
    slots : power of two from 2^4 to 2^26.
    load : in (0, 1].

    Raises
    ------
    OverflowError : the tags of a window, rows x n, pass 2^63.

    Source
    ------
    Shivdikar 2021, window distribution (from memory). *Differs from the paper:* halving is ours.
    """
    s = structure(a, b, "plan_windows")
    slots = 1 << log2_of(slots, "plan_windows")
    return plan_structure(s, slots, as_number(load, function="plan_windows", name="load", above=0, high=1))


def log2_of(slots, function) -> int:
    slots = as_int(slots, function=function, name="slots")
    if slots & (slots - 1) or not 16 <= slots <= 2**26:
        raise ValueError(f"{function}: slots must be a power of two from 2^4 to 2^26, got {slots}")
    return slots.bit_length() - 1


def plan_structure(s: Structure, slots, load) -> WindowPlan:
    m, n = s.shape
    flops = row_work(s)
    need = np.minimum(flops, n)
    starts = np.empty(m + 1, dtype=np.int64)
    count = core.piuma_plan(need, load * slots, starts)
    starts = starts[: count + 1]
    rows = np.stack([starts[:-1], starts[1:]], axis=1)  # (windows, 2)
    columns = np.tile(np.array([0, n], dtype=np.int64), (count, 1))
    needs = np.add.reduceat(need, starts[:-1]) if count else need
    large = np.flatnonzero(needs > load * slots)
    if len(large):
        rows, columns, needs = _split_into_passes(s, rows, columns, needs, large, slots, load)
    _check_tags("plan_windows", rows[:, 1] - rows[:, 0], n)
    items = np.concatenate([[0], np.cumsum(s.a_indptr[rows[:, 1]] - s.a_indptr[rows[:, 0]])])
    if items[-1] > MAX_ITEMS:
        raise ValueError(
            f"plan_windows: {len(rows)} windows read {items[-1]} entries of a, more than the {MAX_ITEMS} "
            "that the model keeps; raise slots or load"
        )
    ranges = (np.ascontiguousarray(x) for x in (*rows.T, *columns.T))
    return WindowPlan(*ranges, items.astype(np.int64), needs, int(slots), float(load), s.shape)


def _split_into_passes(s: Structure, rows, columns, needs, large, slots, load):
    """Replace every window in ``large`` (each a single row) by its passes over column ranges."""
    pieces, last = [], 0
    for w in large:
        pieces.append((rows[last:w], columns[last:w], needs[last:w]))
        ranges, bound = _column_ranges(s, int(rows[w, 0]), math.ceil(needs[w] / (load * slots)), slots)
        pieces.append((np.tile(rows[w], (len(ranges), 1)), ranges, bound))
        last = w + 1
    pieces.append((rows[last:], columns[last:], needs[last:]))
    return tuple(np.concatenate(parts) for parts in zip(*pieces, strict=True))


def _column_ranges(s: Structure, i, passes, slots):
    n = s.shape[1]
    reached = [s.b_indices[s.b_indptr[k] : s.b_indptr[k + 1]] for k in s.a_indices[s.a_indptr[i] : s.a_indptr[i + 1]]]
    reached = np.sort(np.concatenate(reached))
    todo = [(n * p // passes, n * (p + 1) // passes) for p in reversed(range(min(passes, n)))]
    ranges, bounds = [], []
    while todo:
        c0, c1 = todo.pop()
        bound = min(int(np.diff(np.searchsorted(reached, [c0, c1]))[0]), c1 - c0)
        if bound > slots:
            middle = (c0 + c1) // 2
            todo += [(middle, c1), (c0, middle)]
            continue
        ranges.append((c0, c1))
        bounds.append(bound)
    return np.array(ranges, dtype=np.int64), np.array(bounds, dtype=np.int64)


def hash_trace(a, b, windows, slots, hash="high", *, progress: Progress | None = None) -> HashTrace:
    """Replay every hash table of the product exactly, in row-major order.

    tag = (i - first row) * n + j; home slot by ``hash``: "high" = tag >> max(0, ceil(log2(rows * n)) - s) keeps the
    order, "low" = tag mod S, "multiplicative" = (tag * 0x9E3779B97F4A7C15 mod 2^64) >> (64 - s); then linear probing.
    In a pass over columns [c0, c1) tags count from c0 and n is the width of the range.

    Parameters
    ----------
    a, b : CSR, m x k and k x n.
    windows : from :func:`plan_windows` on the same operands.
    slots : S = 2^s, normally ``windows.slots``.
    progress : called with (fraction, step) every few ten milliseconds; an exception from it cancels.

    Raises
    ------
    HashTableFull : a table ran full, which windows planned for ``slots`` make impossible.

    Cost
    ----
    Time grows with products + probes; one table (8 S bytes) per thread.

    Source
    ------
    Shivdikar 2021, V1 (high bits) and V2 (low bits), from memory; the multiplicative hash is ours.
    """
    s = structure(a, b, "hash_trace")
    check_callable(progress, function="hash_trace", name="progress")
    return trace_structure(s, windows, slots, hash, progress)


def _check_tags(function, rows, columns):
    widest = int(rows.max(initial=0))
    if widest * columns >= 2**63:
        raise OverflowError(
            f"{function}: a window of {widest} rows x {columns} columns has tags beyond 2^63; use fewer rows"
        )


def check_plan(s: Structure, plan: WindowPlan, function):
    """Refuse windows that are not made for these operands: the compiled loops trust every number in them."""
    if not isinstance(plan, WindowPlan):
        raise TypeError(f"{function}: windows must be what plan_windows returns, got {type(plan).__name__}")
    m, n = s.shape
    ranges = ((plan.row_start, plan.row_stop, m), (plan.column_start, plan.column_stop, n))
    inside = plan.shape == s.shape and all(
        np.all((start >= 0) & (start <= stop) & (stop <= most)) for start, stop, most in ranges
    )
    if inside:
        items = np.cumsum(s.a_indptr[plan.row_stop] - s.a_indptr[plan.row_start])
        inside = plan.item_start[0] == 0 and np.array_equal(items, plan.item_start[1:])
    if not inside:
        raise ValueError(f"{function}: windows were planned for other operands; plan them again for these")
    _check_tags(function, plan.row_stop - plan.row_start, n)


def trace_structure(s: Structure, plan: WindowPlan, slots, hash, progress) -> HashTrace:
    log2_slots = log2_of(slots, "hash_trace")
    slots = 1 << log2_slots
    check_choice(hash, HASHES, function="hash_trace", name="hash")
    check_plan(s, plan, "hash_trace")
    products, probes, inserts = (np.zeros(plan.item_start[-1], dtype=np.int64) for _ in range(3))
    histogram = np.zeros(65, dtype=np.int64)
    workers = max(1, min(get_num_threads(), 2**24 // slots, len(plan)))
    tables = np.full((workers, slots), -1, dtype=np.int64)
    claimed = np.empty((workers, min(slots, int(plan.need.max(initial=0)))), dtype=np.int32)
    for w0, w1 in batches(plan):
        full = core.piuma_trace(
            s.a_indptr, s.a_indices, s.b_indptr, s.b_indices, plan.row_start, plan.row_stop, plan.column_start,
            plan.column_stop, plan.item_start, HASHES.index(hash), log2_slots, w0, w1, False, tables, claimed,
            products, probes, inserts, histogram,
        )  # fmt: skip
        if full >= 0:
            raise HashTableFull(f"hash_trace: the table of {slots} slots ran full in window {full}; {_FULL_CURE}")
        if progress:
            progress(w1 / len(plan), "replaying the hash tables")
    return HashTrace(products, probes, inserts, histogram, plan, hash)


def batches(plan: WindowPlan):
    """Cut the windows into runs that the caller works off in about 30 ms each, so that it can be stopped soon."""
    work = np.cumsum(plan.need + 1 + np.diff(plan.item_start))
    w0, size = 0, 50_000.0
    while w0 < len(plan):
        done = work[w0 - 1] if w0 else 0
        w1 = min(len(plan), max(w0 + 1, int(np.searchsorted(work, done + size))))
        start = time.perf_counter()
        yield w0, w1
        elapsed = max(time.perf_counter() - start, 1e-6)
        w0, size = w1, size * min(4.0, max(0.25, 0.03 / elapsed))


def table_snapshot(a, b, windows, slots, hash="high", window=0) -> np.ndarray:
    """Return the hash table at the end of one window: int64[slots], the tag in each slot, -1 where it is free.

    tag // n is the row counted from the window's first row, tag % n the column.
    """
    s = structure(a, b, "table_snapshot")
    log2_slots = log2_of(slots, "table_snapshot")
    slots = 1 << log2_slots
    check_choice(hash, HASHES, function="table_snapshot", name="hash")
    check_plan(s, windows, "table_snapshot")
    window = as_int(window, function="table_snapshot", name="window")
    if not 0 <= window < len(windows):
        raise ValueError(f"table_snapshot: window must be from 0 to {len(windows) - 1}, got {window}")
    table = np.full((1, slots), -1, dtype=np.int64)
    scratch = [np.zeros(windows.item_start[-1], dtype=np.int64) for _ in range(3)]
    full = core.piuma_trace(
        s.a_indptr, s.a_indices, s.b_indptr, s.b_indices, windows.row_start, windows.row_stop, windows.column_start,
        windows.column_stop, windows.item_start, HASHES.index(hash), log2_slots, window, window + 1, True, table,
        np.empty((1, 0), dtype=np.int32), *scratch, np.zeros(65, dtype=np.int64),
    )  # fmt: skip
    if full >= 0:
        raise HashTableFull(f"table_snapshot: the table of {slots} slots ran full in window {full}; {_FULL_CURE}")
    return table[0]
