r"""Numbers as codes of 1 to 8 bits: each group has its own range.

.. math:: \Delta = \frac{\max - \min}{2^b - 1}, \qquad c_i = \mathrm{round}\frac{x_i - \min}{\Delta}, \qquad
    \hat x_i = c_i \Delta + \min

b bits a code, min and max of the group; ties go to even. A group whose numbers are equal has scale 0 and comes
back exactly. Codes are packed 16 at a time into 2 b bytes, so nothing is wasted at any number of bits.

Source
------
Liu et al. 2024, "KIVI", section 3; Kang et al. 2024, "GEAR", section 3. *Differs from both:* scale and low end are
rounded to half precision before the codes are taken, the end down and the scale up, so that no number is farther than
half a step from its level.
"""

from dataclasses import dataclass
from math import prod

import numpy as np

from kernels._native import core
from kernels.check import as_int, check_array, check_choice, check_threads
from kernels.work import Work

__all__ = [
    "SCALES",
    "UNIT",
    "QTensor",
    "dequantize",
    "group_codes",
    "group_codes_reference",
    "pack_bits",
    "pack_bits_reference",
    "quantize_groups",
    "quantize_groups_work",
    "unpack_bits",
]

UNIT = 16
SCALES = ("float16", "float32")
LARGEST = 65_504.0  # of half precision


@dataclass(frozen=True, eq=False, kw_only=True)
class QTensor:
    """An array in codes of few bits, the axis of the groups last.

    Parameters
    ----------
    codes : uint8 (..., units, 2 bits), of `pack_bits`; units of 16 codes.
    scale, zero : float16 or float32 (..., groups), step and low end of each group.
    bits, group : of a code, from 1 to 8; numbers of a group.
    axis : which axis of the array the groups lie along.
    shape : of the array.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    bits: int
    group: int
    axis: int
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and low ends."""
        return self.codes.nbytes + self.scale.nbytes + self.zero.nbytes


def quantize_groups(x, bits, *, axis=-1, group=None, scales="float16", num_threads=None) -> QTensor:
    """Quantise an array group by group along one axis.

    Parameters
    ----------
    x : float32 of any shape, finite, at least one number along the axis.
    bits : of a code, from 1 to 8.
    axis : the groups lie along it.
    group : neighbours that share a range; it divides the axis. None takes the whole axis.
    scales : "float16" or "float32", how scale and low end are stored.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    QTensor, at most (scale / 2) away from x in every place.

    Raises
    ------
    TypeError : x is no float32 array, or a number is no integer.
    ValueError : bits, axis or group out of range, numbers that are not finite, or too large for half precision.

    Cost
    ----
    Two passes over x, and one over the codes.

    Source
    ------
    As of the module.
    """
    codes, scale, zero = _coded(x, bits, axis, group, scales, num_threads, "quantize_groups")
    axis = int(axis) % x.ndim
    width = codes.shape[-1] // scale.shape[-1]
    return QTensor(
        codes=pack_bits(codes, bits, num_threads=num_threads), scale=scale, zero=zero, bits=int(bits), group=width,
        axis=axis, shape=tuple(x.shape),
    )  # fmt: skip


