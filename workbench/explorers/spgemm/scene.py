"""Fills the scene of the SpGEMM traffic view: operands, exact counts, and the runs of the machine model."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels.check import as_csr
from kernels.matmul.dataflow import dataflow_steps, output_births
from kernels.matmul.dataflow_order import DATAFLOWS, dataflow_order
from kernels.matmul.spgemm import row_flops, spgemm
from kernels.matmul.traffic import dataflow_traffic
from widgets.figures.spgemm_dataflows import STEPPED, line_windows
from widgets.figures.spgemm_scene import (
    STREAMS,
    Constant,
    Gantt,
    LiveCurve,
    Machine,
    MachineRun,
    Operand,
    ProbeHistogram,
    Roofline,
    StreamBytes,
    TableOccupancy,
    TrafficScene,
    Utilisation,
)
from workbench.explorers.spgemm import machine
from workbench.explorers.spgemm.source import Pair
from workbench.machines import piuma

MAX_PRODUCTS = 10**7
_HASH_LABEL = {"high": "high bits", "low": "low bits", "multiplicative": "multiplicative"}


class _Kept:
    """The last results by key, so that a view that goes back to a setting need not compute again."""

    def __init__(self, size):
        self._size, self._results, self._lock = size, OrderedDict(), threading.Lock()

    def get(self, key, make):
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
        made = make()
        with self._lock:
            self._results[key] = made
            while len(self._results) > self._size:
                self._results.popitem(last=False)
        return made


_counts, _table_steps, _machines, _tables = (_Kept(size) for size in (4, 8, 8, 16))


def traffic_scene(
    pair: Pair, state: Mapping[str, Any], progress: Callable[[float, str], None] = lambda fraction, step: None
) -> TrafficScene:
    """Return all that the view draws for a pair of operands; what was computed for recent settings is kept.

    Parameters
    ----------
    pair : the operands.
    state : "cache", "table_window" and the knobs of `machine`.
    progress : told the fraction done and the step.

    Raises
    ------
    ValueError : more than MAX_PRODUCTS partial products.
    """
    products = int(row_flops(pair.a, pair.b).sum())
    if products > MAX_PRODUCTS:
        raise ValueError(
            f"This product has {products:,} partial products, the limit of the live view is {MAX_PRODUCTS:,}: "
            "take smaller operands, or sparser ones."
        )
    counted = _counts.get(pair.made_from, lambda: _count(pair, progress))
    progress(0.3, "planning the windows")
    plan = piuma.plan_windows(pair.a, pair.b, 2 ** state["log2_slots"], state["load"])
    table = np.unique(plan.row_start) if len(plan) else np.zeros(1, np.int64)
    windows = {key: line_windows(flow, counted.c.shape, table) for key, flow in STEPPED.items()}
    shared = {
        key: _table_steps.get(
            (pair.made_from, key, table.tobytes()),
            lambda key=key: _steps(pair, key, windows, _between(progress, 0.3, f"windows, {STEPPED[key].label}")),
        )
        for key in STEPPED
        if key not in counted.steps
    }
    run, note = _machine(pair, state, plan, progress)
    return TrafficScene(
        title=pair.title,
        a=counted.a,
        b=counted.b,
        c=counted.c,
        products=products,
        traffic=counted.traffic[state["cache"]],
        orders=counted.orders,
        steps={key: (counted.steps | shared)[key] for key in STEPPED},
        births=counted.births,
        windows=windows,
        slots=plan.slots,
        machine=run,
        machine_note=note,
    )


@dataclass(frozen=True, kw_only=True)
class _Counted:
    a: Operand
    b: Operand
    c: Operand
    traffic: dict
    orders: dict
    steps: dict
    births: dict


def _count(pair, progress):
    progress(0.05, "counting the traffic")
    traffic = {cache: _stream_bytes(pair, cache) for cache in ("none", "ideal")}
    a, b, c = (_operand(*x) for x in (("A", pair.a), ("B", pair.b), ("C", spgemm(pair.a, pair.b))))
    orders, births = {}, {}
    for place, order in enumerate(DATAFLOWS):
        at = 0.08 + 0.02 * place
        orders[order] = dataflow_order(pair.a, pair.b, order)
        births[order] = output_births(pair.a, pair.b, order, progress=_between(progress, at, f"{order} products"))
    # What a table's windows decide is counted apart: they depend on the machine.
    alone = {key: line_windows(flow, c.shape, np.zeros(1, np.int64)) for key, flow in STEPPED.items()}
    steps = {
        key: _steps(pair, key, alone, _between(progress, 0.18 + 0.02 * place, f"steps, {flow.label}"))
        for place, (key, flow) in enumerate(STEPPED.items())
        if flow.windows != "table"
    }
    return _Counted(a=a, b=b, c=c, traffic=traffic, orders=orders, steps=steps, births=births)


def _steps(pair, key, windows, progress):
    return dataflow_steps(pair.a, pair.b, STEPPED[key].order, windows=windows[key], progress=progress)


def _between(progress, start, step, share=0.02):
    return lambda fraction: progress(start + share * fraction, step)


def _operand(name, a):
    a = as_csr(a, function="TrafficScene", name=name)  # without spare room behind its entries
    return Operand(
        name=name,
        shape=a.shape,
        indptr=a.indptr.astype(np.int64),
        indices=a.indices.astype(np.int64),
        values=a.data.astype(np.float64),
    )


def _stream_bytes(pair, cache):
    columns = ("read_a", "read_b", "ptr", "pp_written", "pp_read", "write_c")
    flows = ("inner", "inner-masked", "outer", "row", "column", "merge")
    counts = [dataflow_traffic(pair.a, pair.b, flow, cache=cache).bytes_by_stream for flow in flows]
    names = ("inner", "inner, C known", "outer", "row", "column", "merge")
    table = np.array([[float(c[stream]) for stream in columns] for c in counts])
    note = "16 B an element, 8 B a pointer; " + (
        "no cache: every re-use goes off-chip" if cache == "none" else "ideal cache: each operand element read once"
    )
    return StreamBytes(dataflows=names, streams=STREAMS, bytes=table, note=note)


def _machine(pair, state, plan, progress):
    """Return the machine's part of the scene, or None and the sentence that says why there is none."""
    config = machine.machine_config(state)
    settings = tuple(state[knob.key] for knob in (machine.HASH, *machine.CONSTANTS, machine.BLOCKS))
    alone = state["version"] if state["load"] >= machine.HIGH_LOAD else 0  # V1 runs there only when asked for
    try:
        runs, results, left_out, traces = _machines.get(
            (pair.made_from, settings, alone), lambda: _simulate(pair, state, config, plan, progress)
        )
        window = min(state["table_window"], max(len(plan) - 1, 0))
        key = (pair.made_from, plan.slots, plan.load, window)
        tables = _tables.get(key, lambda: _occupancy(pair, plan, window))
    except piuma.HashTableFull as error:
        return None, str(error)
    version, labels = f"V{state['version']}", [run.label for run in runs]
    if version not in labels:
        return None, next(text for text in left_out if text.startswith(version))
    probes = ProbeHistogram(
        labels=tuple(_HASH_LABEL[bits] for bits in traces),
        counts=np.stack([trace.histogram for trace in traces.values()]),
        mean=np.array([trace.mean_extra_probes for trace in traces.values()]),
    )
    drawn = Machine(
        runs=runs,
        shown=labels.index(version),
        left_out=left_out,
        probes=probes,
        occupancy=tables,
        roofline=_roofline(pair, results, config),
        constants=_constants(config),
    )
    return drawn, ""


