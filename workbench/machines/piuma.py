"""SMASH's sparse product on one block of Intel's PIUMA: an event-level model, calibrated, never a measurement.

The model replays every hash table exactly (which slot, how many probes, claimed or merged), cuts the work into the
tokens that the 64 threads would fetch, and lets them share issue slots and DRAM bandwidth in a fluid discrete-event
simulation. The constants stand in ``piuma.toml``, each with unit, source and tag; ``README.md`` says why the model is
as it is. Both loops are compiled (``piuma.cpp``).

Symbols: A is m x k, B is k x n; F = number of partial products; S = slots of the table; U = claimed slots of a window.
"""

import itertools
import math
from dataclasses import dataclass, fields

import numpy as np

from kernels._native import core
from kernels.check import as_int, check_callable, check_choice
from kernels.matmul.traffic import dataflow_traffic
from workbench.machines.piuma_config import Constant, PiumaConfig
from workbench.machines.piuma_result import EventLog, SimResult, Timeline, WindowTimes
from workbench.machines.piuma_tables import (
    HASHES,
    HashTableFull,
    HashTrace,
    Progress,
    Structure,
    WindowPlan,
    batches,
    check_plan,
    hash_trace,
    plan_structure,
    plan_windows,
    row_work,
    structure,
    table_snapshot,
    trace_structure,
)

__all__ = [
    "HASHES",
    "VERSION_HASH",
    "BaselineResult",
    "Constant",
    "HashTableFull",
    "HashTrace",
    "PiumaConfig",
    "SimResult",
    "WindowPlan",
    "baseline",
    "hash_trace",
    "plan_windows",
    "simulate_spgemm",
    "spad_bytes_needed",
    "table_snapshot",
]

VERSION_HASH = {1: "high", 2: "low", 3: "low"}
PHASES = ("counting", "hashing", "write-back", "clearing", "DMA wait")
MAX_THREAD_BINS = 2**26


def spad_bytes_needed(version, config: PiumaConfig) -> float:
    """Return the scratchpad that a version takes: 16 S bytes, and in V3 two dense arrays of load * S elements more."""
    version = as_int(version, function="spad_bytes_needed", name="version", low=1, high=3)
    table = 16 * _checked_config(config, "spad_bytes_needed").slots
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
    s = structure(a, b, "simulate_spgemm")
    name = "simulate_spgemm"
    config = _checked_config(config, name)
    version = as_int(version, function=name, name="version", low=1, high=3)
    hash = VERSION_HASH[version] if hash is None else hash
    check_choice(hash, HASHES, function=name, name="hash")
    blocks = as_int(blocks, function=name, name="blocks", low=1, high=256)
    check_callable(progress, function=name, name="progress")
    bins = as_int(bins, function=name, name="bins", low=2)
    event_limit = as_int(event_limit, function=name, name="event_limit", low=0)
    if bins % 2:
        raise ValueError(f"{name}: bins must be even, got {bins}")
    if trace is not None and not isinstance(trace, HashTrace):
        raise TypeError(f"{name}: trace must be what hash_trace returns, got {type(trace).__name__}")
    if config.threads * blocks * bins > MAX_THREAD_BINS:
        raise ValueError(
            f"simulate_spgemm: {config.threads} threads x {blocks} blocks x {bins} bins are more than the "
            f"{MAX_THREAD_BINS} that the timeline keeps; lower bins"
        )
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
            plan = plan_structure(part, config.slots, config.load)
            replayed = trace_structure(part, plan, config.slots, hash, _scaled(report, 0.0, 0.6))
        else:
            check_plan(part, trace.plan, "simulate_spgemm")
            replayed = trace
        place = (block, blocks, first)
        runs.append(_run_block(part, replayed, version, config, place, event_limit, bins, _scaled(report, 0.6, 0.4)))
    return _result(runs, version, hash, config)