def group_codes(
    x, bits, *, axis=-1, group=None, scales="float16", num_threads=None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return codes that are not packed yet, scales and low ends; arguments and errors are those of `quantize_groups`.

    Parameters
    ----------
    x, bits, axis, group, scales, num_threads : as for `quantize_groups`.

    Returns
    -------
    uint8 codes, the axis of the groups last; scale and low end (..., groups).

    Raises
    ------
    TypeError, ValueError : as `quantize_groups`.

    Source
    ------
    As of the module.
    """
    return _coded(x, bits, axis, group, scales, num_threads, "group_codes")


def dequantize(q, *, num_threads=None) -> np.ndarray:
    """Return the numbers that the codes stand for.

    Parameters
    ----------
    q : QTensor.
    num_threads : as for `quantize_groups`.

    Returns
    -------
    float32, of the array's shape.

    Raises
    ------
    TypeError : q is no QTensor.
    """
    if not isinstance(q, QTensor):
        raise TypeError(f"dequantize: q must be a QTensor, got {type(q).__name__}; use quantize_groups(x, bits)")
    num_threads = check_threads(num_threads, function="dequantize") or None
    length = q.shape[q.axis]
    codes = unpack_bits(q.codes, q.bits, length, num_threads=num_threads)
    grouped = codes.reshape(*q.scale.shape, q.group).astype(np.float32)
    grouped *= q.scale.astype(np.float32)[..., None]
    grouped += q.zero.astype(np.float32)[..., None]
    return np.ascontiguousarray(np.moveaxis(grouped.reshape(codes.shape), -1, q.axis))


def pack_bits(codes, bits, *, num_threads=None) -> np.ndarray:
    """Pack codes along the last axis, 16 into 2 b bytes.

    8 bits stay bytes. Others are cut into pieces of 4, 2 and 1 bits, lowest first. In a piece of 4 bits, byte i holds
    codes i and i + 8; in one of 2 bits, or of 1, code i stands at bit 2 i, or i, of a little-endian word.

    Parameters
    ----------
    codes : uint8 (..., n), each below 2^bits.
    bits : from 1 to 8.
    num_threads : as for `quantize_groups`.

    Returns
    -------
    uint8 (..., units, 2 bits) with ceil(n / 16) units, the last filled up with zeros.

    Raises
    ------
    TypeError : codes are no uint8 array.
    ValueError : codes have no axis, or one is 2^bits or more.

    Source
    ------
    The layout is ours.
    """
    bits = as_int(bits, function="pack_bits", name="bits", low=1, high=8)
    check_array(codes, function="pack_bits", name="codes", dtypes=(np.uint8,))
    if not codes.ndim:
        raise ValueError("pack_bits: codes must have at least one axis, got a single number; use codes.reshape(1)")
    if codes.size and int(codes.max()) >> bits:
        raise ValueError(f"pack_bits: codes must be below {1 << bits} for {bits} bits, got {int(codes.max())}")
    threads = check_threads(num_threads, function="pack_bits")
    n = codes.shape[-1]
    rows = np.ascontiguousarray(codes).reshape(prod(codes.shape[:-1]), n)
    out = np.empty((*codes.shape[:-1], -(-n // UNIT), 2 * bits), np.uint8)
    core.pack_codes(rows, bits, out.reshape(len(rows), prod(out.shape[-2:])), threads)
    return out


def unpack_bits(packed, bits, n, *, num_threads=None) -> np.ndarray:
    """Return the codes that `pack_bits` packed.

    Parameters
    ----------
    packed : uint8 (..., units, 2 bits).
    bits : from 1 to 8.
    n : codes of a row, at most 16 units and more than 16 (units - 1).
    num_threads : as for `quantize_groups`.

    Returns
    -------
    uint8 (..., n).

    Raises
    ------
    TypeError, ValueError : packed is no uint8 array of that shape.
    """
    bits = as_int(bits, function="unpack_bits", name="bits", low=1, high=8)
    n = as_int(n, function="unpack_bits", name="n", low=0)
    check_array(packed, function="unpack_bits", name="packed", dtypes=(np.uint8,))
    if packed.ndim < 2 or packed.shape[-2:] != (-(-n // UNIT), 2 * bits):
        raise ValueError(
            f"unpack_bits: packed must end in ({-(-n // UNIT)}, {2 * bits}) for {n} codes of {bits} bits, got shape "
            f"{packed.shape}"
        )
    threads = check_threads(num_threads, function="unpack_bits")
    out = np.empty((*packed.shape[:-2], n), np.uint8)
    rows = prod(out.shape[:-1])
    core.unpack_codes(
        np.ascontiguousarray(packed).reshape(rows, -1 if packed.size else 0), bits, out.reshape(rows, n), threads
    )
    return out


def group_codes_reference(x, bits, axis=-1, group=None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Take the formula as it stands, in float64, with scales that are not rounded."""
    moved = np.moveaxis(x.astype(np.float64), axis, -1)
    groups = moved.reshape(*moved.shape[:-1], -1, group or moved.shape[-1])
    low, high = groups.min(-1), groups.max(-1)
    scale = (high - low) / (2**bits - 1)
    codes = np.rint((groups - low[..., None]) / np.where(scale == 0, 1, scale)[..., None])
    return np.clip(codes, 0, 2**bits - 1).reshape(moved.shape), scale, low


def pack_bits_reference(codes, bits) -> np.ndarray:
    """Pack unit by unit, as the layout reads."""
    n, out = codes.shape[-1], []
    padded = np.zeros((*codes.shape[:-1], -(-n // UNIT) * UNIT), np.uint64)
    padded[..., :n] = codes
    units, shift = padded.reshape(*codes.shape[:-1], -1, UNIT), 0
    for piece in (8, 4, 2, 1):
        if not bits & piece:
            continue
        part = units >> np.uint64(shift) & np.uint64(2**piece - 1)
        if piece >= 4:  # byte i holds code i, and of 4 bits also i + 8
            out.append(part if piece == 8 else part[..., :8] | part[..., 8:] << np.uint64(4))
        else:
            word = (part << np.arange(0, UNIT * piece, piece, dtype=np.uint64)).sum(-1, dtype=np.uint64)
            out.append(word[..., None] >> np.arange(0, UNIT * piece, 8, dtype=np.uint64) & np.uint64(255))
        shift += piece
    return np.concatenate(out, axis=-1).astype(np.uint8)


def quantize_groups_work(shape, bits, *, group, scales="float16") -> Work:
    """Count the work of quantising an array along its last axis: a pass for the ranges, one for the codes."""
    bits = as_int(bits, function="quantize_groups_work", name="bits", low=1, high=8)
    check_choice(scales, SCALES, function="quantize_groups_work", name="scales")
    try:
        sides = [as_int(side, function="quantize_groups_work", name="each of shape", low=0) for side in shape]
    except TypeError:
        raise TypeError(f"quantize_groups_work: shape must be a tuple of ints, got {shape!r:.60}") from None
    if not sides:
        raise ValueError("quantize_groups_work: shape must have at least one side, got ()")
    group = as_int(group, function="quantize_groups_work", name="group", low=1)
    rows, n = prod(sides[:-1]), sides[-1]
    stored = rows * (-(-n // UNIT) * 2 * bits + 2 * -(-n // group) * np.dtype(scales).itemsize)
    return Work(flops=5 * rows * n, bytes_streamed=8 * rows * n + stored, gathers=0)


def _coded(x, bits, axis, group, scales, num_threads, function) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    bits = as_int(bits, function=function, name="bits", low=1, high=8)
    check_array(x, function=function, name="x", dtypes=(np.float32,))
    check_choice(scales, SCALES, function=function, name="scales")
    threads = check_threads(num_threads, function=function)
    axis = as_int(axis, function=function, name="axis", low=-x.ndim, high=x.ndim - 1)
    length = x.shape[axis]
    group = length if group is None else as_int(group, function=function, name="group", low=1)
    if not length or length % group:
        raise ValueError(f"{function}: group must divide the axis of {length} numbers, got {group}")
    if not np.isfinite(x).all():
        raise ValueError(f"{function}: x must be finite, got NaN or infinity; np.nan_to_num(x) takes them out")
    moved = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    rows = moved.reshape(x.size // group, group)
    ends = np.empty((len(rows), 2), np.float32)
    core.row_ranges(rows, ends, threads)
    scale, zero = _steps(ends, 2**bits - 1, scales, function)
    codes = np.empty(rows.shape, np.uint8)
    core.row_codes(rows, np.stack([scale, zero], -1).astype(np.float32), 2**bits - 1, codes, threads)
    grouped = (*moved.shape[:-1], length // group)
    return codes.reshape(moved.shape), scale.reshape(grouped), zero.reshape(grouped)


def _steps(ends, top, scales, function):
    """Return scale and low end of each group as they are stored, so that the levels reach over the whole range."""
    low, high = ends[:, 0], ends[:, 1]
    if scales == "float32":
        return (high - low) / np.float32(top), low.copy()
    if ends.size and not (np.abs(ends).max() <= LARGEST and (high.astype(np.float64) - low).max() <= LARGEST * top):
        raise ValueError(f"{function}: x goes beyond {LARGEST:,.0f}, the largest half; scales='float32' takes it")
    zero = _rounded(low, low, -np.inf)
    wanted = (high.astype(np.float64) - zero) / top
    return _rounded(wanted, wanted, np.inf), zero


def _rounded(x, bound, way):
    """Round to half precision towards ``way``."""
    near = x.astype(np.float16)
    wrong = near > bound if way < 0 else near < bound
    return np.where(wrong, np.nextafter(near, np.float16(way)), near)
