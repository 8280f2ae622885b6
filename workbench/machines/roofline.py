"""The ceilings of this CPU, measured: how fast it copies memory and how fast it multiplies and adds in registers.

They turn a kernel's operation and byte counts (``kernels.work.Work``) into the least time it could take here.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from kernels._native import core, get_num_threads, isa
from kernels.check import check_threads
from workbench.machines.stopwatch import measure

COPY_BYTES = 2**27
FMA_STEPS = 2_000_000
ROUNDS = 7


@dataclass(frozen=True)
class Ceilings:
    """What this CPU reached, best of a few rounds. Measured, never looked up.

    Parameters
    ----------
    copy_gbps : 10^9 bytes per second of a large copy, bytes read plus bytes written.
    fma_gflops_f32, fma_gflops_f64 : 10^9 operations per second of register-resident multiply-adds (2 each).
    threads : threads used.
    isa : instruction set of the loops.
    """

    copy_gbps: float
    fma_gflops_f32: float
    fma_gflops_f64: float
    threads: int
    isa: str

    def floor_s(self, flops, bytes, dtype=np.float64) -> float:
        """Return the least seconds that ``flops`` operations and ``bytes`` moved can take: the larger of the two."""
        peaks = {np.dtype(np.float32): self.fma_gflops_f32, np.dtype(np.float64): self.fma_gflops_f64}
        if np.dtype(dtype) not in peaks:
            raise ValueError(f"floor_s: dtype must be float32 or float64, got {np.dtype(dtype)}")
        return max(flops / (peaks[np.dtype(dtype)] * 1e9), bytes / (self.copy_gbps * 1e9))


def ceilings(threads: int | None = None) -> Ceilings:
    """Measure the ceilings with ``threads`` threads (None: as many as the kernels use); once per process and count.

    Cost
    ----
    About half a second and 256 MiB at the first call.
    """
    return _measured(check_threads(threads, function="ceilings", name="threads") or get_num_threads())


@cache
def _measured(threads: int) -> Ceilings:
    source, target = np.ones(COPY_BYTES, dtype=np.uint8), np.zeros(COPY_BYTES, dtype=np.uint8)

    def copy():
        core.roofline_copy(source, target, threads)
        return 2.0 * COPY_BYTES

    works = {  # each returns how much it did
        "copy_gbps": copy,
        "fma_gflops_f32": lambda: core.roofline_fma_f32(FMA_STEPS, threads),
        "fma_gflops_f64": lambda: core.roofline_fma_f64(FMA_STEPS, threads),
    }
    times = measure(works, rounds=ROUNDS)
    rates = {name: work() / min(times[name].samples_s) / 1e9 for name, work in works.items()}
    return Ceilings(**rates, threads=threads, isa=isa())
