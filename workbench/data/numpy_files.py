"""Reads NumPy's .npy and .npz files: what headers declare is checked before any array is made, nothing is unpickled.

An .npy file starts with its dtype and shape, and an .npz file is a zip archive of .npy files. A header can declare any
size, so it is compared with the bytes that are there: an array takes no more memory than its file declares, and no file
declares more than the limits.
"""

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np

from kernels.half_precision import as_float32
from workbench.data.limits import Limits
from workbench.data.unpacking import DataFileError, is_zip, read_member, shown, unpacked, zip_members

__all__ = ["Arrays", "arrays_in", "is_npy"]

MAX_HEADER_BYTES = 10_000
MAGIC = b"\x93NUMPY"


@dataclass(frozen=True, kw_only=True)
class _Declared:
    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    offset: int


class Arrays:
    """The arrays of a file by name: what they declare at once, their values when asked for.

    Parameters
    ----------
    name : the file's, for error messages.
    load : array's name -> the bytes of its .npy file.
    declared : array's name -> what its header says.
    """

    def __init__(self, name, load, declared):
        self.name, self._load, self._declared = name, load, declared

    def __contains__(self, key) -> bool:
        return key in self._declared

    def __iter__(self):
        return iter(self._declared)

    def dtype(self, key) -> np.dtype:
        """Return the dtype that an array declares, in this machine's byte order; float32 for bfloat16."""
        declared = self._declared[key].dtype
        return np.dtype(np.float32) if declared.kind == "V" else declared.newbyteorder("=")

    def shape(self, key) -> tuple[int, ...]:
        """Return the shape that an array declares."""
        return self._declared[key].shape

    def read(self, key) -> np.ndarray:
        """Return an array, in this machine's byte order; bfloat16, which NumPy writes as ``|V2``, as float32."""
        found, content = self._declared[key], self._load(key)
        flat = np.frombuffer(content, found.dtype, offset=found.offset)
        array = flat.reshape(found.shape, order="F" if found.fortran else "C")
        if found.dtype.kind == "V":
            return as_float32(array)
        return array if found.dtype.isnative else array.astype(self.dtype(key))


@contextmanager
def arrays_in(name: str, stream: IO[bytes], limits: Limits) -> Iterator[Arrays]:
    """Open an .npz archive, or an .npy file, which then holds one array named "".

    Raises
    ------
    DataFileError : damaged, larger than the limits, pickled, or an array whose size is not the one that it declares.
    """
    if not is_zip(stream):
        content = unpacked(name, stream, limits)
        yield Arrays(name, lambda key: content, {"": _declared(name, "", content[:MAX_HEADER_BYTES], len(content))})
        return
    archive, members = zip_members(name, stream, limits)
    with archive:
        found = {key.removesuffix(".npy"): member for key, member in members.items() if key.endswith(".npy")}
        if not found:
            raise DataFileError(f"{name}: holds no arrays; save one with NumPy or SciPy as .npz")
        declared = {}
        for key, member in found.items():
            head = read_member(name, archive, member, limits, at_most=MAX_HEADER_BYTES)
            declared[key] = _declared(name, key, head, member.file_size)
        yield Arrays(name, lambda key: read_member(name, archive, found[key], limits), declared)


def is_npy(content) -> bool:
    """Tell whether content is an .npy file."""
    return bytes(content[: len(MAGIC)]) == MAGIC


def _declared(name, key, head, size):
    """Read an .npy header; refuse what cannot be read without surprises."""
    which = f"{name}: {shown(key)}" if key else name
    if not is_npy(head) or len(head) < 12:
        raise DataFileError(f"{which} is no .npy array")
    version, wide = head[6], head[6] > 1
    length = int.from_bytes(head[8 : 12 if wide else 10], "little")
    offset = (12 if wide else 10) + length
    if version not in (1, 2, 3) or offset > len(head):
        raise DataFileError(f"{which} has a header that is damaged or cut off")
    read = np.lib.format.read_array_header_1_0 if version == 1 else np.lib.format.read_array_header_2_0
    try:
        with warnings.catch_warnings():  # of what Python's parser thinks of it
            warnings.simplefilter("ignore")
            shape, fortran, dtype = read(io.BytesIO(bytes(head[8:offset])))
    except Exception as error:  # NumPy parses it as Python, which stumbles in many ways
        raise DataFileError(f"{which} has a header that is damaged ({shown(error)})") from None
    if dtype.hasobject:
        raise DataFileError(f"{which} holds Python objects, which are not read; save plain numbers")
    bfloat16 = dtype.kind == "V" and dtype.itemsize == 2 and dtype.fields is None
    if (dtype.kind not in "biufcSU" and not bfloat16) or not dtype.itemsize:
        raise DataFileError(f"{which} holds {dtype}; save numbers or bools")
    wanted = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or wanted != size - offset:
        told = f"declares {dtype} of shape {shape}, {wanted:,} bytes, and has {size - offset:,}"
        raise DataFileError(f"{which} {told}; it is damaged or cut off")
    return _Declared(dtype=dtype, shape=shape, fortran=fortran, offset=offset)
