"""D = W X with W int8 in groups of blocks and X uint8: exact int32 sums, then scale, residual, functions, new steps."""

import numpy as np

from kernels._native import core
from kernels.check import as_int, as_number, check_array, check_choice, check_threads
from kernels.formats.block_groups import BlockGroupedWeight
from kernels.work import Work

__all__ = ["spmm_int8", "spmm_int8_reference", "spmm_int8_work"]

_FUNCTIONS = ("linear", "gelu", "relu", "tanh", "exp")  # the order of `Function` in spmm_int8.cpp
_OUTPUTS = {"int32": np.int32, "float32": np.float32, "uint8": np.uint8, "int8": np.int8}
_CALLS = {name: getattr(core, f"spmm_int8_to_{name}") for name in _OUTPUTS}
_LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}
_NO_STEPS = np.empty((0, 3), np.float32)


def spmm_int8(
    weight,
    x,
    *,
    bias=None,
    scale=None,
    append=None,
    post=(),
    out_dtype="int32",
    out_scale=1.0,
    out_zero=0,
    num_threads=None,
) -> np.ndarray:
    """Multiply an int8 weight of grouped blocks with uint8 activations.

    The sums are ``acc = W X + bias``, exact in int32. With ``out_dtype="int32"`` they are the result; otherwise, in
    float32 and in this order, ``v = scale * acc``, ``v += append``, the functions of ``post`` one after the other, and
    for bytes ``round(v / out_scale) + out_zero``, halves to even, cut to the range of the type.

    Parameters
    ----------
    weight : BlockGroupedWeight (m, k), int8, whose groups have four columns: ``group * bc == 4``.
    x : (k, n) uint8, C-contiguous, or (panels, k, n) for panels of n columns, one behind the other.
    bias : (m,) int32, which also holds what a zero point asks for (`fold_zero_point`), or None.
    scale : (m,) float32, finite, or None for 1.
    append : the residual, float32, of the shape of the result and C-contiguous; only for ``out_dtype="float32"``.
    post : functions in order: "gelu" (by the normal distribution, not by tanh), "relu", "tanh", "exp", and
        ("linear", a, b) for a v + b.
    out_dtype : "int32", which takes neither scale nor anything after it, "float32", "uint8" or "int8".
    out_scale, out_zero : step and zero point of a result in bytes; the scale is above 0, the zero in the type's range.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    (m, n), or (panels, m, n) for panels. Sums beyond int32 are taken modulo 2^32; with k up to 65,000 only the bias can
    bring them there. NaN becomes the least value of a byte.

    Raises
    ------
    TypeError : weight is no BlockGroupedWeight, or a dtype is not the one above.
    ValueError : shapes do not fit, a scale is not finite, or an argument has no place with ``out_dtype``.

    Cost
    ----
    br * 4 multiply-adds for a group and a column of X, those that fill up a group included. Besides the result it takes
    64 k bytes a thread.

    Source
    ------
    Shen et al. 2023, the VNNI kernel and the order of its epilogue. *Differs from the paper:* nothing is compiled for
    one weight; panels are copied so that their rows lie 64 bytes apart, with their columns in the order that the
    kernel's byte interleaving undoes; steps are multiplied by 1 / out_scale in float32. Functions other than "relu" and
    "linear" may differ by some units in the last place between instruction sets.
    """
    _check_weight(weight, "spmm_int8")
    check_choice(out_dtype, _OUTPUTS, function="spmm_int8", name="out_dtype")
    m, k = weight.shape
    check_array(x, function="spmm_int8", name="x", dtypes=(np.uint8,))
    if x.ndim not in (2, 3) or not x.flags.c_contiguous:
        raise ValueError(
            "spmm_int8: x must be two- or three-dimensional and C-contiguous; pass np.ascontiguousarray(x)"
        )
    if x.shape[-2] != k:
        raise ValueError(f"spmm_int8: x has {x.shape[-2]} rows, weight has {k} columns; they must be equal")
    shape = (*x.shape[:-2], m, x.shape[-1])
    _check_rows(bias, m, "bias", np.int32)
    _check_rows(scale, m, "scale", np.float32)
    steps = _steps(post)
    if out_dtype == "int32" and (scale is not None or len(steps)):
        raise ValueError('spmm_int8: out_dtype "int32" takes no scale and no post; choose "float32", "uint8" or "int8"')
    if append is not None:
        _check_append(append, shape, out_dtype)
    to_steps, zero = _quantising(out_scale, out_zero, out_dtype)
    threads = check_threads(num_threads, function="spmm_int8")
    out = np.empty(shape, _OUTPUTS[out_dtype])
    if out.size == 0:
        return out
    panels, n = x.shape[0] if x.ndim == 3 else 1, x.shape[-1]
    same = _CALLS[out_dtype](
        weight.indptr,
        weight.positions,
        weight.data,
        x.reshape(panels, k, n),
        bias,
        scale,
        None if append is None else append.reshape(panels, m, n),
        steps,
        to_steps,
        zero,
        out.reshape(panels, m, n),
        threads,
    )
    if not same:
        raise ValueError("spmm_int8: weight was changed after it was made; build it again with from_dense")
    return out


