"""What a run of the PIUMA model tells: totals, the event log, timelines, windows."""

from dataclasses import dataclass

import numpy as np

from workbench.machines.piuma_config import PiumaConfig


@dataclass(frozen=True)
class EventLog:
    """Which thread worked on which token; holds the first events, ``total`` counts them all.

    Parameters
    ----------
    thread, row, window : int64[events]. Thread numbers go on from block to block.
    start, stop : float64[events], cycles.
    """

    thread: np.ndarray
    row: np.ndarray
    window: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    total: int

    @property
    def truncated(self) -> bool:
        """Whether the run had more events than the log keeps."""
        return self.total > len(self.thread)


@dataclass(frozen=True)
class Timeline:
    """The run in bins of equal width; the last bins may lie beyond its end and are then cut away.

    Parameters
    ----------
    edges : float64[bins + 1], cycles.
    instructions, bytes : float64[bins], issued and moved in the bin.
    live_mean, live_peak : float64[bins], partial products held in the scratchpad.
    thread_busy : float64[threads, bins], cycles that the thread held work.
    """

    edges: np.ndarray
    instructions: np.ndarray
    bytes: np.ndarray
    live_mean: np.ndarray
    live_peak: np.ndarray
    thread_busy: np.ndarray


@dataclass(frozen=True)
class WindowTimes:
    """When each window began, was hashed, was handed on or written back, and its DMA transfer ran (NaN in V1, V2).

    Parameters
    ----------
    start, hashed, done, dma_start, dma_stop : float64[windows], cycles.
    inserts : int64[windows], live partial products at ``hashed``.
    block : int64[windows], block that ran it.
    """

    start: np.ndarray
    hashed: np.ndarray
    done: np.ndarray
    dma_start: np.ndarray
    dma_stop: np.ndarray
    inserts: np.ndarray
    block: np.ndarray


@dataclass(frozen=True)
class SimResult:
    """One modelled run. Every number is modelled, except the counts of the trace, which are exact.

    Parameters
    ----------
    version, hash, blocks, config : what was run.
    cycles, ms : time of the slowest block.
    phases : cycles of the slowest block in counting the products, hashing, write-back, clearing and waiting for DMA.
    instructions, ipc : issued by all threads; per cycle.
    streams : DRAM bytes by stream (A, row pointers, B, C).
    bandwidth_utilisation : bytes / (cycles x bw x blocks).
    thread_utilisation : busy thread cycles / (cycles x threads).
    hashing_utilisation : the same in the hashing phases alone, where threads hold tokens or wait for the last one.
    thread_busy : float64[threads], cycles.
    products, inserts, probes : F, structural nnz(C), probes beyond the first.
    histogram : int64[65], products by extra probes.
    tokens, windows : how the work was cut.
    l1_hit_rate : 1 - lines / (2 F + 2 nnz(A)).
    lower_bound : cycles that no schedule can beat: max(bytes / bw, instructions / n_mtc, latency / threads).
    network_bytes : bytes that came from another block.
    peak_live : most slots claimed at once in a block.
    block_cycles : float64[blocks], time of each block.
    events, timeline, window_times : the course of the run.
    """

    version: int
    hash: str
    blocks: int
    config: PiumaConfig
    cycles: float
    ms: float
    phases: dict[str, float]
    instructions: float
    ipc: float
    streams: dict[str, float]
    bandwidth_utilisation: float
    thread_utilisation: float
    hashing_utilisation: float
    thread_busy: np.ndarray
    products: int
    inserts: int
    probes: int
    histogram: np.ndarray
    tokens: int
    windows: int
    l1_hit_rate: float
    lower_bound: float
    network_bytes: float
    peak_live: int
    block_cycles: np.ndarray
    events: EventLog
    timeline: Timeline
    window_times: WindowTimes

    @property
    def bytes(self) -> float:
        """DRAM bytes of all streams."""
        return sum(self.streams.values())

    @property
    def mean_extra_probes(self) -> float:
        """Probes beyond the first, per partial product."""
        return self.probes / self.products if self.products else 0.0
