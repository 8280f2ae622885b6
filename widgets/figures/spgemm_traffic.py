"""What a sparse product C = A B moves, and when: bytes per dataflow, live partial products, and a machine at work.

The frozen dataclasses below are all that the figures know. Whoever computes (an exact count, a machine model, a
stopwatch) fills them with plain arrays and says in ``kind`` which of the three it was.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Kind = Literal["measured", "modelled", "counted"]
DATAFLOWS = ("inner", "outer", "row-wise", "column-wise")
STREAMS = ("A", "B", "row pointers", "partial products written", "partial products read", "C")


@dataclass(frozen=True)
class Operand:
    """A sparse matrix as plain CSR arrays, columns ascending within each row.

    Parameters
    ----------
    name : "A", "B" or "C".
    shape : (rows, columns).
    indptr : int64[rows + 1].
    indices : int64[nnz].
    values : float64[nnz].
    """

    name: str
    shape: tuple[int, int]
    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray

    @property
    def nnz(self):
        """Number of stored entries."""
        return int(self.indptr[-1])


@dataclass(frozen=True)
class StreamBytes:
    """Off-chip bytes of each dataflow, split by what they carry.

    Parameters
    ----------
    dataflows : names of the rows of ``bytes``.
    streams : names of its columns, see ``STREAMS``.
    bytes : float64[dataflows, streams] (float, since inner products pass 2^63 early on large inputs).
    note : what was assumed, in one sentence ("16 B an element, no cache").
    """

    dataflows: tuple[str, ...]
    streams: tuple[str, ...]
    bytes: np.ndarray
    note: str
    kind: Kind = "counted"


@dataclass(frozen=True)
class LiveCurve:
    """Partial products alive over time.

    Parameters
    ----------
    label : legend entry, such as "outer" or "V2 on PIUMA".
    x : float64[n], ascending: products formed so far, or cycles.
    live : int64[n].
    x_unit : "products" or "cycles".
    """

    label: str
    x: np.ndarray
    live: np.ndarray
    x_unit: Literal["products", "cycles"]
    kind: Kind


@dataclass(frozen=True)
class Gantt:
    """Which thread worked on which row, and when.

    Parameters
    ----------
    thread, row : int64[events].
    t0, t1 : float64[events], in cycles.
    threads : number of threads of the machine, idle ones included.
    cycles : length of the whole run.
    events_total : events of the run; more than ``len(thread)`` where the log was cut off.
    """

    thread: np.ndarray
    row: np.ndarray
    t0: np.ndarray
    t1: np.ndarray
    threads: int
    cycles: float
    events_total: int
    kind: Kind = "modelled"


@dataclass(frozen=True)
class Utilisation:
    """How busy the machine was, in bins of time.

    Parameters
    ----------
    edges : float64[bins + 1], in cycles.
    series : name -> float64[bins] in [0, 1], such as "issue slots", "DRAM bandwidth", "threads busy".
    """

    edges: np.ndarray
    series: dict[str, np.ndarray]
    kind: Kind = "modelled"


@dataclass(frozen=True)
class ProbeHistogram:
    """Extra probes per product beyond the first, one histogram per hash.

    Parameters
    ----------
    labels : such as "high bits (V1)".
    counts : int64[labels, bins]; the last bin holds "that many or more".
    mean : float64[labels], extra probes per product.
    """

    labels: tuple[str, ...]
    counts: np.ndarray
    mean: np.ndarray
    kind: Kind = "counted"


@dataclass(frozen=True)
class TableOccupancy:
    """The hash table at the end of one window.

    Parameters
    ----------
    label : hash that filled it.
    row : int64[slots], output row of the occupant counted from the window's first row; -1 where the slot is free.
    window, windows : which window of how many.
    rows : output rows of that window.
    """

    label: str
    row: np.ndarray
    window: int
    windows: int
    rows: int
    kind: Kind = "counted"


@dataclass(frozen=True)
class Roofline:
    """Operations per cycle against operations per byte, under the machine's two ceilings.

    Parameters
    ----------
    labels : one per point.
    ops_per_byte, ops_per_cycle : float64[points].
    peak_ops_per_cycle, peak_bytes_per_cycle : the ceilings.
    """

    labels: tuple[str, ...]
    ops_per_byte: np.ndarray
    ops_per_cycle: np.ndarray
    peak_ops_per_cycle: float
    peak_bytes_per_cycle: float
    ops: str = "instructions"
    kind: Kind = "modelled"


@dataclass(frozen=True)
class Constant:
    """One number of the machine file.

    Parameters
    ----------
    tag : "published", "from memory" or "calibrated".
    """

    name: str
    value: str
    unit: str
    source: str
    tag: str


@dataclass(frozen=True)
class MachineRun:
    """One run of a machine on the product.

    Parameters
    ----------
    label : such as "V2 (tokens, low-order bits)".
    totals : quantity -> value as shown, such as {"time (ms)": "4.41", "instructions per cycle": "1.55"}.
    constants : every constant of the machine, with its tag.
    """

    label: str
    totals: dict[str, str]
    gantt: Gantt
    utilisation: Utilisation
    live: LiveCurve
    probes: ProbeHistogram
    occupancy: tuple[TableOccupancy, ...]
    roofline: Roofline
    constants: tuple[Constant, ...]
    kind: Kind = "modelled"


@dataclass(frozen=True)
class TrafficScene:
    """Everything that the SpGEMM traffic view draws for one pair of operands.

    Parameters
    ----------
    title : what the operands are, in words.
    a, b, c : the operands and the structure of the product.
    products : number of multiplications F, equal for all dataflows.
    traffic : bytes by stream.
    live : one curve per dataflow.
    machine : the run of the machine, or None where ``machine_note`` says why there is none.
    """

    title: str
    a: Operand
    b: Operand
    c: Operand
    products: int
    traffic: StreamBytes
    live: tuple[LiveCurve, ...]
    machine: MachineRun | None = None
    machine_note: str = ""
    notes: tuple[str, ...] = field(default=())
