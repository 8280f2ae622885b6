"""Runs one case of a bench in a process of its own: what a library keeps there, it gives back when the process ends.

torch 2.13 keeps the result of every product of two CSR matrices; timed in one process, the SpGEMM suite ran out of
24 GiB.
"""

import json
import subprocess
import sys

CHILD_LIMIT_S = 900


def timed_row(bench: str, case: str, quick: bool, threads: int, rounds: int) -> dict:
    """Check and time a case; return its row of the record.

    Raises
    ------
    RuntimeError : the process ended without an answer (killed, or over 15 minutes); names the case and what it said.
    """
    return _ask("row", bench=bench, case=case, quick=quick, threads=threads, rounds=rounds)


def peak_bytes(bench: str, case: str, contender: str, quick: bool, threads: int) -> int | None:
    """Return by how many bytes the resident set rises while the contender runs once; None if that is not measurable."""
    try:
        return _ask("peak_bytes", bench=bench, case=case, quick=quick, threads=threads, contender=contender)
    except RuntimeError:
        return None


def _ask(what, **arguments):
    command = [sys.executable, "-m", "workbench.bench.own_process", json.dumps({"what": what} | arguments)]
    said = ""
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_LIMIT_S, check=False)
        said = child.stderr.strip().splitlines()[-1:] or [f"exit status {child.returncode}"]
        return json.loads(child.stdout.splitlines()[-1])[what]
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{arguments['case']}: no answer within {CHILD_LIMIT_S} s") from None
    except (IndexError, KeyError, ValueError):
        raise RuntimeError(f"{arguments['case']}: its process ended without an answer ({said[0]})") from None


def _child(what, bench, case, quick, threads, rounds=0, contender=None):
    from workbench.bench import memory, registry, runner

    chosen = registry.get(bench)
    loaded, _ = runner.load_peers(chosen)
    if contender is not None:
        loaded = [name for name in loaded if name == contender]
    chosen.set_threads(threads, loaded)
    spec = next(spec for spec in chosen.specs(quick, threads, loaded) if spec.name == case)
    if what == "row":
        return runner.measured_row(spec, rounds)
    run = next(c.run for c in spec.build().contenders if c.name == contender)
    return memory.rise_of_resident_set(run)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    sys.stdout.write(json.dumps({asked["what"]: _child(**asked)}) + "\n")
