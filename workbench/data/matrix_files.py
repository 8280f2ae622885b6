"""Matrices in files: one call that reads any form which is known here, and one that saves.

Read are Matrix Market files (`workbench.data.matrix_market`), what ``scipy.sparse.save_npz`` saves in any of its
formats (CSR, CSC, COO, BSR, DIA), and dense arrays in .npy or alone in .npz; a form is recognised by content. How large
a file may be stands in `workbench.data.limits`.
"""

import math
import os
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from kernels.matrix_bytes import ENDINGS as SAVED
from kernels.matrix_bytes import for_scipy, matrix_bytes
from workbench.data.limits import LIBRARY, Limits
from workbench.data.matrix_market import (
    complex_refused,
    from_dense,
    read_header,
    read_matrix_market,
    summed,
    with_float_values,
)
from workbench.data.numpy_files import Arrays, arrays_in, is_npy
from workbench.data.unpacking import DataFileError, is_zip, opened, shown, unpacked, zip_members

__all__ = ["ENDINGS", "READ", "check_matrix", "read_matrix", "save_matrix", "with_float_values"]

READ = ".mtx, .npz of SciPy or .npy, also compressed"
ENDINGS = (".mtx", ".npz", ".npy", ".gz", ".bz2", ".xz", ".zip", ".tar")
_ARRAYS = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "bsr": ("data", "indices", "indptr"),
    "coo": ("data", "row", "col"),
    "dia": ("data", "offsets"),
}
_PLACES = ("indices", "indptr", "row", "col", "offsets", "coords")


def read_matrix(
    source, limits: Limits = LIBRARY, name: str | None = None, *, keep_duplicates: bool = False
) -> sp.csr_array:
    """Read a matrix from a file of any known form.

    Parameters
    ----------
    source : path, or the bytes of a file: Matrix Market as for `read_matrix_market`, .npz of SciPy, .npy or an .npz
        with one dense matrix; an .npy may be compressed by gzip, bzip2 or xz.
    limits : the most that is read.
    name : what error messages call it; the file's own name unless given.
    keep_duplicates : return a coo_array where the file has several entries at one place, so that they can be counted.

    Returns
    -------
    csr_array, canonical: indices sorted, entries at one place summed, explicit zeros of sparse files kept; the zeros of
    dense files are no entries. Whole numbers, bools and floats keep their dtype, half precision becomes float32.

    Raises
    ------
    DataFileError (a ValueError) : anything wrong in the file, or too large.
    FileNotFoundError, IsADirectoryError, PermissionError : the path cannot be opened.
    TypeError : source is neither path nor bytes.
    """
    with opened(source, limits, name) as (called, stream):
        if _holds_arrays(called, stream, limits):
            with arrays_in(called, stream, limits) as arrays:
                return _from_arrays(arrays, limits, keep_duplicates)
    return read_matrix_market(source, limits, name, keep_duplicates=keep_duplicates)


def check_matrix(source, limits: Limits = LIBRARY, *, real: bool = False) -> None:
    """Raise what `read_matrix` would for a file whose header is wrong, without reading the rest.

    With ``real``, a matrix of complex numbers is refused as well.
    """
    with opened(source, limits) as (called, stream):
        arrays_there = _holds_arrays(called, stream, limits)
        if arrays_there:
            with arrays_in(called, stream, limits) as arrays:
                form, _ = _form(arrays, limits)
                (key,) = ("data",) if form else arrays
                kind = arrays.dtype(key).kind
    if not arrays_there:
        kind = "c" if read_header(source, limits).field == "complex" else "f"
    if real and kind == "c":
        raise complex_refused(called)


def save_matrix(path, matrix) -> Path:
    """Save a matrix as ``.mtx``, ``.mtx.gz`` or ``.npz``, whichever the path ends in; `read_matrix` reads it again.

    Parameters
    ----------
    path : where to; a file that is there is replaced once the new one is whole.
    matrix : scipy.sparse array or matrix, or a two-dimensional array; a reordered one is
        ``permuted(a, reorder(a, method))`` of `kernels.reorder`. Every entry of a sparse one is kept, explicit zeros
        and duplicates as well.

    Returns
    -------
    Path of the file.

    Raises
    ------
    ValueError : another ending, or not two-dimensional. TypeError : values that the form cannot hold.
    """
    path = Path(path)
    ending = next((ending for ending in SAVED if path.name.lower().endswith(ending)), None)
    if ending is None:
        raise ValueError(f"save_matrix: path must end in {', '.join(SAVED)}; got {path.name!r}")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(matrix_bytes(matrix, ending))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


# Arrays --------------------------------------------------------------------------------------------------------------
def _holds_arrays(name, stream, limits):
    if is_zip(stream):
        archive, members = zip_members(name, stream, limits)
        archive.close()
        return any(member.endswith(".npy") for member in members)
    return is_npy(unpacked(name, stream, limits, at_most=8))


