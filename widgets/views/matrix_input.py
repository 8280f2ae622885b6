"""Any matrix a reader may hold, as something the canvas draws."""

import numpy as np
from scipy import sparse

from kernels.check import as_csr
from kernels.raster import PATTERN_DTYPES
from widgets.canvas.source import BitsSource

MASK_POSITIONS = 10**8


def as_pattern(matrix, name: str = "matrix") -> tuple[sparse.csr_array, int]:
    """Return the matrix as CSR with sorted, distinct columns, and how many duplicate entries were summed for it.

    Parameters
    ----------
    matrix : two-dimensional NumPy array, scipy.sparse array or matrix, torch tensor (dense, COO or CSR), `BitsSource`.
        Stored zeros stay entries; zeros of dense input are not.
    name : what error messages call it.
    """
    if isinstance(matrix, BitsSource):
        found = sparse.csr_array(np.unpackbits(matrix.bits, axis=1, count=matrix.columns, bitorder="little") != 0)
    elif sparse.issparse(matrix):
        found = matrix if matrix.format == "csr" else matrix.tocsr()
    elif hasattr(matrix, "detach") and hasattr(matrix, "cpu"):
        found = _from_tensor(matrix.detach().cpu(), name)
    else:
        found = _from_dense(np.asarray(matrix), name)
    checked = as_csr(found, function="SparsityView", name=name, dtypes=PATTERN_DTYPES)
    if checked.has_canonical_format:
        return checked, 0
    checked = checked.copy()
    checked.sum_duplicates()
    return checked, int(found.indptr[-1] - checked.indptr[-1])


def is_large_mask(matrix) -> bool:
    """Tell whether a matrix is a bit mask with so many positions (over 10^8) that it must stay packed."""
    return isinstance(matrix, BitsSource) and matrix.shape[0] * matrix.shape[1] > MASK_POSITIONS


def _from_dense(array, name):
    if array.ndim != 2:
        raise ValueError(f"SparsityView: {name} must have two dimensions, got {array.ndim}; pick one slice.")
    if array.dtype not in [np.dtype(d) for d in PATTERN_DTYPES]:
        raise TypeError(f"SparsityView: {name} must hold numbers or bools, got {array.dtype}.")
    return sparse.csr_array(array)


def _from_tensor(tensor, name):
    layout = str(tensor.layout)
    if layout.endswith("sparse_csr"):
        parts = (tensor.values(), tensor.col_indices(), tensor.crow_indices())
        return sparse.csr_array(tuple(map(_numbers, parts)), shape=tuple(tensor.shape))
    if layout.endswith("sparse_coo"):
        rows, columns = _numbers(tensor._indices())
        return sparse.coo_array((_numbers(tensor._values()), (rows, columns)), shape=tuple(tensor.shape)).tocsr()
    return _from_dense(_numbers(tensor), name)


def _numbers(tensor):
    return (tensor.float() if str(tensor.dtype).endswith("bfloat16") else tensor).numpy()
