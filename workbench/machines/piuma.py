"""SMASH's sparse product on one block of Intel's PIUMA: an event-level model, calibrated, never a measurement.

The model replays every hash table exactly (which slot, how many probes, claimed or merged), cuts the work into the
tokens that the 64 threads would fetch, and lets them share issue slots and DRAM bandwidth in a fluid discrete-event
simulation. The constants stand in ``piuma.toml``, each with unit, source and tag; ``README.md`` says why the model is
as it is. Both loops are compiled (``piuma.cpp``).

Symbols: A is m x k, B is k x n; F = number of partial products; S = slots of the table; U = claimed slots of a window.
"""

import itertools
import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

from kernels._native import core, get_num_threads
from kernels.check import as_csr, check_inner
from kernels.matmul.spgemm import dataflow_traffic

_FILE = tomllib.loads(Path(__file__).with_name("piuma.toml").read_text())

HASHES = ("high", "low", "multiplicative")
VERSION_HASH = {1: "high", 2: "low", 3: "low"}
MAX_ITEMS = 2**27  # one item = one nonzero of A in one window; three int64 each

_FULL_CURE = "plan the windows for this table"

Progress = Callable[[float, str], None]


class HashTableFull(RuntimeError):
    """A probe went a whole turn through the table: the windows are too large for it."""


@dataclass(frozen=True)
class Constant:
    """One number of the machine file.

    Parameters
    ----------
    tag : "published" (read there), "from memory" (unverified) or "calibrated" (fixed by us).
    """

    name: str
    value: int | float | str
    unit: str
    meaning: str
    source: str
    tag: str


_ABOVE_ZERO = ("clock_ghz", "l_pipe", "bw", "dma_bw", "net_bw", "line", "word", "wb_eff", "c_nz", "c_pp")


def _constant(name):
    return field(default=_FILE["constants"][name]["value"])


@dataclass(frozen=True)
class PiumaConfig:
    """Constants of the machine and of the kernel on it; ``constants()`` tells unit, meaning, source and tag of each."""

    n_mtc: int = _constant("n_mtc")
    threads_per_mtc: int = _constant("threads_per_mtc")
    clock_ghz: float = _constant("clock_ghz")
    l_pipe: float = _constant("l_pipe")
    l_dram: float = _constant("l_dram")
    l_spad: float = _constant("l_spad")
    l_atomic: float = _constant("l_atomic")
    l_store: float = _constant("l_store")
    bw: float = _constant("bw")
    dma_bw: float = _constant("dma_bw")
    line: int = _constant("line")
    word: int = _constant("word")
    spad_bytes: int = _constant("spad_bytes")
    log2_slots: int = _constant("log2_slots")
    load: float = _constant("load")
    token_pp: int = _constant("token_pp")
    wb_eff: float = _constant("wb_eff")
    c_nz: float = _constant("c_nz")
    c_pp: float = _constant("c_pp")
    c_probe: float = _constant("c_probe")
    c_merge: float = _constant("c_merge")
    c_alloc: float = _constant("c_alloc")
    c_scan: float = _constant("c_scan")
    c_wb: float = _constant("c_wb")
    c_static: float = _constant("c_static")
    c_dyn: float = _constant("c_dyn")
    c_dma: float = _constant("c_dma")
    l_net: float = _constant("l_net")
    net_bw: float = _constant("net_bw")

    def __post_init__(self):
        for f in fields(self):
            value = getattr(self, f.name)
            wanted = (int, np.integer) if f.type is int else (int, float, np.integer, np.floating)
            if isinstance(value, bool) or not isinstance(value, wanted):
                raise TypeError(f"PiumaConfig: {f.name} must be {f.type.__name__}, got {value!r}")
            low = 1e-6 if f.name in _ABOVE_ZERO else 0
            if not low <= value <= 1e9 and f.name != "token_pp":
                raise ValueError(f"PiumaConfig: {f.name} must be from {low} to 1e9, got {value!r}")
        if not 4 <= self.log2_slots <= 26:
            raise ValueError(f"PiumaConfig: log2_slots must be from 4 to 26, got {self.log2_slots}")
        if not 0 < self.load <= 1:
            raise ValueError(f"PiumaConfig: load must be above 0 and at most 1, got {self.load}")
        if not 1 <= self.token_pp < 2**63:
            raise ValueError(f"PiumaConfig: token_pp must be from 1 to 2^63 - 1, got {self.token_pp}")
        if not (self.n_mtc >= 1 and self.threads_per_mtc >= 1 and self.threads <= 4096):
            raise ValueError(
                "PiumaConfig: n_mtc x threads_per_mtc must be from 1 to 4096 threads, "
                f"got {self.n_mtc} x {self.threads_per_mtc}"
            )

    @property
    def threads(self) -> int:
        """Threads of one block."""
        return self.n_mtc * self.threads_per_mtc

    @property
    def slots(self) -> int:
        """Slots of the hash table, S."""
        return 1 << self.log2_slots

    @staticmethod
    def constants() -> tuple[Constant, ...]:
        """List every default with unit, meaning, source and tag."""
        return tuple(Constant(name, **entry) for name, entry in _FILE["constants"].items())

    @staticmethod
    def facts() -> tuple[Constant, ...]:
        """List what is known of the machine beyond what the model uses."""
        return tuple(Constant(name, meaning="", **entry) for name, entry in _FILE["facts"].items())


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
class EventLog:
    """Which thread worked on which token; holds the first events, ``total`` counts them all.

    Parameters
    ----------
    thread, row, window : int64[events]. Thread numbers go on from block to block.
    start, stop : float64[events], cycles.
    """

    thread: np.ndarray
    row: np.ndarray
    window: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    total: int

    @property
    def truncated(self) -> bool:
        """Whether the run had more events than the log keeps."""
        return self.total > len(self.thread)


