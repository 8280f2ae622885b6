"""What SMASH's experiments multiply, and the counts that every one of them tells of it."""

import scipy.sparse as sp

from kernels.matmul.spgemm import row_flops, symbolic_nnz
from workbench.data.matrices import w0
from workbench.data.matrix_files import read_matrix, with_float_values
from workbench.data.product_pairs import paired, rmat_pair
from workbench.paper import row

__all__ = ["DATAFLOWS", "counts", "main_input"]

DATAFLOWS = ("inner", "inner-masked", "outer", "row", "column")  # those that the paper compares


def main_input(size, seed, matrix=None) -> tuple[str, sp.csr_array, sp.csr_array]:
    """Return title, A and B of the product that an experiment is about.

    Parameters
    ----------
    size : "full" is the reference workload W0; "tiny" and "small" are pairs like it.
    matrix : path of a file with a matrix that takes its place, squared or times its transpose; None for none.
    """
    if matrix is not None:
        return str(matrix), *paired(with_float_values(str(matrix), read_matrix(matrix)))
    if size == "full":
        return "W0", *w0()
    scale = {"tiny": 8, "small": 12}[size]
    return f"W0 at scale {scale}", *rmat_pair(scale, seed=seed)


def counts(title, a, b) -> list[dict]:
    """Return the rows that say how large a product is."""
    products, stored = int(row_flops(a, b).sum()), int(symbolic_nnz(a, b).sum())
    counted = {"nnz(A)": a.nnz, "nnz(B)": b.nnz, "products F": products, "nnz(C)": stored}
    units = {"products F": "products"}
    rows = [row(name, x, units.get(name, "entries"), "counted", matrix=title) for name, x in counted.items()]
    ratio = products / stored if stored else 1.0
    return [*rows, row("compression ratio", ratio, "products per entry", "counted", matrix=title)]
