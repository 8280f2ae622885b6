"""What is drawn of a sparse product C = A B: bytes by dataflow, what is kept on chip, and a machine's runs of it.

Whoever computes (an exact count, a machine model, a stopwatch) fills these dataclasses with plain arrays and says in
``kind`` which of the three it was; the figures and the view know nothing else.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kernels.matmul.dataflow import DataflowSteps
from kernels.matmul.dataflow_order import DataflowOrder

Kind = Literal["measured", "modelled", "counted"]
STREAMS = ("A", "B", "row pointers", "partial products written", "partial products read", "C")


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class LiveCurve:
    """Elements kept on the chip over time.

    Parameters
    ----------
    label : legend entry, such as "outer" or "V2".
    x : float64[n], never falling: products formed so far, or cycles.
    live : int64[n].
    x_unit : "products" or "cycles".
    """

    label: str
    x: np.ndarray
    live: np.ndarray
    x_unit: Literal["products", "cycles"]
    kind: Kind


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class MachineRun:
    """One run of the machine on the product.

    Parameters
    ----------
    label : such as "V2".
    totals : quantity with its unit -> value, such as {"time (ms)": 4.41}.
    """

    label: str
    totals: dict[str, float]
    gantt: Gantt
    utilisation: Utilisation
    live: LiveCurve
    kind: Kind = "modelled"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine on one product: every kernel version that ran, side by side.

    Parameters
    ----------
    runs : one per version.
    shown : which of them the reader chose.
    left_out : sentences that say which version did not run, and why.
    occupancy : the table of one window, by hash.
    constants : every constant of the machine, with its tag.
    """

    runs: tuple[MachineRun, ...]
    shown: int
    left_out: tuple[str, ...]
    probes: ProbeHistogram
    occupancy: tuple[TableOccupancy, ...]
    roofline: Roofline
    constants: tuple[Constant, ...]


@dataclass(frozen=True, kw_only=True)
class TrafficScene:
    """Everything that the SpGEMM traffic view draws for one pair of operands.

    Parameters
    ----------
    title : what the operands are, in words.
    a, b, c : the operands and the product (values of C summed over its partial products).
    products : number of multiplications F, equal for all dataflows.
    traffic : bytes by stream.
    orders, births : by order of products (``kernels.matmul.dataflow_order.DATAFLOWS``), from
        ``kernels.matmul.dataflow``; births holds the number of the product that first reaches each entry of C.
    steps, windows : by dataflow (``spgemm_dataflows.STEPPED``); windows holds the first lines of C of the windows whose
        sums are kept together, None where no lines are.
    slots : size of the hash table that a window of rows shares.
    machine : the machine's runs, or None where ``machine_note`` says why there are none.
    """

    title: str
    a: Operand
    b: Operand
    c: Operand
    products: int
    traffic: StreamBytes
    orders: dict[str, DataflowOrder]
    steps: dict[str, DataflowSteps]
    births: dict[str, np.ndarray]
    windows: dict[str, np.ndarray | None]
    slots: int
    machine: Machine | None = None
    machine_note: str = ""


def live_curve(steps, label):
    """Return what a dataflow keeps over the products formed, from nothing to nothing: at the end all is written."""
    x, live = steps.edges[1:].astype(float), steps.live
    if not steps.exact:  # a run's peak lies somewhere inside it
        x = np.repeat(x, 2)
        x[::2] = (steps.edges[:-1] + steps.edges[1:]) / 2
        live = np.column_stack([steps.live_max, steps.live]).ravel()
    if steps.products:
        x, live = np.concatenate(([0], x, x[-1:])), np.concatenate(([0], live, [0]))
    return LiveCurve(label=label, x=x, live=live, x_unit="products", kind="counted")
