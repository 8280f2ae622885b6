"""Describes the computer that a record was made on: processor, threads, instruction set, versions."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import kernels

REPORTED = ("sparse-workbench", "numpy", "scipy", "torch", "sparse-dot-mkl", "mkl", "python-graphblas", "datashader")


def machine() -> dict:
    """Return ``{cpu, cpus, threads, isa, memory_gb, system}``; ``threads`` is what our kernels use now."""
    return {
        "cpu": cpu_name(),
        "cpus": usable_cpus(),
        "threads": kernels.get_num_threads(),
        "isa": kernels.isa(),
        "memory_gb": round(memory_bytes() / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions(packages=REPORTED) -> dict:
    """Return the installed version of Python and of each package; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"sparse-workbench": kernels.__version__}


def cpu_name() -> str:
    """Return the processor's name as the system tells it."""
    if platform.system() == "Darwin":
        answer = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        return answer.stdout.strip() or platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    fields = [line.partition(":") for line in lines]
    return next((value.strip() for key, _, value in fields if key.strip() == "model name"), platform.machine())


def usable_cpus() -> int:
    """Return how many CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Return the memory of the computer in bytes; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0