@dataclass(frozen=True)
class Timeline:
    """The run in bins of equal width; the last bins may lie beyond its end and are then cut away.

    Parameters
    ----------
    edges : float64[bins + 1], cycles.
    instructions, bytes : float64[bins], issued and moved in the bin.
    live_mean, live_peak : float64[bins], partial products held in the scratchpad.
    thread_busy : float64[threads, bins], cycles that the thread held work.
    """

    edges: np.ndarray
    instructions: np.ndarray
    bytes: np.ndarray
    live_mean: np.ndarray
    live_peak: np.ndarray
    thread_busy: np.ndarray


@dataclass(frozen=True)
class WindowTimes:
    """When each window began, was hashed, was handed on or written back, and its DMA transfer ran (NaN in V1, V2).

    Parameters
    ----------
    start, hashed, done, dma_start, dma_stop : float64[windows], cycles.
    inserts : int64[windows], live partial products at ``hashed``.
    block : int64[windows], block that ran it.
    """

    start: np.ndarray
    hashed: np.ndarray
    done: np.ndarray
    dma_start: np.ndarray
    dma_stop: np.ndarray
    inserts: np.ndarray
    block: np.ndarray


@dataclass(frozen=True)
class SimResult:
    """One modelled run. Every number is modelled, except the counts of the trace, which are exact.

    Parameters
    ----------
    version, hash, blocks, config : what was run.
    cycles, ms : time of the slowest block.
    phases : cycles of the slowest block in hashing, write-back and waiting for DMA.
    instructions, ipc : issued by all threads; per cycle.
    streams : DRAM bytes by stream (A, row pointers, B, C).
    bandwidth_utilisation : bytes / (cycles x bw x blocks).
    thread_utilisation : busy thread cycles / (cycles x threads).
    thread_busy : float64[threads], cycles.
    products, inserts, probes : F, structural nnz(C), probes beyond the first.
    histogram : int64[65], products by extra probes.
    tokens, windows : how the work was cut.
    l1_hit_rate : 1 - lines / (2 F + 2 nnz(A)).
    lower_bound : cycles that no schedule can beat: max(bytes / bw, instructions / n_mtc, latency / threads).
    network_bytes : bytes that came from another block.
    peak_live : most slots claimed at once in a block.
    """

    version: int
    hash: str
    blocks: int
    config: PiumaConfig
    cycles: float
    ms: float
    phases: dict[str, float]
    instructions: float
    ipc: float
    streams: dict[str, float]
    bandwidth_utilisation: float
    thread_utilisation: float
    thread_busy: np.ndarray
    products: int
    inserts: int
    probes: int
    histogram: np.ndarray
    tokens: int
    windows: int
    l1_hit_rate: float
    lower_bound: float
    network_bytes: float
    peak_live: int
    block_cycles: np.ndarray
    events: EventLog
    timeline: Timeline
    window_times: WindowTimes

    @property
    def bytes(self) -> float:
        """DRAM bytes of all streams."""
        return sum(self.streams.values())

    @property
    def mean_extra_probes(self) -> float:
        """Probes beyond the first, per partial product."""
        return self.probes / self.products if self.products else 0.0


