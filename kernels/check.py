"""Checks at every public door: format, dtype, shape and index structure, with errors that name the cure."""

import math
import numbers
import operator
from collections.abc import Collection, Sequence

import numpy as np
from scipy import sparse

from kernels._native import core

__all__ = [
    "as_bsr",
    "as_csr",
    "as_int",
    "as_ints",
    "as_number",
    "as_rng",
    "check_array",
    "check_callable",
    "check_choice",
    "check_inner",
    "check_same_dtype",
    "check_threads",
    "check_unmasked",
    "is_canonical",
    "is_plain",
    "unchangeable_copy",
]

FLOATS = (np.float32, np.float64)
_INDEX_DTYPES = (np.dtype(np.int32), np.dtype(np.int64))
_FAULTS = {
    1: "indptr[0] is {first}, must be 0",
    2: "indptr decreases after row {where}",
    3: "indptr ends at {last} but only {stored} indices are stored",
    4: "indices[{where}] is {value}, must be in [0, {cols})",
}


def as_csr(a, *, function: str, name: str, dtypes: Sequence = FLOATS, read_indices: bool = True) -> sparse.csr_array:
    """Return ``a`` as a ``csr_array`` that shares its buffers, after checking all that a kernel's loop relies on.

    Row pointers must start at 0, never decrease and end within the stored entries; column indices must lie in
    ``[0, cols)``. Unsorted and duplicate column indices are fine. Buffers with spare room behind the last entry come
    back without it.

    Parameters
    ----------
    a : csr_array or csr_matrix (m, n), int32 or int64 indices.
    function, name : what error messages call the function and the argument.
    dtypes : accepted value dtypes.
    read_indices : False leaves the check of column indices to a loop that makes it as it reads them.

    Raises
    ------
    TypeError : not CSR, or a value or index dtype that is not accepted.
    ValueError : wrong lengths, bad row pointers, or an index out of range.
    """
    return _checked(a, function, name, dtypes, read_indices)[0]


