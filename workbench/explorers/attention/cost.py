"""The work of sparse attention ready to be timed, in the forms that several methods share, and what it takes.

Counted costs are `kernels.attention.cost`; here are times, measured on a clock and modelled with stored peaks.
"""

import hashlib

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse

from kernels._native import get_num_threads
from kernels.attention.csr_softmax import csr_softmax
from kernels.matmul.sddmm import sddmm
from kernels.matmul.spmm import spmm
from workbench.machines import stopwatch
from workbench.machines.peaks import stored_peaks

__all__ = ["known_times", "least_seconds", "measured_times", "modelled_time", "on_inputs", "run_pairs"]

PAIR_LIMIT = 4_000_000
ROUNDS = 5
LEAST_S = 0.05  # of all rounds together
REMEMBERED = 512
_timed: dict[tuple, dict[str, stopwatch.Timing]] = {}


def on_inputs(inputs, function, **how):
    """Return the call of a method that is one function."""
    return {"attend": lambda: function(*inputs, **how)}


def run_pairs(given, s, seen):
    """Attend over single pairs: sampled products, softmax of every row, sparse product."""
    if np.count_nonzero(seen.allowed) > PAIR_LIMIT:
        return {}
    pattern = sparse.csr_array(seen.allowed.astype(np.float32))
    q, k, v = (np.ascontiguousarray(x[0, 0].numpy()) for x in (given.q, given.k, given.v))
    q = q * np.float32(q.shape[1] ** -0.5)
    return {"attend": lambda: spmm(csr_softmax(sddmm(pattern, q, k)), v)}


def modelled_time(cost) -> dict[str, str]:
    """Return the least time that an `AttentionCost` can take, and that of dense attention, by stored peaks."""
    own, dense = map(_ms, least_seconds(cost))
    return {"least time by the roofline (modelled)": f"{own}, dense {dense}, with {stored_peaks().origin}"}


def least_seconds(cost) -> tuple[float, float]:
    """Return the least time that an `AttentionCost` can take, and that of dense attention, in seconds (modelled)."""
    ceilings = stored_peaks().ceilings
    own = ceilings.floor_s(2 * (cost.before + cost.kept.multiply_adds), cost.kept.least_bytes, np.float32)
    return own, ceilings.floor_s(2 * cost.dense.multiply_adds, cost.dense.least_bytes, np.float32)


def measured_times(given, key, settings, runs, *, causal) -> dict[str, str]:
    """Time a method's parts and dense attention: once for an input and settings, so that no picture shows two times.

    Parameters
    ----------
    given : the input. key, settings : the method, and the values of its knobs.
    runs : the parts, ready to be called; nothing is timed where there are none.
    causal : whether the method, and so dense attention beside it, keeps queries from seeing what comes later.
    """
    if not runs:
        return {}
    dense = {"dense": lambda: F.scaled_dot_product_attention(given.q, given.k, given.v, is_causal=causal)}
    found = _once(dict(zip(_places(given, key, settings, causal), (runs, dense), strict=True)))
    steady = {name: timing for name, timing in found.items() if timing.is_steady}
    shown = [f"{name} {_ms(timing.median_s)} ({1e3 * timing.spread_s:.2g})" for name, timing in steady.items()]
    hidden = [name for name in found if name not in steady]
    told = [", ".join(shown)] if shown else []
    if hidden:
        told.append(
            f"The time of {' and of '.join(hidden)} is not shown: its rounds differ by more than "
            f"{stopwatch.STEADY_SPREAD:.0%} of their median, as they do while other work runs on this machine."
        )
    label = f"time of a call: median of {ROUNDS} warm rounds (spread), {get_num_threads()} threads (measured)"
    return {label: ". ".join(told)}


def known_times(given, key, settings, *, causal) -> dict[str, stopwatch.Timing]:
    """Return the times of a method's parts and of dense attention that `measured_times` has measured and shown."""
    return {name: timing for at in _places(given, key, settings, causal) for name, timing in _timed.get(at, {}).items()}


def _places(given, key, settings, causal):
    """Return where times are remembered: those of the method's parts, and that of dense attention."""
    place = (_fingerprint(given), get_num_threads(), torch.get_num_threads())
    return (*place, key, *sorted(settings.items())), (*place, "dense", causal)


def _once(parts):
    """Return name -> Timing of all parts; those that are not known yet take turns in interleaved rounds."""
    new = {name: run for at, runs in parts.items() if at not in _timed for name, run in runs.items()}
    found = stopwatch.measure(new, rounds=ROUNDS, least_s=LEAST_S / ROUNDS) if new else {}
    timed = {}
    for at, runs in parts.items():
        mine = _timed.get(at) or {name: found[name] for name in runs}
        if all(timing.is_steady for timing in mine.values()):  # else the next look measures again
            _timed[at] = mine
        timed |= mine
    while len(_timed) > REMEMBERED:
        _timed.pop(next(iter(_timed)))
    return timed


def _ms(seconds) -> str:
    return f"{1e3 * seconds:,.0f} ms" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _fingerprint(given) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for x in (given.q, given.k, given.v):
        digest.update(np.ascontiguousarray(x.numpy()).tobytes())
    digest.update(repr((tuple(given.q.shape), given.causal, given.grid, given.title)).encode())
    return digest.hexdigest()
