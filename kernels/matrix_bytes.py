"""A matrix as the bytes of a file that other tools read, and values as SciPy, which knows few dtypes, takes them."""

import gzip
import io
from typing import Any

import numpy as np
from scipy import sparse

from kernels.check import check_choice

__all__ = ["ENDINGS", "for_scipy", "matrix_bytes"]

ENDINGS = (".mtx", ".mtx.gz", ".npz")
_SAVED_BY_SCIPY = ("csr", "csc", "coo", "bsr", "dia")


def matrix_bytes(matrix: Any, ending: str) -> bytes:
    """Return a matrix as the bytes of a Matrix Market file, plain or gzipped, or of an .npz file of SciPy.

    Every entry of a sparse matrix is kept, explicit zeros and duplicates as well, and every digit: a float32 is written
    to Matrix Market with its whole value, not with the fewest digits that tell it from its neighbours.

    Parameters
    ----------
    matrix : scipy.sparse array or matrix, or a two-dimensional array, whose zeros are no entries.
    ending : one of `ENDINGS`.

    Raises
    ------
    TypeError : values that are no bools or numbers of up to 64 bits, or a masked array.
    ValueError : not two-dimensional, or another ending.
    """
    check_choice(ending, ENDINGS, function="matrix_bytes", name="ending")
    known = any((sparse.issparse(matrix), isinstance(matrix, np.ndarray)))
    if not known:
        got = type(matrix).__name__
        raise TypeError(f"matrix_bytes: matrix must be a SciPy sparse matrix or a NumPy array, got {got}")
    if matrix.ndim != 2:
        raise ValueError(f"matrix_bytes: matrix must have two dimensions, got {matrix.ndim}; pick one slice")
    kind, masked = matrix.dtype, isinstance(matrix, np.ma.MaskedArray)
    if masked or kind.kind not in "biufc" or kind in (np.longdouble, np.clongdouble):
        told = "a masked array" if masked else str(kind)
        raise TypeError(f"matrix_bytes: matrix must hold bools or numbers of up to 64 bits, got {told}; convert it")
    if not sparse.issparse(matrix):
        rows, columns = np.nonzero(matrix)
        matrix = sparse.coo_array((for_scipy(matrix[rows, columns]), (rows, columns)), shape=matrix.shape).tocsr()
    elif for_scipy(np.zeros(0, kind)).dtype != kind:
        matrix = matrix.astype(for_scipy(np.zeros(0, kind)).dtype)
    content = io.BytesIO()
    if ending == ".npz":
        sparse.save_npz(content, matrix if matrix.format in _SAVED_BY_SCIPY else matrix.tocsr())
        return content.getvalue()
    import scipy.io  # takes its time: only for who asks for it

    if matrix.dtype.kind in "fc":
        matrix = matrix.astype(np.promote_types(matrix.dtype, np.float64))
    only_places = matrix.dtype == np.bool_ and matrix.tocoo().data.all()
    scipy.io.mmwrite(content, matrix, field="pattern" if only_places else None, symmetry="general")
    return gzip.compress(content.getvalue(), mtime=0) if ending == ".mtx.gz" else content.getvalue()


def for_scipy(values: np.ndarray) -> np.ndarray:
    """Return equal values in a dtype that SciPy computes with: half precision as float32, this machine's byte order."""
    values = values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
    return values.astype(np.float32) if values.dtype == np.float16 else values
