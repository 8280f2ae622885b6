"""PIUMA's constants, and those of the kernel on it: each with unit, source and tag, read from ``piuma.toml``."""

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

_FILE = tomllib.loads(Path(__file__).with_name("piuma.toml").read_text())


@dataclass(frozen=True)
class Constant:
    """One number of the machine file.

    Parameters
    ----------
    tag : "published" (read there), "from memory" (unverified) or "calibrated" (fixed by us).
    """

    name: str
    value: int | float | str
    unit: str
    meaning: str
    source: str
    tag: str


_ABOVE_ZERO = ("clock_ghz", "l_pipe", "bw", "dma_bw", "fill_bw", "net_bw", "line", "word", "wb_eff", "c_nz", "c_pp")


def _constant(name):
    return field(default=_FILE["constants"][name]["value"])


@dataclass(frozen=True)
class PiumaConfig:
    """Constants of the machine and of the kernel on it; ``constants()`` tells unit, meaning, source and tag of each."""

    n_mtc: int = _constant("n_mtc")
    threads_per_mtc: int = _constant("threads_per_mtc")
    clock_ghz: float = _constant("clock_ghz")
    l_pipe: float = _constant("l_pipe")
    l_dram: float = _constant("l_dram")
    l_spad: float = _constant("l_spad")
    l_atomic: float = _constant("l_atomic")
    l_store: float = _constant("l_store")
    bw: float = _constant("bw")
    dma_bw: float = _constant("dma_bw")
    line: int = _constant("line")
    word: int = _constant("word")
    spad_bytes: int = _constant("spad_bytes")
    log2_slots: int = _constant("log2_slots")
    load: float = _constant("load")
    token_pp: int = _constant("token_pp")
    wb_eff: float = _constant("wb_eff")
    c_nz: float = _constant("c_nz")
    c_pp: float = _constant("c_pp")
    c_probe: float = _constant("c_probe")
    c_merge: float = _constant("c_merge")
    c_alloc: float = _constant("c_alloc")
    c_scan: float = _constant("c_scan")
    c_wb: float = _constant("c_wb")
    c_static: float = _constant("c_static")
    c_dyn: float = _constant("c_dyn")
    c_dma: float = _constant("c_dma")
    fill_bw: float = _constant("fill_bw")
    l_net: float = _constant("l_net")
    net_bw: float = _constant("net_bw")

    def __post_init__(self):
        for f in fields(self):
            value = getattr(self, f.name)
            wanted = (int, np.integer) if f.type is int else (int, float, np.integer, np.floating)
            if isinstance(value, bool) or not isinstance(value, wanted):
                raise TypeError(f"PiumaConfig: {f.name} must be {f.type.__name__}, got {value!r}")
            low = 1e-6 if f.name in _ABOVE_ZERO else 0
            if not low <= value <= 1e9 and f.name != "token_pp":
                raise ValueError(f"PiumaConfig: {f.name} must be from {low} to 1e9, got {value!r}")
        if not 4 <= self.log2_slots <= 26:
            raise ValueError(f"PiumaConfig: log2_slots must be from 4 to 26, got {self.log2_slots}")
        if not 0 < self.load <= 1:
            raise ValueError(f"PiumaConfig: load must be above 0 and at most 1, got {self.load}")
        if not 1 <= self.token_pp < 2**63:
            raise ValueError(f"PiumaConfig: token_pp must be from 1 to 2^63 - 1, got {self.token_pp}")
        if not (self.n_mtc >= 1 and self.threads_per_mtc >= 1 and self.threads <= 4096):
            raise ValueError(
                "PiumaConfig: n_mtc x threads_per_mtc must be from 1 to 4096 threads, "
                f"got {self.n_mtc} x {self.threads_per_mtc}"
            )

    @property
    def threads(self) -> int:
        """Threads of one block."""
        return self.n_mtc * self.threads_per_mtc

    @property
    def slots(self) -> int:
        """Slots of the hash table, S."""
        return 1 << self.log2_slots

    @staticmethod
    def constants() -> tuple[Constant, ...]:
        """List every default with unit, meaning, source and tag."""
        return tuple(Constant(name, **entry) for name, entry in _FILE["constants"].items())

    @staticmethod
    def facts() -> tuple[Constant, ...]:
        """List what is known of the machine beyond what the model uses."""
        return tuple(Constant(name, meaning="", **entry) for name, entry in _FILE["facts"].items())