def spmm_int8_reference(
    weight, x, *, bias=None, scale=None, append=None, post=(), out_dtype="int32", out_scale=1.0, out_zero=0
) -> np.ndarray:
    """Compute the same with whole numbers and float64."""
    from scipy.special import ndtr

    value = np.matmul(weight.to_dense().astype(np.int64), x.astype(np.int64))
    value += 0 if bias is None else bias[:, None].astype(np.int64)
    if out_dtype == "int32":
        return value.astype(np.int32)
    value = value * (1.0 if scale is None else scale[:, None].astype(np.float64))
    value += 0 if append is None else append
    functions = {"gelu": lambda v: v * ndtr(v), "relu": lambda v: np.maximum(v, 0), "tanh": np.tanh, "exp": np.exp}
    for step in post:
        value = functions[step](value) if isinstance(step, str) else step[1] * value + step[2]
    if out_dtype == "float32":
        return value
    limits = np.iinfo(out_dtype)
    return np.clip(np.rint(value / out_scale) + out_zero, limits.min, limits.max).astype(out_dtype)


def spmm_int8_work(weight, n: int, *, out_bytes: int = 4) -> Work:
    """Count the work for X with ``n`` columns: operands and result streamed once, a row of X gathered per column of W.

    Padding is work too. ``out_bytes`` is the size of an element of the result.
    """
    _check_weight(weight, "spmm_int8_work")
    n = as_int(n, function="spmm_int8_work", name="n", low=0)
    each = as_int(out_bytes, function="spmm_int8_work", name="out_bytes", low=1, high=8)
    m, k = weight.shape
    return Work(
        flops=2 * weight.data.size * n,
        bytes_streamed=weight.nbytes + n * (k + each * m),
        gathers=len(weight.data) * 4,
    )


def _check_weight(weight, function):
    if not isinstance(weight, BlockGroupedWeight):
        raise TypeError(
            f"{function}: weight must be a BlockGroupedWeight, got {type(weight).__name__}; "
            "use BlockGroupedWeight.from_dense(weight)"
        )
    if weight.data.dtype != np.int8:
        raise TypeError(
            f"{function}: weight must hold int8, got {weight.data.dtype}; use quantize_weight_s8_per_channel"
        )
    if weight.group * weight.block[1] != 4:
        raise ValueError(
            f"{function}: weight must have groups of four columns, got group {weight.group} of blocks {weight.block}; "
            "use BlockGroupedWeight.from_dense with block=(4, 1) and group=4"
        )


def _check_rows(values, m, name, dtype):
    if values is None:
        return
    check_array(values, function="spmm_int8", name=name, dtypes=(dtype,))
    if values.shape != (m,) or not values.flags.c_contiguous:
        raise ValueError(f"spmm_int8: {name} must be contiguous and of shape ({m},), got {values.shape}")
    if dtype == np.float32 and not np.isfinite(values).all():
        raise ValueError(f"spmm_int8: {name} must be finite; quantize_weight_s8_per_channel gives such scales")


def _check_append(append, shape, out_dtype):
    if out_dtype != "float32":
        raise ValueError(f'spmm_int8: append needs out_dtype "float32", got {out_dtype!r}; add it before quantising')
    check_array(append, function="spmm_int8", name="append", dtypes=(np.float32,))
    if append.shape != shape or not append.flags.c_contiguous:
        raise ValueError(
            f"spmm_int8: append must be C-contiguous and of the result's shape {shape}, got {append.shape}"
        )


def _quantising(out_scale, out_zero, out_dtype):
    """Return the reciprocal of the step, and the zero point."""
    if out_dtype in _LIMITS:
        low, high = _LIMITS[out_dtype]
        scale = as_number(out_scale, function="spmm_int8", name="out_scale", low=1e-30, high=1e30)
        return 1 / scale, as_int(out_zero, function="spmm_int8", name="out_zero", low=low, high=high)
    if not (isinstance(out_scale, (int, float)) and out_scale == 1 and isinstance(out_zero, int) and out_zero == 0):
        raise ValueError(
            f'spmm_int8: out_scale and out_zero are for out_dtype "uint8" and "int8", got {out_dtype!r}; leave them out'
        )
    return 1.0, 0


def _steps(post):
    """Return the functions as rows (which, factor, summand)."""
    if isinstance(post, tuple) and not post:
        return _NO_STEPS
    wanted = 'spmm_int8: post must be a sequence of "gelu", "relu", "tanh", "exp" and ("linear", a, b)'
    if isinstance(post, str) or not isinstance(post, (tuple, list)):
        raise TypeError(f"{wanted}, got {type(post).__name__}; pass a tuple, e.g. post=('gelu',)")
    steps = np.zeros((len(post), 3), np.float32)
    for row, step in zip(steps, post, strict=True):
        if isinstance(step, str) and step in _FUNCTIONS[1:]:
            row[0] = _FUNCTIONS.index(step)
        elif isinstance(step, (tuple, list)) and len(step) == 3 and isinstance(step[0], str) and step[0] == "linear":
            row[1:] = [as_number(v, function="spmm_int8", name="each of post", low=-3e38, high=3e38) for v in step[1:]]
        else:
            raise ValueError(f"{wanted}, got {step!r:.60}")
    return steps