@dataclass(frozen=True)
class _Structure:
    """CSR structure of both operands in the form the compiled loops read."""

    a_indptr: np.ndarray
    a_indices: np.ndarray
    b_indptr: np.ndarray
    b_indices: np.ndarray
    shape: tuple[int, int]


def _structure(a, b, function) -> _Structure:
    a, b = as_csr(a, function=function, name="a"), as_csr(b, function=function, name="b")
    check_inner(a, b, function=function)
    parts = (a.indptr, a.indices[: a.indptr[-1]], b.indptr, b.indices[: b.indptr[-1]])
    return _Structure(*(np.ascontiguousarray(x, dtype=np.int64) for x in parts), shape=(a.shape[0], b.shape[1]))


def _row_flops(s: _Structure) -> np.ndarray:
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
    s = _structure(a, b, "plan_windows")
    _log2_slots(slots, "plan_windows")
    if not 0 < load <= 1:
        raise ValueError(f"plan_windows: load must be above 0 and at most 1, got {load}")
    return _plan(s, slots, load)


def _log2_slots(slots, function) -> int:
    whole = isinstance(slots, (int, np.integer)) and not isinstance(slots, bool)
    if not whole or slots & (slots - 1) or not 16 <= slots <= 2**26:
        raise ValueError(f"{function}: slots must be a power of two from 2^4 to 2^26, got {slots!r}")
    return int(slots).bit_length() - 1


def _plan(s: _Structure, slots, load) -> WindowPlan:
    m, n = s.shape
    flops = _row_flops(s)
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


def _split_into_passes(s: _Structure, rows, columns, needs, large, slots, load):
    """Replace every window in ``large`` (each a single row) by its passes over column ranges."""
    pieces, last = [], 0
    for w in large:
        pieces.append((rows[last:w], columns[last:w], needs[last:w]))
        ranges, bound = _column_ranges(s, int(rows[w, 0]), math.ceil(needs[w] / (load * slots)), slots)
        pieces.append((np.tile(rows[w], (len(ranges), 1)), ranges, bound))
        last = w + 1
    pieces.append((rows[last:], columns[last:], needs[last:]))
    return tuple(np.concatenate(parts) for parts in zip(*pieces, strict=True))


def _column_ranges(s: _Structure, i, passes, slots):
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
    s = _structure(a, b, "hash_trace")
    return _trace(s, windows, slots, hash, progress)


def _check_tags(function, rows, columns):
    widest = int(rows.max(initial=0))
    if widest * columns >= 2**63:
        raise OverflowError(
            f"{function}: a window of {widest} rows x {columns} columns has tags beyond 2^63; use fewer rows"
        )


def _check_plan(s: _Structure, plan: WindowPlan, function):
    """Refuse windows that are not made for these operands: the compiled loops trust every number in them."""
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


