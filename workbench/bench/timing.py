"""Times contenders against each other on one case, after checking that every result is right.

Results are checked first; how times are taken says `workbench.machines.stopwatch`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.machines import stopwatch

MIN_ROUNDS = 7


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


@dataclass(frozen=True, kw_only=True)
class Timing(stopwatch.Timing):
    """Seconds of one contender of a bench."""

    name: str
    ours: bool
    threads: int


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
    """Time contenders in interleaved rounds, see `stopwatch.measure`.

    Parameters
    ----------
    contenders : all of them already checked.
    rounds : samples per contender, at least 7.

    Returns
    -------
    One Timing per contender, in the order given.
    """
    if rounds < MIN_ROUNDS:
        raise ValueError(f"measure: rounds must be at least {MIN_ROUNDS}, got {rounds}")
    found = stopwatch.measure({c.name: c.run for c in contenders}, rounds=rounds, settle=settle)
    return [Timing(found[c.name].samples_s, name=c.name, ours=c.ours, threads=c.threads) for c in contenders]


def geometric_mean(ratios: Sequence[float]) -> float:
    """Return the geometric mean; NaN for no ratios."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan
