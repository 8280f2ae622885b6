"""Measures the peak of memory of one contender, in a process of its own that does nothing else.

The child builds the case, gives free memory back to the system, resets the kernel's high-water mark of its resident
set (Linux: ``/proc/self/clear_refs``), runs the contender once and reads the mark. The figure includes the result and
whatever the library allocates on its first call.
"""

import ctypes
import gc
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

CHILD_LIMIT_S = 300


def peak_bytes(bench: str, case: str, contender: str, quick: bool, threads: int) -> int | None:
    """Return by how many bytes the resident set rises while the contender runs; None where that is not measurable."""
    arguments = json.dumps({"bench": bench, "case": case, "contender": contender, "quick": quick, "threads": threads})
    command = [sys.executable, "-m", "workbench.bench.memory", arguments]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_LIMIT_S, check=False)
        return json.loads(child.stdout.splitlines()[-1])["peak_bytes"]
    except (subprocess.TimeoutExpired, IndexError, KeyError, ValueError):
        return None


def rise_of_resident_set(run) -> int | None:
    """Run a function and return by how many bytes the process grew at its peak; None outside Linux."""
    try:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
    except (OSError, AttributeError):
        return None
    result = run()
    peak = _status("VmHWM")
    del result
    return max(peak - before, 0)


def _status(field):
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024


def _child(arguments):
    from workbench.bench import registry
    from workbench.bench.runner import load_peers

    bench = registry.get(arguments["bench"])
    bench = replace(bench, peers=tuple(peer for peer in bench.peers if peer.name == arguments["contender"]))
    loaded, _ = load_peers(bench)
    bench.set_threads(arguments["threads"], loaded)
    specs = bench.specs(arguments["quick"], arguments["threads"], loaded)
    case = next(spec for spec in specs if spec.name == arguments["case"]).build()
    contender = next(c for c in case.contenders if c.name == arguments["contender"])
    sys.stdout.write(json.dumps({"peak_bytes": rise_of_resident_set(contender.run)}) + "\n")


if __name__ == "__main__":
    _child(json.loads(sys.argv[1]))