def _checked_config(config, function):
    if config is not None and not isinstance(config, PiumaConfig):
        raise TypeError(f"{function}: config must be a PiumaConfig or None, got {type(config).__name__}")
    return PiumaConfig() if config is None else config


def _scaled(progress, start, share):
    return (lambda fraction, step: progress(start + share * fraction, step)) if progress else None


def _part_of(progress, block, blocks):
    return _scaled(progress, block / blocks, 1 / blocks)


def _shares(s: Structure, blocks):
    """Deal the rows of A to the blocks: contiguous runs with about equal numbers of products."""
    work = np.cumsum(row_work(s))
    total = int(work[-1]) if len(work) else 0
    cuts = np.searchsorted(work, [total * g / blocks for g in range(1, blocks)], side="right")
    cuts = [0, *np.maximum.accumulate(cuts).tolist(), s.shape[0]]
    for first, stop in itertools.pairwise(cuts):
        e0, e1 = s.a_indptr[first], s.a_indptr[stop]
        a_indptr, shape = s.a_indptr[first : stop + 1] - e0, (stop - first, s.shape[1])
        yield first, Structure(a_indptr, s.a_indices[e0:e1], s.b_indptr, s.b_indices, shape)


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
    thread_busy, streams, phases = np.zeros(config.threads), np.zeros(4), np.zeros(len(PHASES))
    window_times = np.full((len(plan), 5), np.nan)
    simulation = core.PiumaSimulation(
        machine, version, *place, s.a_indptr, s.a_indices, s.b_indptr, plan.row_start, plan.row_stop,
        plan.item_start, trace.products, trace.probes, trace.inserts, thread_bins, binned, thread_busy, streams, phases,
        window_times, *ints, *floats,
    )  # fmt: skip
    simulation.advance(0)
    for w0, w1 in batches(plan):
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
    hashed = config.threads * sum(float(run.phases[PHASES.index("hashing")]) for run in runs)
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
        phases=dict(zip(PHASES, slowest.phases.tolist(), strict=True)),
        instructions=instructions,
        ipc=per_cycle(instructions),
        streams=dict(zip(("A", "row pointers", "B", "C"), moved.tolist(), strict=True)),
        bandwidth_utilisation=per_cycle(moved.sum() / (config.bw * blocks)),
        thread_utilisation=per_cycle(busy.mean()),
        hashing_utilisation=sum(sim.hashing_busy for sim in sims) / hashed if hashed else 0.0,
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
    """Merge ``factor`` (a power of two) neighbouring bins along the last axis, and pad with zeros to the old length."""
    while factor > 1:
        merged = merge(x[..., ::2], x[..., 1::2])
        x = np.concatenate([merged, np.zeros_like(merged)], axis=-1)
        factor //= 2
    return x


def _timeline(runs: list[_BlockRun], cycles) -> Timeline:
    width = max(run.simulation.bin_width for run in runs)
    factors = [round(width / run.simulation.bin_width) for run in runs]
    used = max(1, math.ceil(cycles / width))
    sums = sum(_coarsened(run.bins[:3], f, np.add) for run, f in zip(runs, factors, strict=True))[:, :used]
    peak = sum(_coarsened(run.bins[3], f, np.maximum) for run, f in zip(runs, factors, strict=True))[:used]
    busy = [_coarsened(run.thread_bins, f, np.add)[:, :used] for run, f in zip(runs, factors, strict=True)]
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
    dataflow : one of those of :func:`kernels.matmul.traffic.dataflow_traffic`.
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

    I = c_pp per product, plus c_probe per index comparison (inner, merge) or 2 c_probe per product (merge of the outer
    product). Bytes come from :func:`kernels.matmul.traffic.dataflow_traffic` without a cache, 16 bytes an element.

    Parameters
    ----------
    a, b : CSR, m x k and k x n.
    dataflow : one of those of :func:`kernels.matmul.traffic.dataflow_traffic`.

    Source
    ------
    Ours: the paper compares dataflows in words (from memory).
    """
    config = _checked_config(config, "baseline")
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
