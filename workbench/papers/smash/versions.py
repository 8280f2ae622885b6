"""The three kernel versions on one block of the PIUMA model: time, balance, bandwidth and collisions."""

from itertools import product

import numpy as np

from workbench.machines.piuma import VERSION_HASH, SimResult, baseline, simulate_spgemm
from workbench.paper import row
from workbench.papers.smash.inputs import DATAFLOWS, counts, main_input

SPLITS = {1: "dealt beforehand", 2: "tokens"}


def versions(size, seed, report, matrix=None):
    """Return what the model says of each version, and the closed form's time of every dataflow beside it.

    The static split of V1 and the tokens of V2 are also compared under each other's hash: whether the threads are kept
    busy is then due to one thing at a time.
    """
    title, a, b = main_input(size, seed, matrix)
    rows = counts(title, a, b)
    runs = {}
    for v in VERSION_HASH:
        runs[v] = simulate_spgemm(a, b, v, progress=report.part(v - 1, 4, f"V{v}"))
        rows += _run_rows(runs[v], matrix=title, version=f"V{v}")
    differing = int(np.abs(runs[2].histogram - runs[3].histogram).sum())
    rows.append(row("products whose probes differ, V2 to V3", differing, "products", "counted", matrix=title))
    for v, hash in product(SPLITS, ("high", "low")):
        report(0.75, f"{SPLITS[v]}, {hash}-order bits")
        run = runs[v] if hash == VERSION_HASH[v] else simulate_spgemm(a, b, v, hash=hash, event_limit=0)
        labels = {"matrix": title, "split": SPLITS[v], "hash": hash}
        rows.append(row("threads busy while hashing", run.hashing_utilisation, "fraction", "modelled", **labels))
    for dataflow in DATAFLOWS:
        report(0.9, f"closed form, {dataflow}")
        bound = baseline(a, b, dataflow)
        rows.append(row("time, closed form", bound.ms, "ms", "modelled", matrix=title, version=dataflow))
    return rows


def _run_rows(run: SimResult, **labels):
    modelled = {
        "time": (run.ms, "ms"),
        "instructions per cycle": (run.ipc, "instructions per cycle"),
        "DRAM bandwidth in use": (run.bandwidth_utilisation, "fraction"),
        "threads busy": (run.thread_utilisation, "fraction"),
        "L1 hit rate": (run.l1_hit_rate, "fraction"),
        "lower bound": (run.lower_bound / (run.config.clock_ghz * 1e6), "ms"),
        **{f"time in {phase}": (cycles / (run.config.clock_ghz * 1e6), "ms") for phase, cycles in run.phases.items()},
        **{f"DRAM bytes, {stream}": (moved, "bytes") for stream, moved in run.streams.items()},
    }
    counted = {
        "extra probes": (run.mean_extra_probes, "probes per product"),
        "windows": (run.windows, "windows"),
        "tokens": (run.tokens, "tokens"),
    }
    return [row(name, *value, "modelled", **labels) for name, value in modelled.items()] + [
        row(name, *value, "counted", **labels) for name, value in counted.items()
    ]