def as_bsr(a, *, function: str, name: str, dtypes: Sequence = FLOATS) -> sparse.bsr_array:
    """Return ``a`` as a ``bsr_array`` that shares its buffers, after checking all that a kernel's loop relies on.

    Rules and errors are those of `as_csr`, for block rows and block columns; each block has ``a.blocksize``.
    """
    if not (sparse.issparse(a) and a.format == "bsr"):
        kind = f"a {a.format} sparse array" if sparse.issparse(a) else type(a).__name__
        raise TypeError(
            f"{function}: {name} must be a scipy.sparse bsr_array or bsr_matrix, got {kind}; "
            f"use bsr_array({_readable_by_scipy(a, name)}, blocksize=(4, 1))"
        )
    _check_buffers(a, function, name, dtypes, dimensions=3)
    _check_structure(a, function, name, a.shape[1] // a.blocksize[1], read_indices=True)
    used = int(a.indptr[-1])
    if isinstance(a, sparse.bsr_array) and used == len(a.indices):
        return a
    return sparse.bsr_array((a.data[:used], a.indices[:used], a.indptr), shape=a.shape, copy=False)


def is_canonical(a, *, function: str, name: str, dtypes: Sequence = FLOATS) -> tuple[sparse.csr_array, bool]:
    """Check like `as_csr`; return the matrix and whether every row's column indices rise strictly."""
    return _checked(a, function, name, dtypes)


def is_plain(x) -> bool:
    """Tell whether ``x`` is a NumPy array whose every element counts; a masked array says of some that they do not."""
    return isinstance(x, np.ndarray) and not isinstance(x, np.ma.MaskedArray)


def check_unmasked(x, *, function: str, name: str) -> None:
    """Raise TypeError for a masked array, whose mask NumPy's own conversions would drop in silence."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{function}: {name} is {_described(x, name)}")


def _described(x, name):
    """Return what was got instead of a plain array of the right dtype, and the cure, for an error message."""
    if isinstance(x, np.ma.MaskedArray):
        return f"a masked array; say what stands for masked elements, e.g. {name}.filled(0)"
    if isinstance(x, np.ndarray):
        return f"{x.dtype}; convert it with {name}.astype"
    kind = type(x)
    known = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"{known}; use np.asarray({name})"


def check_inner(a: sparse.csr_array, b: sparse.csr_array, *, function: str) -> None:
    """Raise ValueError unless ``a @ b`` is defined."""
    if a.shape[1] != b.shape[0]:
        raise ValueError(
            f"{function}: b has {b.shape[0]} rows, a has {a.shape[1]} columns; they must be equal (transpose one?)"
        )


def check_same_dtype(a: sparse.csr_array, b: sparse.csr_array, *, function: str) -> None:
    """Raise TypeError unless both matrices hold the same value dtype."""
    if a.dtype != b.dtype:
        raise TypeError(f"{function}: a is {a.dtype}, b is {b.dtype}; convert one, e.g. b.astype({a.dtype.name!r})")


def check_threads(num_threads, *, function: str, name: str = "num_threads") -> int:
    """Return the thread count for the core: ``None`` means the global setting (0)."""
    return 0 if num_threads is None else as_int(num_threads, function=function, name=name, low=1, high=256)


def as_int(value, *, function: str, name: str, low: int | None = None, high: int | None = None) -> int:
    """Return any kind of integer as an int.

    Raises
    ------
    TypeError : a bool, a float, text or anything else that is no integer.
    ValueError : below ``low`` or above ``high``.
    """
    wanted = f"{function}: {name} must be an int{_span(low, high)}, got {_shown(value)}"
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(wanted)
    try:
        whole = operator.index(value)
    except TypeError:
        raise TypeError(wanted) from None
    if (low is not None and whole < low) or (high is not None and whole > high):
        raise ValueError(wanted)
    return whole


def as_ints(
    values, count: int, *, function: str, name: str, low: int | None = None, high: int | None = None
) -> tuple[int, ...]:
    """Return ``count`` integers as a tuple of int; errors as of `as_int`."""
    wanted = f"{function}: {name} must be {count} ints, got {_shown(values)}"
    try:
        found = tuple(values)
    except TypeError:
        raise TypeError(wanted) from None
    if len(found) != count:
        raise ValueError(wanted)
    return tuple(as_int(value, function=function, name=f"each of {name}", low=low, high=high) for value in found)


def as_number(
    value,
    *,
    function: str,
    name: str,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
) -> float:
    """Return any kind of real number as a float.

    Raises
    ------
    TypeError : a bool, text or anything else that is no real number.
    ValueError : NaN, infinite, below ``low``, above ``high``, or not above ``above``.
    """
    span = _span(low, high) if above is None else f" above {above}" + (f" and up to {high}" if high is not None else "")
    wanted = f"{function}: {name} must be a finite number{span}, got {_shown(value)}"
    scalar = isinstance(value, numbers.Real) or getattr(value, "shape", None) == ()
    if isinstance(value, (bool, np.bool_)) or not scalar:
        raise TypeError(wanted)
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(wanted) from None
    except (TypeError, ValueError):
        raise TypeError(wanted) from None
    below = (low is not None and number < low) or (above is not None and number <= above)
    if not math.isfinite(number) or below or (high is not None and number > high):
        raise ValueError(wanted)
    return number


def as_rng(seed, *, function: str) -> np.random.Generator:
    """Return the generator of a seed (an int of at least 0), or the generator that was handed in."""
    if isinstance(seed, np.random.Generator):
        return seed
    return np.random.default_rng(as_int(seed, function=function, name="seed", low=0))


def check_choice(value, choices: Collection[str], *, function: str, name: str) -> None:
    """Raise ValueError unless ``value`` is one of the words."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{function}: {name} must be one of {', '.join(choices)}; got {_shown(value)}")


def check_callable(call, *, function: str, name: str) -> None:
    """Raise TypeError unless ``call`` can be called or is None."""
    if call is not None and not callable(call):
        raise TypeError(f"{function}: {name} must be a function or None, got {_shown(call)}")


def check_array(x, *, function: str, name: str, dtypes: Sequence = FLOATS) -> None:
    """Raise TypeError unless ``x`` is a NumPy array of one of the dtypes, every element of which counts."""
    if is_plain(x) and x.dtype in [np.dtype(dtype) for dtype in dtypes]:
        return
    wanted = " or ".join(np.dtype(dtype).name for dtype in dtypes)
    raise TypeError(f"{function}: {name} must be a NumPy array of {wanted}, got {_described(x, name)}")


