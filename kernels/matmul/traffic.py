"""Off-chip traffic of C = A B under each order of computation, counted in closed form from the structure alone.

Symbols as in `spgemm`: A is (m, k), B is (k, n); F = number of products. Nothing is multiplied here.

Source: Shivdikar 2021, "SMASH"; pointer words: two per fine-grained row lookup, one per pointer of a matrix walked in
order. The merge of rows of B is that of `kernels.matmul.dataflow_order`; its comparisons are those of a tournament.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse

from kernels.check import as_int, check_choice
from kernels.matmul.spgemm import operands, row_flops, symbolic_nnz

__all__ = ["Traffic", "dataflow_traffic"]

Dataflow = Literal["inner", "inner-masked", "outer", "row", "column", "merge"]


@dataclass(frozen=True)
class Traffic:
    """Off-chip traffic of one dataflow, in elements (index + value) unless said otherwise.

    Parameters
    ----------
    dataflow : one of those of `dataflow_traffic`.
    read_a, read_b : elements of the operands read.
    pp_written, pp_read : partial products stored off-chip and read back.
    write_c : elements of the result written.
    ptr : row or column pointers read, in words of ``index_bytes``.
    flops : products F (a multiply and an add each).
    comparisons : index comparisons of the plain inner product and of the merge, at most.
    peak_live : most elements kept at once (one dot, row or column in flight; outer: all products; merge: one element of
        every row of B that is merged).
    index_bytes, value_bytes : width of an index and of a value.
    """

    dataflow: str
    read_a: int
    read_b: int
    pp_written: int
    pp_read: int
    write_c: int
    ptr: int
    flops: int
    comparisons: int
    peak_live: int
    index_bytes: int = 8
    value_bytes: int = 8

    @property
    def elements(self) -> int:
        """Elements moved in total, pointers left out."""
        return self.read_a + self.read_b + self.pp_written + self.pp_read + self.write_c

    @property
    def bytes_by_stream(self) -> dict[str, int]:
        """Bytes per stream: read_a, read_b, pp_written, pp_read, write_c, ptr."""
        width = self.index_bytes + self.value_bytes
        streams = {s: getattr(self, s) * width for s in ("read_a", "read_b", "pp_written", "pp_read", "write_c")}
        return streams | {"ptr": self.ptr * self.index_bytes}

    @property
    def total_bytes(self) -> int:
        """Bytes moved in total."""
        return sum(self.bytes_by_stream.values())


def dataflow_traffic(a, b, dataflow: Dataflow, index_bytes=8, value_bytes=8, cache="none") -> Traffic:
    """Count the off-chip traffic of A B in one of the orders of computation.

    Parameters
    ----------
    a, b : CSR matrices (m, k), (k, n).
    dataflow : "inner" (dot of row and column, all pairs of a non-empty row and a non-empty column), "inner-masked" (the
        same, output structure known), "outer" (column of A times row of B), "row" (Gustavson, SMASH), "column", "merge"
        (row by row, the sorted rows of B merged).
    index_bytes, value_bytes : width of an index and of a value; an element is one of each.
    cache : "none" (every re-use goes off-chip) or "ideal" (every operand element is read once).

    Returns
    -------
    Traffic, counts in elements and words.

    Raises
    ------
    ValueError : unknown dataflow or cache, widths below 1, inner sizes that differ. TypeError : not CSR.
    """
    a, b = operands(a, b, "dataflow_traffic")
    check_choice(dataflow, _DATAFLOWS, function="dataflow_traffic", name="dataflow")
    check_choice(cache, ("none", "ideal"), function="dataflow_traffic", name="cache")
    index_bytes, value_bytes = (
        as_int(width, function="dataflow_traffic", name=name, low=1)
        for name, width in (("index_bytes", index_bytes), ("value_bytes", value_bytes))
    )
    counts = _DATAFLOWS[dataflow](a, b)
    if cache == "ideal":
        counts |= {"read_a": int(a.indptr[-1]), "read_b": int(b.indptr[-1])}
    products = int(row_flops(a, b).sum())
    defaults = {"pp_written": 0, "pp_read": 0, "comparisons": 0}
    written = int(symbolic_nnz(a, b).sum())
    return Traffic(dataflow, **(defaults | counts), write_c=written, flops=products,
                   index_bytes=index_bytes, value_bytes=value_bytes)  # fmt: skip


def _narrow(b):
    """Leave empty columns out of a matrix that has few others: counts per column then take memory by entries."""
    if b.shape[1] <= 4 * b.nnz:
        return b
    used, places = np.unique(b.indices, return_inverse=True)
    return sparse.csr_array((b.data, places.astype(b.indices.dtype), b.indptr), shape=(b.shape[0], len(used)))


def _column_counts(b):
    return np.bincount(b.indices, minlength=b.shape[1])


def _transpose(a):
    return sparse.csr_array(a.T.tocsr())


def _inner(a, b):
    a_nnz, b_nnz = int(a.indptr[-1]), int(b.indptr[-1])
    rows = int(np.count_nonzero(np.diff(a.indptr)))
    columns = int(np.count_nonzero(_column_counts(_narrow(b))))
    reads = {"read_a": a_nnz * columns, "read_b": b_nnz * rows}
    pointers = a.shape[0] + 1 + rows * (b.shape[1] + 1)
    return reads | {"ptr": pointers, "comparisons": sum(reads.values()), "peak_live": min(1, rows * columns)}


def _inner_masked(a, b):
    per_row = symbolic_nnz(a, b)
    narrow = _narrow(b)
    per_column = symbolic_nnz(_transpose(narrow), _transpose(a))
    reads = {
        "read_a": int(np.dot(per_row, np.diff(a.indptr).astype(np.int64))),
        "read_b": int(np.dot(per_column, _column_counts(narrow).astype(np.int64))),
    }
    written = int(per_row.sum())
    pointers = a.shape[0] + 1 + 2 * written
    return reads | {"ptr": pointers, "comparisons": sum(reads.values()), "peak_live": min(1, written)}


def _outer(a, b):
    products = int(row_flops(a, b).sum())
    reads = {"read_a": int(a.indptr[-1]), "read_b": int(b.indptr[-1]), "pp_written": products, "pp_read": products}
    return reads | {"ptr": 2 * (a.shape[1] + 1), "peak_live": products}


def _row(a, b):
    a_nnz, products = int(a.indptr[-1]), int(row_flops(a, b).sum())
    live = int(symbolic_nnz(a, b).max(initial=0))
    return {"read_a": a_nnz, "read_b": products, "ptr": a.shape[0] + 1 + 2 * a_nnz, "peak_live": live}


def _column(a, b):
    b_nnz, products = int(b.indptr[-1]), int(row_flops(a, b).sum())
    live = int(symbolic_nnz(_transpose(_narrow(b)), _transpose(a)).max(initial=0))
    return {"read_a": products, "read_b": b_nnz, "ptr": b.shape[1] + 1 + 2 * b_nnz, "peak_live": live}


def _merge(a, b):
    """Rows of B as row-wise; w of them that are not empty start with w - 1 comparisons, then ceil(log2 w) a product."""
    filled = np.diff(b.indptr)[a.indices[: a.indptr[-1]]] > 0
    before = np.concatenate(([0], np.cumsum(filled)))
    ways = np.diff(before[a.indptr])
    matches = np.maximum(ways - 1, 0) + row_flops(a, b) * np.ceil(np.log2(np.maximum(ways, 1))).astype(np.int64)
    return _row(a, b) | {"comparisons": int(matches.sum()), "peak_live": int(ways.max(initial=0))}


_DATAFLOWS = {
    "inner": _inner,
    "inner-masked": _inner_masked,
    "outer": _outer,
    "row": _row,
    "column": _column,
    "merge": _merge,
}
