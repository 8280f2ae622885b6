"""The dataflows of C = A B as they are stepped through: what each keeps on the chip, and what it says of a product."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kernels.matmul.dataflow_order import DATAFLOWS

Lines = Mapping[str, tuple[Iterable[int], Iterable[int]]]
NOTHING = ((), ())


@dataclass(frozen=True, kw_only=True)
class Stepped:
    """One dataflow as a reader steps through it.

    Parameters
    ----------
    label : what menus and legends call it.
    order : its order of products, a key of `kernels.matmul.dataflow_order.DATAFLOWS`.
    windows : lines of C whose sums are kept together: each "line" alone, those that share a "table", or None where no
        line is kept.
    place : the place on the chip, with {i} and {j} for the present entry of C.
    about : what that place is for, one sentence.
    lines : (i, k, j) as sets, empty where a run of products has several -> the lines of A, B and C that it walks.
    opens, adds : what a product does that is the first of its entry of C, and one that is not; {i}, {j}, {amount}.
    written : what left the chip before a product, with {i} and {j} of the product before and {entries} that left.
    merges_last : whether products are stored one by one and merged after the last.
    waits_in_b : whether elements of B are kept as well.
    """

    label: str
    order: str
    windows: Literal["line", "table"] | None
    place: str
    about: str
    lines: Callable[[set, set, set], Lines]
    opens: str
    adds: str
    written: str
    merges_last: bool = False
    waits_in_b: bool = False

    @property
    def source(self) -> str:
        """Who described the order."""
        return DATAFLOWS[self.order].source


def _row_lines(i, k, j):
    return {"A": (i, ()), "B": (k, ()), "C": (i, ())}


STEPPED = {
    "row": Stepped(
        label="row-wise (Gustavson)",
        order="row",
        windows="line",
        place="the accumulator of row {i} of C",
        about="It holds one row of C. When the row is complete, it is written to memory and the accumulator is empty.",
        lines=_row_lines,
        opens="opens C[{i}, {j}] with {amount}: new entry",
        adds="adds {amount} to C[{i}, {j}]: merge",
        written="Row {i} of C is complete and leaves the accumulator with {entries}.",
    ),
    "hash": Stepped(
        label="row-wise, hash table for a window of rows",
        order="row",
        windows="table",
        place="the hash table of the present window of rows",
        about="An entry takes the slot that the low-order bits of its place in the window name, or the next free one. "
        "When the window ends, all are written to memory and the table is empty.",
        lines=_row_lines,
        opens="claims a slot for C[{i}, {j}] with {amount}: new entry",
        adds="finds C[{i}, {j}] in its slot and adds {amount}: merge",
        written="The window ends with row {i} of C, and the table is written out with {entries}.",
    ),
    "merge": Stepped(
        label="row-wise, merge of rows of B",
        order="merge",
        windows=None,
        place="the merge of the rows of B that meet row {i} of A",
        about="It holds the sum of one entry of C, and of every other row of B the first element still to come. The "
        "smallest column leaves first, so the entries of C are made one after the other.",
        lines=_row_lines,
        opens="leaves the merge and starts C[{i}, {j}] with {amount}",
        adds="leaves the merge next, with the same column, and adds {amount} to C[{i}, {j}]: merge",
        written="C[{i}, {j}] is complete and is written to memory.",
        waits_in_b=True,
    ),
    "outer": Stepped(
        label="outer product",
        order="outer",
        windows=None,
        place="the list of unmerged products",
        about="Every product is stored until all are formed; only then are those of one entry of C merged. A list that "
        "does not fit the chip goes to memory and comes back.",
        lines=lambda i, k, j: {"A": ((), k), "B": (k, ()), "C": (i, ())},
        opens="is stored: {amount} for C[{i}, {j}], to be merged after the last product",
        adds="is stored: {amount} for C[{i}, {j}], to be merged after the last product",
        written="The list is merged.",
        merges_last=True,
    ),
    "inner": Stepped(
        label="inner product",
        order="inner",
        windows=None,
        place="the running dot product C[{i}, {j}]",
        about="It holds one number, which is written to memory when its row of A and its column of B are done.",
        lines=lambda i, k, j: {"A": (i, ()), "B": ((), j), "C": NOTHING},
        opens="starts the dot product C[{i}, {j}] with {amount}",
        adds="adds {amount} to the running dot product C[{i}, {j}]",
        written="C[{i}, {j}] is complete and is written to memory.",
    ),
    "column": Stepped(
        label="column-wise",
        order="column",
        windows="line",
        place="the accumulator of column {j} of C",
        about="It holds one column of C. When the column is complete, it is written to memory and the accumulator is "
        "empty.",
        lines=lambda i, k, j: {"A": ((), k), "B": ((), j), "C": ((), j)},
        opens="opens C[{i}, {j}] with {amount}: new entry",
        adds="adds {amount} to C[{i}, {j}]: merge",
        written="Column {j} of C is complete and leaves the accumulator with {entries}.",
    ),
}


def line_windows(flow: Stepped, shape: tuple[int, int], table: np.ndarray) -> np.ndarray | None:
    """Return the first lines of the windows whose sums a dataflow keeps together; None where it keeps no lines.

    Parameters
    ----------
    flow : one of `STEPPED`.
    shape : of C.
    table : int64, first rows of the windows of rows that share a hash table.
    """
    lines = shape[DATAFLOWS[flow.order].lines == "column"]
    return {"line": np.arange(max(lines, 1)), "table": table, None: None}[flow.windows]


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun, such as "1 entry" and "2 entries"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
