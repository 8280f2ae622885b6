"""Times contenders against each other on one case, after checking that every result is right.

Rules: results are checked first; every contender is warmed up; rounds are interleaved, each in another order; a sample
begins only when the process has gone idle, because OpenMP threads of one library go on spinning after its call returns
and would be charged to the next contender; the figure is the median, its spread the interquartile range.
"""

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MIN_ROUNDS = 7
MIN_SAMPLE_S = 2e-3
MIN_WARM_S = 0.25


@dataclass(frozen=True)
class Contender:
    """One way to do the work of a case.

    Parameters
    ----------
    name : as shown; equal in every case of a bench.
    run : does the work once and returns the result.
    threads : threads that it may use (SciPy: 1, whatever was asked for).
    ours : whether it is the workbench's.
    """

    name: str
    run: Callable[[], Any]
    threads: int
    ours: bool = False


@dataclass(frozen=True)
class Case:
    """One input with everything that can process it.

    Parameters
    ----------
    work, work_unit : amount of work and its unit ("flop", "nonzero"), for work per second.
    contenders : all that are installed, ours first.
    check : ``check(name, result)`` raises ValueError when the result of that contender is wrong.
    flops, bytes : least operations and least bytes from and to memory; with the machine's ceilings they give the floor.
    dtype : "float32" or "float64", which ceiling of operations counts.
    facts : sizes that readers want beside the times.
    result_bytes : size of the result, for the comparison with the peak of memory.
    """

    work: float
    work_unit: str
    contenders: tuple[Contender, ...]
    check: Callable[[str, Any], None]
    flops: float = 0.0
    bytes: float = 0.0
    dtype: str = "float64"
    facts: dict[str, Any] = field(default_factory=dict)
    result_bytes: int = 0


@dataclass(frozen=True)
class CaseSpec:
    """A case before it is built: ``name`` for ``--case``, ``group`` for the geometric mean, ``build()`` -> Case."""

    name: str
    group: str
    build: Callable[[], Case]


@dataclass(frozen=True)
class Peer:
    """A library to compare with; ``load()`` imports it or raises ImportError, ``cure`` says how to get it."""

    name: str
    load: Callable[[], None]
    cure: str


@dataclass(frozen=True)
class Goal:
    """What we promise of a group of cases.

    Parameters
    ----------
    against : "best" (geometric mean of the ratio to the best peer of each case), a peer by name, "lowest" (the ratio
        to the best peer in the worst case) or "rate" (geometric mean of our work per second).
    least : the least that it must be.
    """

    group: str
    against: str
    least: float


@dataclass(frozen=True)
class Bench:
    """Everything one file of this folder says about one operation.

    Parameters
    ----------
    key : the file's name, and ``workbench bench KEY``.
    peers : libraries that take part when they are installed, and are named when they are not.
    specs : ``specs(quick, threads, loaded)`` -> cases; ``loaded`` names the peers that are installed.
    set_threads : gives every library the same number of threads.
    goals : what we promise; shown beside what was measured.
    own_process : time every case in a process of its own (see own_process.py).
    """

    key: str
    title: str
    peers: tuple[Peer, ...]
    specs: Callable[[bool, int, Sequence[str]], list[CaseSpec]]
    set_threads: Callable[[int, Sequence[str]], None]
    goals: tuple[Goal, ...] = ()
    own_process: bool = False


@dataclass(frozen=True)
class Timing:
    """Seconds of one contender: all samples, their median and interquartile range."""

    name: str
    ours: bool
    threads: int
    samples_s: tuple[float, ...]

    @property
    def median_s(self) -> float:
        return float(np.median(self.samples_s))

    @property
    def spread_s(self) -> float:
        low, high = np.percentile(self.samples_s, (25, 75))
        return float(high - low)


def checked(case: Case) -> dict[str, str]:
    """Run every contender once and return what is wrong, by name; contenders not in the answer are right."""
    wrong = {}
    for contender in case.contenders:
        try:
            case.check(contender.name, contender.run())
        except MemoryError:
            wrong[contender.name] = "ran out of memory"
        except Exception as error:
            wrong[contender.name] = f"{type(error).__name__}: {error}"
    return wrong


def measure(contenders: Sequence[Contender], rounds: int = MIN_ROUNDS, settle: bool = True) -> list[Timing]:
    """Time contenders in interleaved rounds.

    Parameters
    ----------
    contenders : all of them already checked.
    rounds : samples per contender, at least 7. A sample repeats a call of under 2 ms until 2 ms have passed.
    settle : wait for an idle process before each sample.

    Returns
    -------
    One Timing per contender, in the order given.
    """
    if rounds < MIN_ROUNDS:
        raise ValueError(f"measure: rounds must be at least {MIN_ROUNDS}, got {rounds}")
    repeats = [_repeats(contender.run) for contender in contenders]
    samples = [[] for _ in contenders]
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            for k in range(len(contenders)):
                which = (k + turn) % len(contenders)
                if settle:
                    wait_until_idle()
                samples[which].append(_sample(contenders[which].run, repeats[which]))
    finally:
        if collecting:
            gc.enable()
    return [Timing(c.name, c.ours, c.threads, tuple(s)) for c, s in zip(contenders, samples, strict=True)]


def wait_until_idle(limit_s: float = 1.0) -> bool:
    """Sleep until no thread of this process uses a CPU; False if one still does after ``limit_s``."""
    deadline = time.perf_counter() + limit_s
    while time.perf_counter() < deadline:
        busy, start = time.process_time(), time.perf_counter()
        time.sleep(0.004)
        if time.process_time() - busy < 0.1 * (time.perf_counter() - start):
            return True
    return False


def geometric_mean(ratios: Sequence[float]) -> float:
    """Return the geometric mean; NaN for no ratios."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan


def _repeats(run):
    once = _sample(run, 1)
    if once < MIN_WARM_S:
        once = _sample(run, 1)  # the first call loads code and pages
    return max(1, math.ceil(MIN_SAMPLE_S / max(once, 1e-9))) if once < MIN_SAMPLE_S else 1


def _sample(run, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        result = run()
    elapsed = time.perf_counter() - start
    del result  # freed outside the clock, for every contender alike
    return elapsed / repeats
