"""Fills the scene of the SpGEMM traffic view for SMASH: operands, exact counts, and the PIUMA model's runs."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from kernels.matmul.dataflow import DATAFLOWS, dataflow_order, dataflow_steps, output_births
from kernels.matmul.spgemm import row_flops, spgemm
from kernels.matmul.traffic import dataflow_traffic
from widgets.figures.spgemm_traffic import (
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
from workbench.machines import piuma

MAX_PRODUCTS = 10**7
_OPERAND_KEYS = ("operands", "scale", "edge_factor", "a", "b", "c", "permute", "seed")
_MACHINE_KEYS = ("hash", "log2_slots", "load", "threads_per_mtc", "bw", "token_pp", "blocks")
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


_pairs, _counts, _row_steps, _machines, _tables = (_Kept(size) for size in (4, 4, 8, 8, 16))


def scene_source(sample: Callable, machine_config: Callable) -> Callable[[Mapping, Callable], TrafficScene]:
    """Return ``source(state, progress) -> TrafficScene`` for operands and machine as the knobs describe them."""

    def source(state: Mapping, progress: Callable[[float, str], None]) -> TrafficScene:
        return _scene(state, progress, sample, machine_config)

    return source


def _scene(state, progress, sample, machine_config):
    key = tuple(state[k] for k in _OPERAND_KEYS)
    progress(0.0, "making the operands")
    pair = _pairs.get(key, lambda: _readable(sample(**{k: state[k] for k in _OPERAND_KEYS}), state))
    products = int(row_flops(pair.a, pair.b).sum())
    if products > MAX_PRODUCTS:
        raise ValueError(
            f"This product has {products:,} partial products, the limit of the live view is {MAX_PRODUCTS:,}: "
            "lower the scale or the entries per row."
        )
    counted = _counts.get(key, lambda: _count(pair, progress))
    progress(0.3, "planning the windows")
    plan = piuma.plan_windows(pair.a, pair.b, 2 ** state["log2_slots"], state["load"])
    windows = np.unique(plan.row_start) if len(plan) else np.zeros(1, np.int64)
    row_steps = _row_steps.get(
        (key, windows.tobytes()),
        lambda: dataflow_steps(
            pair.a, pair.b, "row", windows=windows, progress=_between(progress, 0.3, "live row products")
        ),
    )
    machine, note = _machine(state, key, pair, plan, progress, machine_config(**{k: state[k] for k in _MACHINE_KEYS}))
    return TrafficScene(
        title=pair.title,
        a=counted.a,
        b=counted.b,
        c=counted.c,
        products=products,
        traffic=counted.traffic[state["cache"]],
        orders=counted.orders,
        steps=counted.steps | {"row": row_steps},
        births=counted.births,
        windows=windows,
        machine=machine,
        machine_note=note,
    )


def _readable(pair, state):
    """Say what the operands are, and give R-MAT's ones values from 1 to 9, so that a step can be followed by eye."""
    rows = pair.a.shape[0]
    if state["operands"] not in ("rmat", "w0"):
        return replace(pair, title=f"{pair.title} ({rows:,} rows)" if rows > 3 else pair.title)
    rng = np.random.default_rng(7)
    a, b = pair.a.copy(), pair.b.copy()
    for x in (a, b):
        x.data = rng.integers(1, 10, x.nnz).astype(np.float64)
    labels = "relabelled at random" if state["permute"] or state["operands"] == "w0" else "labels as generated"
    return replace(pair, title=f"{pair.title}, {rows:,} rows, {labels}, values drawn from 1 to 9", a=a, b=b)


@dataclass(frozen=True)
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
    orders, steps, births = {}, {}, {}
    for place, dataflow in enumerate(DATAFLOWS):
        at = 0.08 + 0.05 * place
        progress(at, f"ordering the {dataflow} products")
        orders[dataflow] = dataflow_order(pair.a, pair.b, dataflow)
        births[dataflow] = output_births(
            pair.a, pair.b, dataflow, progress=_between(progress, at, f"{dataflow} products")
        )
        if dataflow != "row":  # the row dataflow's live count depends on the windows
            steps[dataflow] = dataflow_steps(
                pair.a, pair.b, dataflow, progress=_between(progress, at + 0.025, f"live {dataflow} products")
            )
    a, b, c = (_operand(*x) for x in (("A", pair.a), ("B", pair.b), ("C", spgemm(pair.a, pair.b))))
    return _Counted(a, b, c, traffic, orders, steps, births)


def _between(progress, start, step, share=0.025):
    return lambda fraction: progress(start + share * fraction, step)


