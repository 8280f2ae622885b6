"""Half precision in NumPy arrays: float16, and bfloat16 in the three forms in which arrays hold it.

NumPy has no bfloat16. Its bits come as uint16, as two bytes without meaning (``|V2``, what a .npy file of bfloat16 is
read as), or under the dtype of the package ml_dtypes.
"""

import numpy as np

from kernels.check import is_plain

__all__ = ["as_float32", "float_format"]


def float_format(x) -> str | None:
    """Return "float64", "float32", "float16" or "bfloat16", the format of an array's elements; None for any other.

    Parameters
    ----------
    x : anything; only plain NumPy arrays in this machine's byte order have a format.
    """
    if not is_plain(x) or not x.dtype.isnative:
        return None
    if x.dtype.name in ("float64", "float32", "float16", "bfloat16"):
        return x.dtype.name
    without_meaning = x.dtype.kind == "V" and x.dtype.itemsize == 2 and x.dtype.fields is None
    return "bfloat16" if x.dtype == np.uint16 or without_meaning else None


def as_float32(x) -> np.ndarray:
    """Return an array of half precision as float32, without loss; float32 and float64 come back as they are.

    Raises
    ------
    TypeError : no array of floats.
    """
    found = float_format(x)
    if found is None:
        kind = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
        raise TypeError(f"as_float32: x must be an array of float64, float32, float16 or bfloat16, got {kind}")
    if found in ("float64", "float32"):
        return x
    if found == "float16":
        return x.astype(np.float32)
    return (np.ascontiguousarray(x).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
