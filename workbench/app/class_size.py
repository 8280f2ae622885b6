"""What a class needs: the memory of one visitor's kernel, measured, times the visitors, against this machine."""

import asyncio
import math
import os
from dataclasses import dataclass
from pathlib import Path

from workbench.app.dashboard_site import Site

MB = 2**20
ASSUMED_KERNEL_BYTES = 110 * MB
SERVER_BYTES = 200 * MB
VISITORS_PER_CORE = 5
KERNEL_LIMITS_BYTES = (2048 * MB, 4096 * MB)
STACKS_BYTES = 24 * MB
SETTLE_S = 2.0


@dataclass(frozen=True)
class Need:
    """Memory and cores that a class needs, and what this machine has left."""

    visitors: int
    kernel_bytes: int
    heaviest: str
    measured: bool
    bytes: int
    cores: int
    free_bytes: int
    free_cores: int

    @property
    def fits(self) -> bool:
        return self.bytes <= self.free_bytes and self.cores <= self.free_cores

    def sentences(self) -> list[str]:
        how = f"measured on {self.heaviest}" if self.measured else "assumed, as this system does not tell"
        return [
            f"One visitor's kernel holds {self.kernel_bytes / MB:.0f} MB of its own ({how}).",
            f"{self.visitors} visitors need {self.bytes / MB:,.0f} MB of memory; "
            f"{self.free_bytes / MB:,.0f} MB are free.",
            f"{self.visitors} visitors need {self.cores} cores if one in {VISITORS_PER_CORE} computes at the same "
            f"moment; there are {self.free_cores}.",
        ]


def need_of(visitors: int, kernel_bytes: int, heaviest: str, measured: bool, *, warm: int) -> Need:
    """Return what ``visitors`` need with ``warm`` kernels kept started beside theirs."""
    return Need(
        visitors=visitors,
        kernel_bytes=kernel_bytes,
        heaviest=heaviest,
        measured=measured,
        bytes=(visitors + warm) * kernel_bytes + SERVER_BYTES,
        cores=math.ceil(visitors / VISITORS_PER_CORE),
        free_bytes=free_memory_bytes(),
        free_cores=usable_cores(),
    )


async def measure(site: Site, dashboards: list[str]) -> tuple[int, str, bool]:
    """Open every dashboard once; return the private bytes of the heaviest kernel, its name, and whether measured."""
    heaviest = (0, "a bare kernel")
    for name in dashboards:
        page = await site.pool.open_page(f"dashboards/{name}.ipynb", {"QUERY_STRING": ""})
        await page.task
        await asyncio.sleep(SETTLE_S)
        pid = getattr(site.pool.get_kernel(page.kernel_id).provisioner, "pid", None)
        heaviest = max(heaviest, (private_bytes(pid) if pid else 0, name))
        await site.pool.leave(page.kernel_id)
    return (*heaviest, True) if heaviest[0] else (ASSUMED_KERNEL_BYTES, "", False)


def private_bytes(pid: int) -> int:
    """Memory that only this process and its children use, in bytes; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    own = sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))
    return own + sum(private_bytes(int(child)) for child in children)


def free_memory_bytes() -> int:
    """Memory that new processes may take: of the machine, or of its container if that is less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        machine = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    group = Path("/sys/fs/cgroup")
    try:
        return min(machine, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        return machine


def kernel_limit_bytes(capacity: int) -> int:
    """Memory that one visitor's kernel may take: four times its share of what is free, from 2 to 4 GB.

    Few visitors compute at the same moment, so shares may overlap; one visitor alone must not take all. The heaviest
    walk-through takes 1.2 GB. Stacks of threads count, though hardly any of them is touched: three a core, of torch,
    of the linear algebra and of our kernels.
    """
    least, most = KERNEL_LIMITS_BYTES
    return max(least, min(most, 4 * free_memory_bytes() // capacity)) + STACKS_BYTES * usable_cores()


def usable_cores() -> int:
    """Cores that this process may use: its affinity, or its container's quota if that is less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores


def places(kernel_bytes: int = ASSUMED_KERNEL_BYTES) -> int:
    """Kernels that fit into half of the free memory, at least 4 and at most 64."""
    return max(4, min(64, free_memory_bytes() // 2 // kernel_bytes))
