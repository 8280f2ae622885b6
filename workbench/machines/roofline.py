"""The ceilings of this CPU, measured: how fast it copies memory and how fast it multiplies and adds in registers.

They turn a kernel's operation and byte counts (``kernels.work.Work``) into the least time it could take here.
`roofline` does the same on paper, for a product of weights with activations on any machine whose ceilings are known.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import DTypeLike

from kernels._native import core, get_num_threads, isa
from kernels.check import as_int, as_number, check_choice, check_threads
from workbench.machines.stopwatch import measure

COPY_BYTES = 2**27
FMA_STEPS = 2_000_000
ROUNDS = 7
WEIGHT_FORMATS = ("dense16", "dense32", "tiled-csl", "csr")
TILE_M, TILE_K = 128, 64  # of Tiled-CSL


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

    def floor_s(self, flops, bytes, dtype: DTypeLike = np.float64) -> float:
        """Return the least seconds that ``flops`` operations and ``bytes`` moved can take: the larger of the two."""
        peaks = {np.dtype(np.float32): self.fma_gflops_f32, np.dtype(np.float64): self.fma_gflops_f64}
        if np.dtype(dtype) not in peaks:
            raise ValueError(f"floor_s: dtype must be float32 or float64, got {np.dtype(dtype)}")
        return max(flops / (peaks[np.dtype(dtype)] * 1e9), bytes / (self.copy_gbps * 1e9))


@dataclass(frozen=True, kw_only=True)
class ProductBound:
    """The least time of a product on a machine, and what sets it.

    Parameters
    ----------
    flops : operations that are carried out, those on zeros included where the format does not skip them.
    bytes : moved between memory and chip, every operand once.
    intensity : flops per byte.
    time_s : the larger of what the operations and the bytes take.
    bound : "memory" or "arithmetic", whichever takes longer.
    """

    flops: float
    bytes: float
    intensity: float
    time_s: float
    bound: str


def roofline(m, k, n, sparsity=0.0, *, peak_flops, bandwidth, fmt="dense16", activation_bytes=2) -> ProductBound:
    """Return the least time of (m, k) weights times (k, n) activations on a machine with these two ceilings.

    Parameters
    ----------
    m, k, n : sizes, at least 1 each.
    sparsity : share of the weights that are zero, in [0, 1]; dense formats store and multiply zeros.
    peak_flops : operations per second, > 0; for "csr" that of the vector units, for the others that of the matrix
        units, where a machine has both.
    bandwidth : bytes per second of memory, > 0.
    fmt : how the weights lie in memory. "dense16", "dense32" take 16 or 32 bits a weight. "tiled-csl" takes 32 bits a
        weight that is not zero and 32 a tile of 128 x 64, and multiplies the zeros too. "csr" takes 64 bits a weight
        that is not zero and 32 a row, and multiplies no zeros.
    activation_bytes : of an element of the activations and of the result, from 1 to 8.

    Raises
    ------
    TypeError, ValueError : an argument of another type, out of range, or an unknown format.

    Source
    ------
    Williams, Waterman and Patterson 2009, "Roofline"; the counts of Xia et al. 2023, section 3. Words that pad
    Tiled-CSL's tiles to whole vectors are left out: 1.5 of them a tile on average.
    """
    name = "roofline"
    m, k, n = (as_int(x, function=name, name=label, low=1, high=2**40) for x, label in ((m, "m"), (k, "k"), (n, "n")))
    sparsity = as_number(sparsity, function=name, name="sparsity", low=0, high=1)
    peak_flops = as_number(peak_flops, function=name, name="peak_flops", above=0)
    bandwidth = as_number(bandwidth, function=name, name="bandwidth", above=0)
    check_choice(fmt, WEIGHT_FORMATS, function=name, name="fmt")
    width = as_int(activation_bytes, function=name, name="activation_bytes", low=1, high=8)
    kept = (1 - sparsity) * m * k
    tiles = -(-m // TILE_M) * -(-k // TILE_K)
    weights = {"dense16": 2.0 * m * k, "dense32": 4.0 * m * k, "tiled-csl": 4 * kept + 4.0 * (tiles + 2),
               "csr": 8 * kept + 4.0 * (m + 1)}[fmt]  # fmt: skip
    flops = 2.0 * n * (kept if fmt == "csr" else m * k)
    moved = weights + width * float(n) * (k + m)
    at_work, at_memory = flops / peak_flops, moved / bandwidth
    return ProductBound(
        flops=flops,
        bytes=moved,
        intensity=flops / moved,
        time_s=max(at_work, at_memory),
        bound="memory" if at_memory >= at_work else "arithmetic",
    )


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