def _form(arrays: Arrays, limits):
    """Return the SciPy format that a file holds ("" for one dense matrix) and the shape; check all that it declares."""
    if "format" not in arrays:
        return "", _dense_shape(arrays, limits)
    form, name = _word(arrays), arrays.name
    if form not in _ARRAYS:
        raise DataFileError(f"{name}: holds a matrix in the format {form!r}; known are {', '.join(_ARRAYS)}")
    needed = ("data", "coords") if form == "coo" and "coords" in arrays else _ARRAYS[form]
    missing = [key for key in (*needed, "shape") if key not in arrays]
    if missing:
        raise DataFileError(f"{name}: a {form} matrix needs the array {missing[0]!r}; save it again with SciPy")
    for key in (*needed, "shape"):
        _check_kind(arrays, key)
    if arrays.shape("shape") != (2,):
        raise DataFileError(f"{name}: must hold a matrix of two dimensions; save one slice of it")
    shape = tuple(map(int, arrays.read("shape")))
    _check_sides(name, shape, limits)
    entries = math.prod(arrays.shape("data"))
    if entries > limits.entries:
        raise DataFileError(f"{name}: at most {limits.entries:,} entries are read, got {entries:,}; {limits.cure}")
    return form, shape


def _dense_shape(arrays, limits):
    name = arrays.name
    if len(list(arrays)) != 1:
        held = ", ".join(map(shown, arrays))
        raise DataFileError(
            f"{name}: holds the arrays {held}; give a sparse matrix saved by SciPy, or one dense matrix"
        )
    (key,) = arrays
    shape = arrays.shape(key)
    if len(shape) != 2:
        raise DataFileError(
            f"{name}: holds an array of shape {shape}; a matrix has two dimensions, so save one slice of it"
        )
    _check_values(name, arrays.dtype(key))
    _check_sides(name, shape, limits)
    return shape


def _word(arrays):
    if arrays.shape("format") != () or arrays.dtype("format").kind not in "SU" or arrays.dtype("format").itemsize > 64:
        raise DataFileError(
            f"{arrays.name}: the array 'format' must be one short word; save the matrix again with SciPy"
        )
    word = arrays.read("format").item()
    return word.decode("ascii", "replace") if isinstance(word, bytes) else word


def _check_kind(arrays, key):
    dtype = arrays.dtype(key)
    if key == "data":
        _check_values(arrays.name, dtype)
    elif dtype.kind not in "iu":
        raise DataFileError(f"{arrays.name}: the array {key!r} must hold whole numbers, got {dtype}")


def _check_values(name, dtype):
    if dtype.kind not in "biufc" or dtype in (np.longdouble, np.clongdouble):
        raise DataFileError(f"{name}: must hold bools or numbers of up to 64 bits, got {dtype}; convert it")


def _check_sides(name, shape, limits):
    if min(shape) < 0 or max(shape) > limits.side:
        told = f"at most {limits.side:,} rows and columns are read, got {shape[0]:,} x {shape[1]:,}"
        raise DataFileError(f"{name}: {told}; {limits.cure}")


def _from_arrays(arrays, limits, keep_duplicates):
    form, shape = _form(arrays, limits)
    name = arrays.name
    if not form:
        (key,) = arrays
        return from_dense(name, arrays.read(key), limits)
    read = {key: arrays.read(key) for key in arrays if key == "data" or key in _PLACES}
    values, places = for_scipy(read.pop("data")), {key: _index(name, array) for key, array in read.items()}
    try:
        matrix = _ASSEMBLED[form](values, places, shape)
        if form in ("csr", "csc", "bsr"):
            matrix.check_format(full_check=True)
        if form == "csr" and matrix.has_canonical_format:
            return matrix
        entries = matrix.tocoo()
    except (ValueError, IndexError, OverflowError, KeyError) as error:
        raise DataFileError(f"{name}: is no valid {form} matrix ({shown(error)}); save it again with SciPy") from None
    return summed(name, *entries.coords, entries.data, shape, keep_duplicates)


_ASSEMBLED = {
    "csr": lambda data, at, shape: sp.csr_array((data, at["indices"], at["indptr"]), shape=shape),
    "csc": lambda data, at, shape: sp.csc_array((data, at["indices"], at["indptr"]), shape=shape),
    "bsr": lambda data, at, shape: sp.bsr_array((data, at["indices"], at["indptr"]), shape=shape),
    "coo": lambda data, at, shape: sp.coo_array(
        (data, tuple(at["coords"]) if "coords" in at else (at["row"], at["col"])), shape=shape
    ),
    "dia": lambda data, at, shape: sp.dia_array((data, at["offsets"]), shape=shape),
}


def _index(name, array):
    """Return indices in a width that SciPy computes with; it would cut off higher bits in silence."""
    if array.size and not -(2**31) < int(array.min()) <= int(array.max()) < 2**31:
        raise DataFileError(
            f"{name}: holds an index beyond 2^31, which no matrix of the allowed size has; it is damaged"
        )
    return array.astype(np.int32, copy=False)
