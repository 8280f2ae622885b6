"""A model of the kernel's loop on a GPU: five activities for each tile, overlapped or one after the other.

One thread block on one multiprocessor of an A100, which has an equal share of the memory bandwidth and of the Tensor
Cores. The rates are given from memory; nothing is fitted to the paper's times. Activations are charged to memory for
every thread block, although a GPU finds many of them in its cache.
"""

from dataclasses import dataclass
from typing import NamedTuple

from kernels.check import as_number, check_choice
from workbench.machines.roofline import TILE_K, TILE_M

__all__ = ["A100", "ACTIVITIES", "OVERLAPS", "Gpu", "Span", "dense_cycles", "loop", "sparse_cycles", "step_cycles"]

ACTIVITIES = ("load the nonzeros", "copy the activations", "clear the tile", "multiply", "scatter")
OVERLAPS = ("none", "loads with the product", "loads with the product and with each other")
VALUE_BYTES, WORD_BYTES, BANKS = 2, 4, 32


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """Ceilings of a GPU.

    Parameters
    ----------
    peak_flops : operations per second of the matrix units in half precision.
    bandwidth : bytes per second of memory.
    multiprocessors, clock_hz : how many, and their cycles per second.
    shared_bytes : bytes that a multiprocessor writes to its shared memory in a cycle.
    """

    peak_flops: float
    bandwidth: float
    multiprocessors: int
    clock_hz: float
    shared_bytes: int = 4 * BANKS


A100 = Gpu(peak_flops=312e12, bandwidth=1555e9, multiprocessors=108, clock_hz=1.41e9)  # 40 GB, from memory


class Span(NamedTuple):
    """One activity on one tile: cycles from ``start`` to ``stop``."""

    activity: str
    tile: int
    start: float
    stop: float


def step_cycles(n, sparsity, *, conflicts=1.0, gpu=A100, tile_m=2 * TILE_M, tile_k=TILE_K) -> dict[str, float]:
    """Return the cycles of each activity for one tile of (tile_m, tile_k) weights and n columns.

    Parameters
    ----------
    n : columns of the activations.
    sparsity : share of the weights that are zero, in [0, 1].
    conflicts : how many words of 32 meet in the fullest bank when they are scattered, at least 1.
    """
    sparsity = as_number(sparsity, function="step_cycles", name="sparsity", low=0, high=1)
    conflicts = as_number(conflicts, function="step_cycles", name="conflicts", low=1)
    per_cycle = gpu.bandwidth / gpu.multiprocessors / gpu.clock_hz  # bytes of memory
    words = (1 - sparsity) * tile_m * tile_k
    cycles = (
        WORD_BYTES * words / per_cycle,
        VALUE_BYTES * tile_k * n / per_cycle,
        VALUE_BYTES * tile_m * tile_k / gpu.shared_bytes,
        2 * tile_m * tile_k * n / (gpu.peak_flops / gpu.multiprocessors / gpu.clock_hz),
        conflicts * words / BANKS,
    )
    return dict(zip(ACTIVITIES, cycles, strict=True))


def loop(cycles, tiles=4, overlap=OVERLAPS[2]) -> list[Span]:
    """Return when each activity runs for the first tiles of a row.

    Loads of a tile are those of the tile after the one that is multiplied. Both copies from memory share its bandwidth,
    so they follow each other. The scatter needs the nonzeros, a clear tile and the warps that multiply, and the next
    product needs all of them.

    Parameters
    ----------
    cycles : of `step_cycles`.
    tiles : tiles that are multiplied.
    overlap : one of `OVERLAPS`.
    """
    check_choice(overlap, OVERLAPS, function="loop", name="overlap")
    load, copied, clear, multiply, scatter = ACTIVITIES
    spans, now = [], 0.0

    def run(activity, tile, start):
        spans.append(Span(activity, tile, start, start + cycles[activity]))
        return spans[-1].stop

    for tile in range(tiles + 1):  # loads of this tile, product of the one before
        if overlap == OVERLAPS[2]:
            loaded = run(load, tile, now) if tile < tiles else now
            cleared = run(clear, tile, now) if tile < tiles else now
            multiplied = run(multiply, tile - 1, now) if tile else now
            if tile < tiles:
                there = run(copied, tile, loaded)
                now = max(there, run(scatter, tile, max(loaded, cleared, multiplied)))
            else:
                now = multiplied
            continue
        at = now
        if tile < tiles:
            for activity in (clear, load, copied):
                at = run(activity, tile, at)
        if tile:
            at = max(at, run(multiply, tile - 1, now if overlap == OVERLAPS[1] else at))
        now = run(scatter, tile, at) if tile < tiles else at
    return spans


def sparse_cycles(n, sparsity, *, conflicts=1.0, gpu=A100, overlap=OVERLAPS[2]) -> float:
    """Return the cycles of a tile in the middle of a long row of tiles."""
    cycles = step_cycles(n, sparsity, conflicts=conflicts, gpu=gpu)
    few, many = (max(span.stop for span in loop(cycles, tiles, overlap)) for tiles in (8, 16))
    return (many - few) / 8


def dense_cycles(n, *, gpu=A100) -> float:
    """Return the cycles of a tile of a dense product that overlaps everything: memory or arithmetic, whatever is more.

    A dense tile is not scattered and no tile has to be cleared.
    """
    cycles = step_cycles(n, 0.5, gpu=gpu)  # words of twice the width: as many bytes as the dense tile
    return max(cycles[ACTIVITIES[0]] + cycles[ACTIVITIES[1]], cycles[ACTIVITIES[3]])