def _simulate(pair, state, config, plan, progress):
    chosen = state["version"]
    runs, results, left_out, traces = [], [], [], {}
    for version in piuma.VERSION_HASH:
        label, bits = f"V{version}", machine.hash_bits(state, version)
        need = piuma.spad_bytes_needed(version, config)
        if need > config.spad_bytes:
            left_out.append(
                f"{label} needs {need / 2**20:.3g} MiB of scratchpad, a block has {config.spad_bytes / 2**20:g}: "
                "lower the slots or the load."
            )
            continue
        if version != chosen and config.load >= machine.HIGH_LOAD and bits == "high":
            left_out.append(
                f"{label} is left out: high-order bits at load {machine.HIGH_LOAD:g} or more need thousands of probes."
            )
            continue

        def report(fraction, step, version=version):
            progress(0.35 + 0.6 * (version - 1 + fraction) / 3, f"V{version}: {step}")

        known = traces.get(bits) if state["blocks"] == 1 else None
        if state["blocks"] == 1 and known is None:
            known = piuma.hash_trace(pair.a, pair.b, plan, config.slots, bits, progress=report)
        result = piuma.simulate_spgemm(
            pair.a, pair.b, version, config, hash=bits, blocks=state["blocks"], trace=known, progress=report
        )
        traces.setdefault(bits, known or result)
        results.append((label, result))
        runs.append(_run(label, result))
    return tuple(runs), tuple(results), tuple(left_out), traces


