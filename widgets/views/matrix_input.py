"""Any matrix a reader may hold, as something the canvas draws."""

import copy

import numpy as np
from scipy import sparse

from kernels.check import as_csr, check_unmasked
from kernels.matrix_bytes import for_scipy
from kernels.raster import PATTERN_DTYPES
from widgets.canvas.source import BitsSource

MASK_POSITIONS = 10**8


def as_pattern(matrix, name: str = "matrix") -> tuple[sparse.csr_array, int]:
    """Return the matrix as CSR with sorted, distinct columns, and how many duplicate entries were summed for it.

    The same entries give the same result in every format. Half precision is widened to float32 and foreign byte order
    turned, since SciPy knows neither; values stay as they are.

    Parameters
    ----------
    matrix : two-dimensional NumPy array, scipy.sparse array or matrix of any format, torch tensor (dense, COO, CSR,
        CSC, BSR or BSC), `BitsSource`. Stored zeros stay entries, those that fill blocks too; zeros of dense input and
        the zeros that pad diagonals are none.
    name : what error messages call it.

    Raises
    ------
    TypeError : no numbers or bools, a masked array, or a tensor that cannot be read.
    ValueError : not two-dimensional, or indices that leave the matrix.
    """
    if isinstance(matrix, BitsSource):
        found = sparse.csr_array(np.unpackbits(matrix.bits, axis=1, count=matrix.columns, bitorder="little") != 0)
    elif sparse.issparse(matrix):
        found = _from_sparse(matrix, name)
    elif hasattr(matrix, "detach") and hasattr(matrix, "cpu"):
        found = _from_tensor(matrix, name)
    else:
        found = _from_dense(matrix, name)
    if found.format == "coo":
        summed = found.tocsr()
        if summed.nnz < found.nnz:
            summed = _widened_sums(found).tocsr()
        return as_csr(summed, function="SparsityView", name=name, dtypes=PATTERN_DTYPES), found.nnz - summed.nnz
    checked = as_csr(found, function="SparsityView", name=name, dtypes=PATTERN_DTYPES)
    if checked.has_canonical_format:
        return checked, 0
    stored = int(checked.indptr[-1])
    checked = _widened_sums(checked).copy()
    checked.sum_duplicates()
    return checked, stored - int(checked.indptr[-1])


def is_large_mask(matrix) -> bool:
    """Tell whether a matrix is a bit mask with so many positions (over 10^8) that it must stay packed."""
    return isinstance(matrix, BitsSource) and matrix.shape[0] * matrix.shape[1] > MASK_POSITIONS


def _from_sparse(matrix, name):
    """Return a CSR matrix as it is, any other as COO, so that duplicates are still there to be counted."""
    if matrix.ndim != 2:
        raise ValueError(f"SparsityView: {name} must have two dimensions, got {matrix.ndim}; pick one slice.")
    values = getattr(matrix, "data", None)
    if isinstance(values, np.ndarray) and values.dtype != object:  # a list of lists has neither plain data nor faults
        plain = _plain(values, name)
        if plain is not values:
            matrix = copy.copy(matrix)  # SciPy's own copy refuses such values
            matrix.data = plain
    if matrix.format == "csc":
        as_csr(matrix.T, function="SparsityView", name=f"{name}.T", dtypes=PATTERN_DTYPES)
    if matrix.format == "bsr":
        try:
            matrix.check_format(full_check=True)
        except ValueError as error:
            raise ValueError(f"SparsityView: {name} is not a valid BSR matrix: {error}; rebuild it.") from None
    found = matrix if matrix.format == "csr" else matrix.tocoo()
    if found.format == "coo":
        rows, columns = found.coords
        for label, places, size in (("row", rows, found.shape[0]), ("column", columns, found.shape[1])):
            if places.size and not 0 <= places.min() <= places.max() < size:
                raise ValueError(f"SparsityView: {name} has an entry in a {label} outside 0 to {size - 1}.")
    return found


