"""Stored peaks of machines: what modelled times of this CPU rest on, so that no picture measures them.

A machine is its processor, the instruction set of the kernels, and their threads. ``workbench peaks`` measures this one
once and stores it in the user's folder. Until then the nearest stored machine stands in, those of ``peaks.json``
included, and whoever shows a modelled time says whose peaks it rests on.
"""

import json
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

from kernels._native import get_num_threads, isa
from kernels.check import check_threads
from workbench import folders, record
from workbench.machines import host
from workbench.machines.roofline import Ceilings, ceilings

__all__ = ["Peaks", "measure_peaks", "stored_peaks"]

SHIPPED = Path(__file__).with_name("peaks.json")


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """The ceilings of one machine, and where they come from.

    Parameters
    ----------
    ceilings : how fast it copies and computes, with how many threads and which instruction set.
    cpu : its processor.
    date : day of the measurement, YYYY-MM-DD.
    own : whether they were measured on a machine like this one, with as many threads.
    """

    ceilings: Ceilings
    cpu: str
    date: str
    own: bool

    @property
    def origin(self) -> str:
        """Whose peaks they are, in words that go on after "with"."""
        threads = f"{self.ceilings.threads} thread{'s' * (self.ceilings.threads != 1)}"
        told = f"the peaks of {self.cpu} ({self.ceilings.isa}, {threads}), measured on {self.date}"
        return told if self.own else f"{told}; `workbench peaks` measures those of this machine"


def stored_peaks(threads: int | None = None) -> Peaks:
    """Return the stored peaks that are nearest to this machine; nothing is measured.

    The processor counts first, then the instruction set, then the number of threads (None: as many as the kernels use);
    of equals, what the user measured comes before what ships.
    """
    mine = (_processor(), isa(), check_threads(threads, function="stored_peaks", name="threads") or get_num_threads())
    known = [*_read(_own_file()), *_read(SHIPPED)]

    def distance(entry):
        return entry["cpu"] != mine[0], entry["isa"] != mine[1], abs(entry["threads"] - mine[2])

    found = dict(min(known, key=distance))
    cpu, day = found.pop("cpu"), found.pop("date")
    peak = Ceilings(**found)
    return Peaks(ceilings=peak, cpu=cpu, date=day, own=(cpu, peak.isa, peak.threads) == mine)


def measure_peaks() -> list[Peaks]:
    """Measure this machine with 1, 2, 4 .. threads, up to its CPUs, and store what was found in the user's folder.

    Cost
    ----
    About a second and 256 MiB for each number of threads. The best of some rounds counts, so other work on the machine
    must leave it some rounds of its own.
    """
    cpus, today = host.usable_cpus(), date.today().isoformat()
    counts = sorted({1, cpus, get_num_threads(), *(2**i for i in range(cpus.bit_length()) if 2**i <= cpus)})
    found = [Peaks(ceilings=ceilings(n), cpu=_processor(), date=today, own=True) for n in counts]
    entries = {_machine(entry): entry for entry in _read(_own_file())}
    for each in found:
        entry = {"cpu": each.cpu, "date": each.date, **vars(each.ceilings)}
        entries[_machine(entry)] = record.rounded(entry)
    record.write_json(_own_file(), list(entries.values()))
    return found


def _machine(entry):
    return entry["cpu"], entry["isa"], entry["threads"]


def _own_file() -> Path:
    return folders.home() / "peaks.json"


def _read(file) -> list[dict]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []  # not there, or spoilt: measuring writes it again, and the picture says that this was not done


@cache
def _processor():
    return host.cpu_name()