def _run(label, result):
    config, timeline, events = result.config, result.timeline, result.events
    width = np.maximum(np.diff(timeline.edges), 1e-12)
    threads = config.threads * result.blocks
    series = {
        "issue slots": timeline.instructions / (width * config.n_mtc * result.blocks),
        "DRAM bandwidth": timeline.bytes / (width * config.bw * result.blocks),
        "threads busy": timeline.thread_busy.sum(axis=0) / (width * threads),
    }
    middle = (timeline.edges[:-1] + timeline.edges[1:]) / 2
    totals = {
        "time (ms)": result.ms,
        "instructions per cycle": result.ipc,
        "DRAM bandwidth in use": result.bandwidth_utilisation,
        "threads busy": result.thread_utilisation,
        "extra probes per product": result.mean_extra_probes,
        "DRAM traffic (MB)": result.bytes / 1e6,
        "windows": result.windows,
        "tokens": result.tokens,
        "L1 hit rate": result.l1_hit_rate,
        "live products at peak": result.peak_live,
    }
    gantt = Gantt(
        thread=events.thread,
        row=events.row,
        t0=events.start,
        t1=events.stop,
        threads=threads,
        cycles=result.cycles,
        events_total=events.total,
    )
    series = {name: np.minimum(share, 1.0) for name, share in series.items()}
    return MachineRun(
        label=label,
        totals=totals,
        gantt=gantt,
        utilisation=Utilisation(edges=timeline.edges, series=series),
        live=LiveCurve(label=label, x=middle, live=timeline.live_peak, x_unit="cycles", kind="modelled"),
    )


def _occupancy(pair, plan, window):
    if not len(plan):
        return ()
    columns = int(plan.column_stop[window] - plan.column_start[window])
    rows = int(plan.row_stop[window] - plan.row_start[window])
    tables = []
    for bits in ("high", "low"):
        tags = piuma.table_snapshot(pair.a, pair.b, plan, plan.slots, bits, window)
        row = np.where(tags >= 0, tags // max(columns, 1), -1)
        tables.append(TableOccupancy(label=_HASH_LABEL[bits], row=row, window=window, windows=len(plan), rows=rows))
    return tuple(tables)


def _roofline(pair, results, config):
    points = [(label, r.instructions / r.bytes if r.bytes else np.nan, r.ipc) for label, r in results]
    for dataflow in ("outer", "row"):
        bound = piuma.baseline(pair.a, pair.b, dataflow, config)
        moved = sum(bound.streams.values())
        if moved and bound.cycles:
            points.append((f"{dataflow}, closed form", bound.instructions / moved, bound.instructions / bound.cycles))
    labels, per_byte, per_cycle = zip(*points, strict=True) if points else ((), (), ())
    blocks = results[0][1].blocks if results else 1
    return Roofline(
        labels=tuple(labels),
        ops_per_byte=np.array(per_byte),
        ops_per_cycle=np.array(per_cycle),
        peak_ops_per_cycle=float(config.n_mtc * blocks),
        peak_bytes_per_cycle=config.bw * blocks,
    )


def _constants(config):
    rows = []
    for constant in (*piuma.PiumaConfig.constants(), *piuma.PiumaConfig.facts()):
        value, tag = constant.value, constant.tag
        now = getattr(config, constant.name, value)
        if now != value:
            value, tag = now, f"set by you (file: {value:g}, {tag})"
        text = value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:g}"
        about = constant.name if not constant.meaning else f"{constant.name}: {constant.meaning}"
        rows.append(Constant(name=about, value=text, unit=constant.unit, source=constant.source, tag=tag))
    return tuple(rows)
