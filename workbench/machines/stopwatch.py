"""The only clock of measured times: interleaved rounds, each sample begun when the process is idle; medians, quartiles.

OpenMP threads of one library go on spinning after its call returns and would be charged to whoever comes next, so a
sample waits until the process has gone idle. Rounds go through all contenders, each round in another order, so that a
machine that slows down slows all of them alike. The duration of a whole run or training may be read where it happens.
"""

import gc
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels.check import as_int, as_number

__all__ = ["Timing", "measure", "wait_until_idle"]

ROUNDS = 7
MIN_SAMPLE_S = 2e-3
MIN_WARM_S = 0.25
# Of the median. On an idle machine the spread stays below a tenth; above a quarter two methods, which often differ by
# half, could change places by chance.
STEADY_SPREAD = 0.25


@dataclass(frozen=True)
class Timing:
    """Seconds of one contender: all samples, their median, and the distance between their quartiles."""

    samples_s: tuple[float, ...]

    @property
    def median_s(self) -> float:
        return float(np.median(self.samples_s))

    @property
    def spread_s(self) -> float:
        low, high = np.percentile(self.samples_s, (25, 75))
        return float(high - low)

    @property
    def is_steady(self) -> bool:
        """Tell whether the spread is small enough for the median to be shown, see `STEADY_SPREAD`."""
        return self.spread_s <= STEADY_SPREAD * self.median_s


def measure(
    runs: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = ROUNDS,
    least_s: float = MIN_SAMPLE_S,
    settle: bool = True,
) -> dict[str, Timing]:
    """Time several ways to do one thing, in interleaved rounds.

    Parameters
    ----------
    runs : name -> call, each of which does the work once; all of them known to give the right result.
    rounds : samples per contender, at least 1.
    least_s : a sample repeats its call until so many seconds have passed.
    settle : wait for an idle process before each sample.

    Returns
    -------
    name -> Timing, in the order given. Every contender has been called before its first sample, until it is warm.

    Raises
    ------
    ValueError : fewer than one round.
    """
    rounds = as_int(rounds, function="measure", name="rounds", low=1)
    least_s = as_number(least_s, function="measure", name="least_s", low=0)
    names = list(runs)
    repeats = {name: _repeats(runs[name], least_s) for name in names}
    samples = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            for place in range(len(names)):
                name = names[(place + turn) % len(names)]
                if settle:
                    wait_until_idle()
                samples[name].append(_sample(runs[name], repeats[name]))
    finally:
        if collecting:
            gc.enable()
    return {name: Timing(tuple(found)) for name, found in samples.items()}


def wait_until_idle(limit_s: float = 1.0) -> bool:
    """Sleep until no thread of this process uses a CPU; False if one still does after ``limit_s``."""
    deadline = time.perf_counter() + limit_s
    while time.perf_counter() < deadline:
        busy, start = time.process_time(), time.perf_counter()
        time.sleep(0.004)
        if time.process_time() - busy < 0.1 * (time.perf_counter() - start):
            return True
    return False


def _repeats(run, least_s):
    once = _sample(run, 1)
    if once < MIN_WARM_S:
        once = _sample(run, 1)  # the first call loads code and pages
    count, spent = 1, once
    while spent < least_s:  # a call that gets faster as it is repeated is repeated more often
        count = max(count + 1, math.ceil(1.1 * count * least_s / max(spent, 1e-9)))
        spent = count * _sample(run, count)
    return count


def _sample(run, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        result = run()
    elapsed = time.perf_counter() - start
    del result  # freed outside the clock, for every contender alike
    return elapsed / repeats
