"""The C++ core for this CPU: picks one of the compiled modules and hands out its functions.

``WORKBENCH_ISA=baseline|avx2|avx512`` forces a level (for tests of the fallback paths).
``WORKBENCH_MODULE_DIR`` names a folder whose modules go before the installed ones (for the sanitizer build).
"""

import importlib
import os

import kernels

if os.environ.get("WORKBENCH_MODULE_DIR"):
    kernels.__path__.insert(0, os.environ["WORKBENCH_MODULE_DIR"])

_native_baseline = importlib.import_module("kernels._native_baseline")

LEVELS = ("baseline", "avx2", "avx512")


def _chosen_level() -> str:
    best = _native_baseline.cpu_level()
    wanted = os.environ.get("WORKBENCH_ISA") or best
    if wanted not in LEVELS:
        raise ImportError(
            f"kernels: WORKBENCH_ISA must be one of {', '.join(LEVELS)}; got {wanted!r}. Unset it or fix it."
        )
    if LEVELS.index(wanted) > LEVELS.index(best):
        raise ImportError(f"kernels: WORKBENCH_ISA={wanted} asks for instructions this CPU lacks (it has {best}).")
    return wanted


_level = _chosen_level()
core = importlib.import_module(f"kernels._native_{_level}")


def isa() -> str:
    """Name the instruction set in use: ``"baseline"``, ``"avx2"`` or ``"avx512"``."""
    return _level


def set_num_threads(n: int) -> None:
    """Set how many threads every kernel uses from now on (1 <= n <= 256); results never depend on it."""
    from kernels.check import as_int  # stands on this module

    core.set_num_threads(as_int(n, function="set_num_threads", name="n", low=1, high=256))


def get_num_threads() -> int:
    """Return how many threads kernels use (at first: the CPUs this process may run on)."""
    return core.get_num_threads()