def unchangeable_copy(x: np.ndarray) -> np.ndarray:
    """Return a flat copy that lies in a bytes object, so that not even its owner can make it writeable."""
    return np.frombuffer(x.tobytes(), x.dtype)


def _span(low, high):
    if low is None and high is None:
        return ""
    if high is None:
        return f" of at least {low}"
    return f" of at most {high}" if low is None else f" from {low} to {high}"


def _shown(value):
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else type(value).__name__


def _checked(a, function, name, dtypes, read_indices=True):
    if not (sparse.issparse(a) and a.format == "csr"):
        kind = f"a {a.format} sparse array" if sparse.issparse(a) else type(a).__name__
        raise TypeError(
            f"{function}: {name} must be a scipy.sparse csr_array or csr_matrix, got {kind}; "
            f"use csr_array({_readable_by_scipy(a, name)})"
        )
    if a.ndim != 2:
        raise TypeError(f"{function}: {name} must have two dimensions, got {a.ndim}")
    _check_buffers(a, function, name, dtypes)
    rising = _check_structure(a, function, name, a.shape[1], read_indices)
    used = int(a.indptr[-1])
    if isinstance(a, sparse.csr_array) and used == len(a.indices):
        return a, rising
    return sparse.csr_array((a.data[:used], a.indices[:used], a.indptr), shape=a.shape, copy=False), rising


def _check_structure(a, function, name, columns, read_indices):
    """Raise ValueError for bad row pointers or column indices; return whether the indices of each row rise strictly."""
    fault, where, rising = core.check_csr(a.indptr, a.indices, columns, read_indices)
    if fault:
        found = _FAULTS[fault].format(
            first=a.indptr[0],
            last=a.indptr[-1],
            stored=len(a.indices),
            where=where,
            value=a.indices[where] if fault == 4 else None,
            cols=columns,
        )
        raise ValueError(
            f"{function}: {name} is not a valid {a.format.upper()} matrix: {found}; "
            f"{name}.check_format() may help find why"
        )
    return rising


def _readable_by_scipy(a, name):
    """Return the Python that hands a dense array to SciPy, which knows neither half precision nor foreign bytes."""
    if isinstance(a, np.ma.MaskedArray):
        return f"{name}.filled(0)"
    if isinstance(a, np.ndarray) and (a.dtype == np.float16 or not a.dtype.isnative):
        return f"{name}.astype({np.promote_types(a.dtype, np.float32).name!r})"
    return name


def _check_buffers(a, function, name, dtypes, dimensions=1):
    accepted = [np.dtype(d) for d in dtypes]
    for part, wanted in (("data", accepted), ("indices", _INDEX_DTYPES), ("indptr", _INDEX_DTYPES)):
        buffer = getattr(a, part, None)
        check_unmasked(buffer, function=function, name=f"{name}.{part}")
        wanted_dimensions, spelled = (3, "three") if part == "data" and dimensions == 3 else (1, "one")
        if not isinstance(buffer, np.ndarray) or buffer.ndim != wanted_dimensions:
            raise ValueError(f"{function}: {name}.{part} must be a {spelled}-dimensional NumPy array")
        if buffer.dtype not in wanted:
            names = ", ".join(d.name for d in wanted)
            raise TypeError(
                f"{function}: {name}.{part} must have dtype {names}; got {buffer.dtype}; convert it with astype"
            )
        if not (buffer.flags.c_contiguous and buffer.flags.aligned):
            raise ValueError(f"{function}: {name}.{part} must be contiguous and aligned; pass {name}.copy()")
    height, width = a.blocksize if dimensions == 3 else (1, 1)
    if height < 1 or width < 1 or a.shape[0] % height or a.shape[1] % width:
        raise ValueError(f"{function}: {name} has blocks of {height} x {width}, which do not divide {a.shape}")
    rows = a.shape[0] // height
    if len(a.indptr) != rows + 1:
        raise ValueError(f"{function}: {name}.indptr has {len(a.indptr)} entries, {rows} rows need {rows + 1}")
    if len(a.data) != len(a.indices):
        raise ValueError(
            f"{function}: {name} stores {len(a.data)} values but {len(a.indices)} indices; they must be equal"
        )