def _from_dense(matrix, name):
    array = _plain(matrix if isinstance(matrix, np.ma.MaskedArray) else np.asarray(matrix), name)
    if array.ndim != 2:
        raise ValueError(f"SparsityView: {name} must have two dimensions, got {array.ndim}; pick one slice.")
    return sparse.csr_array(array)


def _plain(values, name):
    """Return values in a type that SciPy computes with, no copy where they have one."""
    check_unmasked(values, function="SparsityView", name=name)
    if values.dtype.newbyteorder("=") not in [np.dtype(d) for d in PATTERN_DTYPES]:
        raise TypeError(
            f"SparsityView: {name} must hold numbers or bools, got {values.dtype}; convert it, e.g. with "
            f"{name}.astype(float)."
        )
    return for_scipy(values)


def _widened_sums(matrix):
    """Return the matrix with whole numbers wide enough for what duplicates may sum to."""
    return matrix.astype(np.int64) if matrix.dtype.kind in "iu" and matrix.dtype.itemsize < 8 else matrix


def _from_tensor(tensor, name):
    layout = str(tensor.layout).removeprefix("torch.")
    if getattr(tensor, "is_nested", False):
        raise TypeError(f"SparsityView: {name} is a nested tensor; pick one of its parts, e.g. {name}[0].")
    tensor = tensor.detach()
    if len(tensor.shape) != 2:
        batched = len(tensor.shape) > 2
        what, cure = ("a batch of matrices", f"{name}[0]") if batched else ("no matrix", f"{name}[None]")
        raise ValueError(
            f"SparsityView: {name} must have two dimensions, got {what} of shape {tuple(tensor.shape)} in layout "
            f"{layout}; pass one matrix, e.g. {cure}."
        )
    if layout == "strided":
        return _from_dense(_numbers(tensor, name), name)
    if layout not in _LAYOUTS:
        raise TypeError(f"SparsityView: {name} has the layout {layout}, which is not read; use {name}.to_dense().")
    values, *places = (_numbers(part, name) for part in _LAYOUTS[layout](tensor))
    values, shape = _plain(values, name), tuple(tensor.shape)
    if layout == "sparse_coo":
        if len(places[0]) != 2:
            raise ValueError(f"SparsityView: {name} stores rows that are dense; use {name}.to_dense().")
        return _from_sparse(sparse.coo_array((values, tuple(places[0])), shape=shape), name)
    if layout == "sparse_csr":
        return sparse.csr_array((values, *places), shape=shape)
    if layout == "sparse_csc":
        return _from_sparse(sparse.csc_array((values, *places), shape=shape), name)
    if layout == "sparse_bsr":
        return _from_sparse(sparse.bsr_array((values, *places), shape=shape), name)
    transposed = sparse.bsr_array((values.transpose(0, 2, 1), *places), shape=shape[::-1])
    return _from_sparse(transposed, name).T


_LAYOUTS = {
    "sparse_coo": lambda tensor: (tensor._values(), tensor._indices()),
    "sparse_csr": lambda tensor: (tensor.values(), tensor.col_indices(), tensor.crow_indices()),
    "sparse_csc": lambda tensor: (tensor.values(), tensor.row_indices(), tensor.ccol_indices()),
    "sparse_bsr": lambda tensor: (tensor.values(), tensor.col_indices(), tensor.crow_indices()),
    "sparse_bsc": lambda tensor: (tensor.values(), tensor.row_indices(), tensor.ccol_indices()),
}


def _numbers(tensor, name):
    kind = str(tensor.dtype).removeprefix("torch.")
    try:
        tensor = tensor.cpu()
        for resolved in ("resolve_conj", "resolve_neg"):
            tensor = getattr(tensor, resolved, lambda tensor=tensor: tensor)()
        if kind.startswith(("bfloat16", "float8")):
            tensor = tensor.float()
        return tensor.numpy()
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise TypeError(
            f"SparsityView: {name} holds {kind} numbers on {getattr(tensor, 'device', 'a device')}, which NumPy cannot "
            f"read ({error}); convert it to float32 on the CPU first."
        ) from None
