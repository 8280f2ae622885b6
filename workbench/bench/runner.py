"""Runs a bench and fills its record: times per case, ratios, geometric means, what is missing, what went wrong."""

import difflib
import fnmatch
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime

import kernels
from workbench.bench.own_process import peak_bytes, timed_row
from workbench.bench.timing import MIN_ROUNDS, Bench, Case, CaseSpec, checked, geometric_mean, measure
from workbench.machines.host import machine, versions
from workbench.machines.roofline import ceilings

SCHEMA = 1


def run(
    bench: Bench,
    *,
    quick: bool = False,
    case: str = "*",
    threads: int | None = None,
    rounds: int = MIN_ROUNDS,
    memory: bool = False,
    report: Callable[[float, str], None] = lambda fraction, step: None,
    done: Callable[[dict], None] = lambda row: None,
) -> dict:
    """Check and time every case of a bench.

    Parameters
    ----------
    quick : fewer and smaller cases; the rules of measurement stay.
    case : glob over case names, such as ``"rmat-*f64/sorted"``.
    threads : for every contender alike; as many as our kernels use by default.
    memory : also measure each contender's peak of memory, each in a process of its own.
    report, done : called with the progress, and with every finished case.

    Returns
    -------
    The record: a JSON-safe dict.
    """
    threads = threads or kernels.get_num_threads()
    start, busy = time.perf_counter(), load_average()
    loaded, missing = load_peers(bench)
    bench.set_threads(threads, loaded)
    specs = chosen_specs(bench, quick, case, threads, loaded)
    rows, failed = [], []
    for i, spec in enumerate(specs):
        report(i / len(specs), spec.name)
        try:
            own = bench.own_process
            row = timed_row(bench.key, spec.name, quick, threads, rounds) if own else measured_row(spec, rounds)
        except RuntimeError as error:
            cure = f"free memory, or try it alone: workbench bench {bench.key} --case '{spec.name}'"
            failed.append({"name": spec.name, "reason": str(error), "cure": cure})
            continue
        rows.append(row)
        done(row)
    for i, row in enumerate(rows if memory else ()):  # after all timings, which need a quiet machine; this does not
        report(i / len(rows), f"{row['name']}: memory")
        for timing in row["timings"]:
            timing["peak_bytes"] = peak_bytes(bench.key, row["name"], timing["name"], quick, threads)
    report(1.0, "done")
    return {
        "schema": SCHEMA,
        "bench": bench.key,
        "title": bench.title,
        "kind": "measured",
        "quick": quick,
        "rounds": rounds,
        "threads": threads,
        "missing": missing,
        "failed": failed,
        "cases": rows,
        "summary": summary(rows, bench),
        "machine": machine(),
        "load_average": busy,
        "versions": versions(),
        "wall_s": round(time.perf_counter() - start, 1),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def chosen_specs(bench: Bench, quick: bool, case: str, threads=1, loaded=()) -> list[CaseSpec]:
    """Return the cases whose name matches; ValueError lists the names when none does."""
    specs = bench.specs(quick, threads, loaded)
    chosen = [spec for spec in specs if fnmatch.fnmatch(spec.name, case) or spec.name == case]
    if not chosen:
        near = difflib.get_close_matches(case, [spec.name for spec in specs], n=3, cutoff=0.0)
        raise ValueError(f"bench {bench.key}: none of {len(specs)} cases matches {case!r}; nearest: {', '.join(near)}")
    return chosen


def load_average() -> float | None:
    """Return how many threads of all programs wanted a CPU over the last minute; None where that is not told."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def load_peers(bench: Bench) -> tuple[list[str], list[dict]]:
    """Import every peer; return the names of those that answered, and name, reason and cure of the others."""
    loaded, missing = [], []
    for peer in bench.peers:
        try:
            peer.load()
        except Exception as error:  # a broken install fails in any way it likes
            missing.append({"name": peer.name, "reason": f"{type(error).__name__}: {error}", "cure": peer.cure})
        else:
            loaded.append(peer.name)
    return loaded, missing


def summary(rows: list[dict], bench: Bench) -> list[dict]:
    """Return per group: geometric means of our ratio to the best peer and to each peer, the worst case, the goals.

    ``rate`` is the geometric mean of our work per second.
    ``peak_over_result`` holds, where memory was measured, each contender's largest peak over the size of the result.
    """
    groups = []
    for group in dict.fromkeys(row["group"] for row in rows):
        members = [row for row in rows if row["group"] == group]
        rates = [t["work_per_s"] for row in members for t in row["timings"] if t["ours"]]
        rate = geometric_mean(rates) if rates else None
        ratios = {row["name"]: row["ratios"] for row in members if row["ratios"]}
        peers = dict.fromkeys(name for by_peer in ratios.values() for name in by_peer)
        means = {peer: geometric_mean([r[peer] for r in ratios.values() if peer in r]) for peer in peers}
        worst = min(ratios, key=lambda name: ratios[name]["best"], default=None)
        lowest = ratios[worst]["best"] if worst else None
        reached = means | {"lowest": lowest, "rate": rate}
        goals = [
            {"against": goal.against, "wanted": goal.least, "got": reached.get(goal.against)}
            for goal in bench.goals
            if goal.group == group
        ]
        groups.append(
            {
                "group": group,
                "cases": len(rates),
                "rate": rate,
                "work_unit": members[0]["work_unit"],
                "geometric_mean": means,
                "worst_case": worst,
                "worst_ratio": lowest,
                "goals": goals,
                "peak_over_result": _peaks(members),
            }
        )
    return groups


def _peaks(rows):
    peaks = {}
    for row in rows:
        for timing in row["timings"]:
            if timing.get("peak_bytes") is not None and row["result_bytes"]:
                ratio = timing["peak_bytes"] / row["result_bytes"]
                peaks[timing["name"]] = max(ratio, peaks.get(timing["name"], 0.0))
    return peaks


def floor(case: Case) -> float:
    """Return the least seconds that a case can take on this machine, from its measured ceilings."""
    return ceilings().floor_s(case.flops, case.bytes, case.dtype)


def measured_row(spec: CaseSpec, rounds: int) -> dict:
    """Build, check and time a case; return its row of the record."""
    case = spec.build()
    wrong = checked(case)
    timings = measure([c for c in case.contenders if c.name not in wrong], rounds)
    medians = {t.name: t.median_s for t in timings if not t.ours}
    ours = next((t.median_s for t in timings if t.ours), None)
    ratios = {}
    if ours and medians:
        ratios = {"best": min(medians.values()) / ours} | {name: s / ours for name, s in medians.items()}
    floor_s = floor(case) if case.flops or case.bytes else None
    return {
        "name": spec.name,
        "group": spec.group,
        "facts": case.facts,
        "work": case.work,
        "work_unit": case.work_unit,
        "result_bytes": case.result_bytes,
        "floor_s": floor_s,
        "fraction_of_floor": floor_s / ours if floor_s and ours else None,
        "best_peer": min(medians, key=medians.get, default=None),
        "ratios": ratios,
        "wrong": wrong,
        "timings": [
            {
                "name": t.name,
                "ours": t.ours,
                "threads": t.threads,
                "median_s": t.median_s,
                "spread_s": t.spread_s,
                "work_per_s": case.work / t.median_s,
            }
            for t in timings
        ],
    }
