"""Measures by how much a process grows while it does one thing.

Free memory goes back to the system first, then the kernel's high-water mark of the resident set is reset (Linux:
``/proc/self/clear_refs``) and read again at the end. The figure includes the result and whatever a library allocates on
its first call.
"""

import ctypes
import gc
import re
from pathlib import Path


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