def _trace(s: _Structure, plan: WindowPlan, slots, hash, progress) -> HashTrace:
    log2_slots = _log2_slots(slots, "hash_trace")
    if hash not in HASHES:
        raise ValueError(f"hash_trace: hash must be one of {', '.join(HASHES)}, got {hash!r}")
    _check_plan(s, plan, "hash_trace")
    products, probes, inserts = (np.zeros(plan.item_start[-1], dtype=np.int64) for _ in range(3))
    histogram = np.zeros(65, dtype=np.int64)
    workers = max(1, min(get_num_threads(), 2**24 // slots, len(plan)))
    tables = np.full((workers, slots), -1, dtype=np.int64)
    claimed = np.empty((workers, min(slots, int(plan.need.max(initial=0)))), dtype=np.int32)
    for w0, w1 in _batches(plan, 200_000):
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


def _batches(plan: WindowPlan, products):
    """Cut the windows into runs of about ``products`` partial products (at most twice as many windows)."""
    work = np.cumsum(plan.need + 1 + np.diff(plan.item_start))
    w0 = 0
    while w0 < len(plan):
        done = work[w0 - 1] if w0 else 0
        w1 = max(w0 + 1, int(np.searchsorted(work, done + products)))
        yield w0, min(w1, len(plan))
        w0 = w1


def table_snapshot(a, b, windows, slots, hash="high", window=0) -> np.ndarray:
    """Return the hash table at the end of one window: int64[slots], the tag in each slot, -1 where it is free.

    tag // n is the row counted from the window's first row, tag % n the column.
    """
    s = _structure(a, b, "table_snapshot")
    log2_slots = _log2_slots(slots, "table_snapshot")
    if hash not in HASHES:
        raise ValueError(f"table_snapshot: hash must be one of {', '.join(HASHES)}, got {hash!r}")
    _check_plan(s, windows, "table_snapshot")
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


def spad_bytes_needed(version, config: PiumaConfig) -> float:
    """Return the scratchpad that a version takes: 16 S bytes, and in V3 two dense arrays of load * S elements more."""
    table = 16 * config.slots
    return table + 2 * 16 * config.load * config.slots if version == 3 else table


def simulate_spgemm(
    a,
    b,
    version,
    config: PiumaConfig | None = None,
    *,
    hash=None,
    blocks=1,
    check_spad=True,
    trace: HashTrace | None = None,
    event_limit=100_000,
    bins=1024,
    progress: Progress | None = None,
) -> SimResult:
    """Model C = A B by SMASH on PIUMA: time, traffic, balance and collisions of one kernel version.

    V1: static round-robin split, order-preserving hash. V2: tokens from a shared queue, low-order hash. V3: as V2,
    with the results in dense arrays that the DMA engine writes back while the threads hash the next window.

    Parameters
    ----------
    a, b : CSR, m x k and k x n; only the structure matters.
    version : 1, 2 or 3.
    config : the machine; None for the calibrated defaults.
    hash : "high", "low" or "multiplicative"; None for the version's own.
    blocks : PIUMA blocks. Rows are dealt in contiguous runs of about equal work; row k of B lives in block
        k mod blocks, and lines from other blocks pay ``l_net`` and share ``net_bw``.
    check_spad : refuse tables that the scratchpad cannot hold.
    trace : result of :func:`hash_trace` for these operands, table and hash, to save replaying it (one block only).
    event_limit : events kept in the log of each block; ``events.total`` counts them all.
    bins : even length of the timelines.
    progress : called with (fraction, step) every few ten milliseconds; an exception from it cancels.

    Returns
    -------
    SimResult, everything in it modelled.

    Raises
    ------
    TypeError, ValueError, OverflowError, HashTableFull : as the functions it is made of.

    Source
    ------
    Shivdikar 2021 (kernels, from memory); the cost model and its constants are ours (``piuma.toml``).
    *Differs from the paper:* the thesis ran Intel's in-house simulator, which nobody outside can run.
    """
    s = _structure(a, b, "simulate_spgemm")
    config = PiumaConfig() if config is None else config
    if isinstance(version, bool) or version not in VERSION_HASH:
        raise ValueError(f"simulate_spgemm: version must be 1, 2 or 3, got {version!r}")
    hash = VERSION_HASH[version] if hash is None else hash
    if hash not in HASHES:
        raise ValueError(f"simulate_spgemm: hash must be one of {', '.join(HASHES)}, got {hash!r}")
    if isinstance(blocks, bool) or not isinstance(blocks, (int, np.integer)) or not 1 <= blocks <= 256:
        raise ValueError(f"simulate_spgemm: blocks must be an int from 1 to 256, got {blocks!r}")
    if bins < 2 or bins % 2 or event_limit < 0:
        raise ValueError(f"simulate_spgemm: bins must be even and >= 2, event_limit >= 0; got {bins} and {event_limit}")
    need = spad_bytes_needed(version, config)
    if check_spad and need > config.spad_bytes:
        raise ValueError(
            f"simulate_spgemm: V{version} with 2^{config.log2_slots} slots and load {config.load} needs {need:.0f} B "
            f"of scratchpad, there are {config.spad_bytes}; lower log2_slots or load, or pass check_spad=False"
        )
    wanted = (1, hash, config.slots, config.load)
    if trace is not None and (blocks, trace.hash, trace.plan.slots, trace.plan.load) != wanted:
        raise ValueError("simulate_spgemm: trace must come from the same operands, slots, load and hash, and one block")
    runs = []
    for block, (first, part) in enumerate(_shares(s, blocks)):
        report = _part_of(progress, block, blocks)
        if trace is None:
            plan = _plan(part, config.slots, config.load)
            replayed = _trace(part, plan, config.slots, hash, _scaled(report, 0.0, 0.6))
        else:
            _check_plan(part, trace.plan, "simulate_spgemm")
            replayed = trace
        place = (block, blocks, first)
        runs.append(_run_block(part, replayed, version, config, place, event_limit, bins, _scaled(report, 0.6, 0.4)))
    return _result(runs, version, hash, config)


def _scaled(progress, start, share):
    return (lambda fraction, step: progress(start + share * fraction, step)) if progress else None


def _part_of(progress, block, blocks):
    return _scaled(progress, block / blocks, 1 / blocks)


def _shares(s: _Structure, blocks):
    """Deal the rows of A to the blocks: contiguous runs with about equal numbers of products."""
    work = np.cumsum(_row_flops(s))
    total = int(work[-1]) if len(work) else 0
    cuts = np.searchsorted(work, [total * g / blocks for g in range(1, blocks)])
    cuts = [0, *np.maximum.accumulate(cuts).tolist(), s.shape[0]]
    for first, stop in itertools.pairwise(cuts):
        e0, e1 = s.a_indptr[first], s.a_indptr[stop]
        a_indptr, shape = s.a_indptr[first : stop + 1] - e0, (stop - first, s.shape[1])
        yield first, _Structure(a_indptr, s.a_indices[e0:e1], s.b_indptr, s.b_indices, shape)


_MACHINE_FIELDS = tuple(f.name for f in fields(PiumaConfig) if f.name not in ("clock_ghz", "spad_bytes", "load"))


@dataclass(frozen=True)
class _BlockRun:
    simulation: object
    trace: HashTrace
    nnz: int
    bins: np.ndarray
    thread_bins: np.ndarray
    thread_busy: np.ndarray
    streams: np.ndarray
    phases: np.ndarray
    window_times: np.ndarray
    events: tuple[np.ndarray, ...]


def _run_block(s, trace, version, config, place, event_limit, bins, progress) -> _BlockRun:
    plan = trace.plan
    machine = core.PiumaMachine()
    for name in _MACHINE_FIELDS:
        setattr(machine, name, getattr(config, name))
    limit = min(event_limit, len(trace.products))
    ints, floats = ([np.empty(limit, dtype=t) for _ in range(n)] for t, n in ((np.int64, 3), (np.float64, 2)))
    thread_bins, binned = np.zeros((config.threads, bins)), np.zeros((4, bins))
    thread_busy, streams, phases = np.zeros(config.threads), np.zeros(4), np.zeros(3)
    window_times = np.full((len(plan), 5), np.nan)
    simulation = core.PiumaSimulation(
        machine, version, *place, s.a_indptr, s.a_indices, s.b_indptr, plan.row_start, plan.row_stop,
        plan.item_start, trace.products, trace.probes, trace.inserts, thread_bins, binned, thread_busy, streams, phases,
        window_times, *ints, *floats,
    )  # fmt: skip
    simulation.advance(0)
    for w0, w1 in _batches(plan, 200_000):
        simulation.advance(w1 - w0)
        if progress:
            progress(w1 / len(plan), "simulating the threads")
    kept = simulation.events_kept
    events = tuple(x[:kept] for x in (*ints, *floats))
    outputs = (binned, thread_bins, thread_busy, streams, phases, window_times, events)
    return _BlockRun(simulation, trace, len(s.a_indices), *outputs)


def _result(runs: list[_BlockRun], version, hash, config) -> SimResult:
    sims = [run.simulation for run in runs]
    blocks = len(runs)
    block_cycles = np.array([sim.cycles for sim in sims])
    cycles, slowest = float(block_cycles.max()), runs[int(block_cycles.argmax())]
    moved = sum(run.streams for run in runs)
    instructions = sum(sim.instructions for sim in sims)
    busy = np.concatenate([run.thread_busy for run in runs])
    products = sum(int(run.trace.products.sum()) for run in runs)
    accesses = 2 * products + 2 * sum(run.nnz for run in runs)
    bounds = [
        (run.streams.sum() / config.bw, sim.instructions / config.n_mtc, sim.latency / config.threads)
        for run, sim in zip(runs, sims, strict=True)
    ]

    def per_cycle(total):
        return float(total) / cycles if cycles else 0.0

    return SimResult(
        version=version,
        hash=hash,
        blocks=blocks,
        config=config,
        cycles=cycles,
        ms=cycles / (config.clock_ghz * 1e6),
        phases=dict(zip(("hashing", "write-back", "DMA wait"), slowest.phases.tolist(), strict=True)),
        instructions=instructions,
        ipc=per_cycle(instructions),
        streams=dict(zip(("A", "row pointers", "B", "C"), moved.tolist(), strict=True)),
        bandwidth_utilisation=per_cycle(moved.sum() / (config.bw * blocks)),
        thread_utilisation=per_cycle(busy.mean()),
        thread_busy=busy,
        products=products,
        inserts=sum(run.trace.nnz for run in runs),
        probes=sum(int(run.trace.probes.sum()) for run in runs),
        histogram=sum(run.trace.histogram for run in runs),
        tokens=sum(sim.tokens for sim in sims),
        windows=sum(len(run.trace.plan) for run in runs),
        l1_hit_rate=1 - sum(sim.lines for sim in sims) / accesses if accesses else 0.0,
        lower_bound=float(max(map(max, bounds))),
        network_bytes=sum(sim.network_bytes for sim in sims),
        peak_live=max(sim.peak_live for sim in sims),
        block_cycles=block_cycles,
        events=EventLog(
            *(np.concatenate(parts) for parts in zip(*(run.events for run in runs), strict=True)),
            total=sum(sim.event_count for sim in sims),
        ),
        timeline=_timeline(runs, cycles),
        window_times=_window_times(runs),
    )


def _coarsened(x, factor, merge):
    """Merge ``factor`` neighbouring bins along the last axis, and pad back to the length with zeros."""
    if factor == 1:
        return x
    merged = merge(x.reshape(*x.shape[:-1], -1, factor), axis=-1)
    return np.pad(merged, [(0, 0)] * (x.ndim - 1) + [(0, x.shape[-1] - merged.shape[-1])])


def _timeline(runs: list[_BlockRun], cycles) -> Timeline:
    width = max(run.simulation.bin_width for run in runs)
    factors = [round(width / run.simulation.bin_width) for run in runs]
    used = max(1, math.ceil(cycles / width))
    sums = sum(_coarsened(run.bins[:3], f, np.sum) for run, f in zip(runs, factors, strict=True))[:, :used]
    peak = sum(_coarsened(run.bins[3], f, np.max) for run, f in zip(runs, factors, strict=True))[:used]
    busy = [_coarsened(run.thread_bins, f, np.sum)[:, :used] for run, f in zip(runs, factors, strict=True)]
    edges = np.minimum(np.arange(used + 1) * width, max(cycles, 0))
    live = np.divide(sums[2], np.diff(edges), out=np.zeros(used), where=np.diff(edges) > 0)
    return Timeline(edges, sums[0], sums[1], live, peak, np.concatenate(busy))


def _window_times(runs: list[_BlockRun]) -> WindowTimes:
    times = np.concatenate([run.window_times for run in runs])
    inserts = [np.add.reduceat(np.append(run.trace.inserts, 0), run.trace.plan.item_start[:-1]) for run in runs]
    inserts = [np.where(np.diff(run.trace.plan.item_start) > 0, u, 0) for run, u in zip(runs, inserts, strict=True)]
    block = np.concatenate([np.full(len(run.window_times), g) for g, run in enumerate(runs)])
    return WindowTimes(*times.T, np.concatenate(inserts), block)


@dataclass(frozen=True)
class BaselineResult:
    """A dataflow on the same machine, by closed form: perfect balance, perfect overlap. Modelled.

    Parameters
    ----------
    dataflow : "inner", "inner-masked", "outer", "row" or "column".
    cycles, ms : the largest of the three ``bounds``.
    bounds : cycles that DRAM bandwidth, instruction issue and latency each take.
    streams : DRAM bytes by stream; the outer product stores partial products and reads them back.
    instructions, accesses : issued; DRAM accesses (elements and row pointers).
    peak_live : most partial results alive at once.
    """

    dataflow: str
    cycles: float
    ms: float
    bounds: dict[str, float]
    streams: dict[str, float]
    instructions: float
    accesses: float
    peak_live: int


def baseline(a, b, dataflow, config: PiumaConfig | None = None) -> BaselineResult:
    """Bound a dataflow on one block: cycles = max(bytes / bw, I / n_mtc, (I l_pipe + accesses l_dram) / threads).

    I = c_pp per product, plus c_probe per index comparison (inner) or 2 c_probe per product (merge of the outer
    product). Bytes come from :func:`kernels.matmul.spgemm.dataflow_traffic` without a cache, 16 bytes an element.

    Parameters
    ----------
    a, b : CSR, m x k and k x n.
    dataflow : "inner", "inner-masked", "outer", "row" or "column".

    Source
    ------
    Ours: the paper compares dataflows in words (from memory).
    """
    config = PiumaConfig() if config is None else config
    traffic = dataflow_traffic(a, b, dataflow)
    comparing = {"outer": 2 * traffic.flops}.get(dataflow, traffic.comparisons)
    instructions = config.c_pp * traffic.flops + config.c_probe * comparing
    accesses = traffic.elements + traffic.ptr
    bounds = {
        "bandwidth": traffic.total_bytes / config.bw,
        "issue": instructions / config.n_mtc,
        "latency": (instructions * config.l_pipe + accesses * config.l_dram) / config.threads,
    }
    names = {"read_a": "A", "ptr": "row pointers", "read_b": "B", "pp_written": "partial products written",
             "pp_read": "partial products read", "write_c": "C"}  # fmt: skip
    streams = {name: float(traffic.bytes_by_stream[key]) for key, name in names.items()}
    cycles = float(max(bounds.values()))
    ms = cycles / (config.clock_ghz * 1e6)
    return BaselineResult(dataflow, cycles, ms, bounds, streams, instructions, accesses, traffic.peak_live)