def _operand(name, a):
    return Operand(name, a.shape, a.indptr.astype(np.int64), a.indices.astype(np.int64), a.data.astype(np.float64))


def _stream_bytes(pair, cache):
    columns = ("read_a", "read_b", "ptr", "pp_written", "pp_read", "write_c")
    flows = ("inner", "inner-masked", "outer", "row", "column")
    counts = [dataflow_traffic(pair.a, pair.b, flow, cache=cache).bytes_by_stream for flow in flows]
    names = ("inner", "inner, C known", "outer", "row", "column")
    table = np.array([[float(c[stream]) for stream in columns] for c in counts])
    note = "16 B an element, 8 B a pointer; " + (
        "no cache: every re-use goes off-chip" if cache == "none" else "ideal cache: each operand element read once"
    )
    return StreamBytes(names, STREAMS, table, note)


def _machine(state, key, pair, plan, progress, config):
    """Return the machine's part of the scene, or None and the sentence that says why there is none."""
    knobs = tuple(state[k] for k in _MACHINE_KEYS)
    alone = state["version"] if state["load"] >= 0.5 else 0  # at high load V1 runs only when asked for
    try:
        runs, results, left_out, traces = _machines.get(
            (key, knobs, alone), lambda: _simulate(state, pair, config, plan, progress)
        )
        window = min(state["table_window"], max(len(plan) - 1, 0))
        tables = _tables.get((key, plan.slots, plan.load, window), lambda: _occupancy(pair, plan, window))
    except piuma.HashTableFull as error:
        return None, str(error)
    version, labels = f"V{state['version']}", [run.label for run in runs]
    if version not in labels:
        return None, next(text for text in left_out if text.startswith(version))
    probes = ProbeHistogram(
        tuple(_HASH_LABEL[h] for h in traces),
        np.stack([t.histogram for t in traces.values()]),
        np.array([t.mean_extra_probes for t in traces.values()]),
    )
    roofline = _roofline(pair, results, config)
    return Machine(runs, labels.index(version), left_out, probes, tables, roofline, _constants(config)), ""


def _simulate(state, pair, config, plan, progress):
    chosen = state["version"]
    runs, results, left_out, traces = [], [], [], {}
    for version in (1, 2, 3):
        label = f"V{version}"
        hash_bits = piuma.VERSION_HASH[version] if state["hash"] == "own" else state["hash"]
        need = piuma.spad_bytes_needed(version, config)
        if need > config.spad_bytes:
            left_out.append(
                f"{label} needs {need / 2**20:.3g} MiB of scratchpad, a block has {config.spad_bytes / 2**20:g}: "
                "lower the slots or the load."
            )
            continue
        if version != chosen and config.load >= 0.5 and hash_bits == "high":
            left_out.append(f"{label} is left out: high-order bits at load 0.5 or more need thousands of probes.")
            continue

        def report(fraction, step, version=version):
            progress(0.35 + 0.6 * (version - 1 + fraction) / 3, f"V{version}: {step}")

        known = traces.get(hash_bits) if state["blocks"] == 1 else None
        if state["blocks"] == 1 and known is None:
            known = piuma.hash_trace(pair.a, pair.b, plan, config.slots, hash_bits, progress=report)
        result = piuma.simulate_spgemm(
            pair.a, pair.b, version, config, hash=hash_bits, blocks=state["blocks"], trace=known, progress=report
        )
        traces.setdefault(hash_bits, known or result)
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
    return MachineRun(
        label,
        totals,
        Gantt(events.thread, events.row, events.start, events.stop, threads, result.cycles, events.total),
        Utilisation(timeline.edges, {name: np.minimum(share, 1.0) for name, share in series.items()}),
        LiveCurve(label, middle, timeline.live_peak, "cycles", "modelled"),
    )


def _occupancy(pair, plan, window):
    if not len(plan):
        return ()
    columns = int(plan.column_stop[window] - plan.column_start[window])
    rows = int(plan.row_stop[window] - plan.row_start[window])
    tables = []
    for hash_bits in ("high", "low"):
        tags = piuma.table_snapshot(pair.a, pair.b, plan, plan.slots, hash_bits, window)
        row = np.where(tags >= 0, tags // max(columns, 1), -1)
        tables.append(TableOccupancy(_HASH_LABEL[hash_bits], row, window, len(plan), rows))
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
        tuple(labels), np.array(per_byte), np.array(per_cycle), float(config.n_mtc * blocks), config.bw * blocks
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
        rows.append(Constant(about, text, constant.unit, constant.source, tag))
    return tuple(rows)
