"""x = s (q - z): floats as bytes with a step s and a zero point z, the way `spmm_int8` takes them."""

import numpy as np

from kernels._native import core
from kernels.check import as_int, as_number, check_array, check_threads
from kernels.formats.block_groups import BlockGroupedWeight

__all__ = [
    "fold_zero_point",
    "quantize_activation_u8",
    "quantize_activation_u8_reference",
    "quantize_weight_s8_per_channel",
]

_LEAST_SCALE = 1e-30  # its reciprocal is a float32


def quantize_activation_u8(x, *, low=None, high=None, num_threads=None) -> tuple[np.ndarray, float, int]:
    """Turn activations into bytes with one step and one zero point for all of them.

    The range from low to high, widened to hold 0, is cut into 255 steps, so that 0 is exactly a byte:
    ``scale = (high - low) / 255``, ``zero = round(-low / scale)``, ``q = round(x / scale) + zero``, halves to even, cut
    to 0 .. 255.

    Parameters
    ----------
    x : float32 of any shape, C-contiguous, finite unless low and high are given (then NaN becomes 0).
    low, high : the range, known beforehand (static quantisation); both or none. None: that of x.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    q, scale, zero : uint8 of the shape of x, float of at least 1e-30 (1 where all is 0), int from 0 to 255.

    Raises
    ------
    TypeError : x is no float32 array, or a limit is no number.
    ValueError : x is not contiguous or not finite, one limit is missing, or low is above high.

    Cost
    ----
    One pass over x, and one more for its range.

    Source
    ------
    Asymmetric quantisation per tensor, as Shen et al. 2023 take activations. The steps are multiplied by the reciprocal
    of the scale in float32.
    """
    function = "quantize_activation_u8"
    check_array(x, function=function, name="x", dtypes=(np.float32,))
    if not x.flags.c_contiguous:
        raise ValueError(f"{function}: x must be C-contiguous; pass np.ascontiguousarray(x)")
    threads = check_threads(num_threads, function=function)
    flat = x.reshape(-1)
    if (low is None) != (high is None):
        raise ValueError(f"{function}: low and high must be given both or not at all")
    if low is None:
        low, high, finite = core.value_range(flat, threads)
        if not finite:
            raise ValueError(f"{function}: x must be finite, got NaN or infinity; give low and high to cut it")
    else:
        low = as_number(low, function=function, name="low", low=-3e38, high=3e38)
        high = as_number(high, function=function, name="high", low=-3e38, high=3e38)
        if low > high:
            raise ValueError(f"{function}: low must be at most high, got {low} and {high}; swap them")
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / 255, _LEAST_SCALE) if high > low else 1.0
    zero = round(-low / scale)
    q = np.empty(x.shape, np.uint8)
    core.quantize_u8(flat, 1 / scale, zero, q.reshape(-1), threads)
    return q, scale, zero


def quantize_activation_u8_reference(x) -> tuple[np.ndarray, float, int]:
    """Quantise in float64, as the formulas read; x has values other than 0."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = (high - low) / 255
    zero = round(-low / scale)
    return np.clip(np.rint(x.astype(np.float64) / scale) + zero, 0, 255).astype(np.uint8), scale, zero


def quantize_weight_s8_per_channel(w) -> tuple[np.ndarray, np.ndarray]:
    """Turn a weight into signed bytes with one step for each row and no zero point, so that zeros stay zeros.

    ``scale[i] = max(abs(w[i])) / 127`` and ``q = round(w / scale)``, halves to even.

    Parameters
    ----------
    w : (m, k) float32 or float64, finite.

    Returns
    -------
    q, scale : int8 (m, k) from -127 to 127, float32 (m,), 1 for rows of zeros.

    Raises
    ------
    TypeError : no float array.
    ValueError : not two-dimensional or not finite.

    Source
    ------
    Symmetric quantisation per output channel, as Shen et al. 2023 take weights.
    """
    function = "quantize_weight_s8_per_channel"
    check_array(w, function=function, name="w")
    if w.ndim != 2:
        raise ValueError(f"{function}: w must be two-dimensional, got {w.ndim} dimensions; use w.reshape(m, k)")
    if not np.isfinite(w).all():
        raise ValueError(f"{function}: w must be finite, got NaN or infinity; repair it first")
    largest = np.abs(w).max(axis=1, initial=0.0).astype(np.float64)
    if largest.max(initial=0.0) > 3e38:
        raise ValueError(f"{function}: w must be at most 3e38, or its scales are no float32; scale it down")
    scale = np.where(largest > 0, np.maximum(largest / 127, _LEAST_SCALE), 1.0).astype(np.float32)
    return np.clip(np.rint(w / scale[:, None].astype(np.float64)), -127, 127).astype(np.int8), scale


def fold_zero_point(weight, *, x_scale, x_zero, weight_scale, bias=None) -> tuple[np.ndarray, np.ndarray]:
    """Return the int32 bias and the float32 scale with which `spmm_int8` computes a layer on quantised operands.

    With ``x = s_x (q_x - z)`` and ``w[i] = s_w[i] q_w[i]``, row i of ``W x + b`` is
    ``s_x s_w[i] (q_w[i] q_x + round(b[i] / (s_x s_w[i])) - z sum(q_w[i]))``: what stands behind the product is the
    bias, what stands before the bracket is the scale. The sums of the rows of ``weight`` are counted once and kept with
    it, so this may be called for each new input of a layer.

    Parameters
    ----------
    weight : BlockGroupedWeight (m, k) of int8.
    x_scale, x_zero : step and zero point of the activations, as of `quantize_activation_u8`.
    weight_scale : (m,) float32, finite and above 0, as of `quantize_weight_s8_per_channel`.
    bias : (m,) float32 or float64, or None for 0.

    Returns
    -------
    bias, scale : int32 (m,), float32 (m,).

    Raises
    ------
    TypeError : weight is no BlockGroupedWeight of int8, or another dtype is wrong.
    ValueError : a shape does not fit, a scale is not above 0, or a bias is not finite or beyond int32 at that scale.

    Source
    ------
    The usual expansion of a product of quantised operands; Shen et al. 2023 put it into the bias.
    """
    function = "fold_zero_point"
    if not isinstance(weight, BlockGroupedWeight) or weight.data.dtype != np.int8:
        raise TypeError(f"{function}: weight must be a BlockGroupedWeight of int8, got {type(weight).__name__}")
    m = weight.shape[0]
    x_scale = as_number(x_scale, function=function, name="x_scale", low=_LEAST_SCALE, high=3e38)
    x_zero = as_int(x_zero, function=function, name="x_zero", low=0, high=255)
    check_array(weight_scale, function=function, name="weight_scale", dtypes=(np.float32,))
    if weight_scale.shape != (m,):
        raise ValueError(f"{function}: weight_scale must have shape ({m},), got {weight_scale.shape}")
    scale = x_scale * weight_scale.astype(np.float64)
    # At least the smallest normal float32, so that the scale is neither 0 nor infinite.
    if not np.all((scale >= 1.2e-38) & (scale <= 3e38)):
        raise ValueError(f"{function}: weight_scale must be above 0, and it times x_scale within float32's range")
    folded = -x_zero * weight.row_sums.astype(np.float64)
    if bias is not None:
        check_array(bias, function=function, name="bias")
        if bias.shape != (m,):
            raise ValueError(f"{function}: bias must have shape ({m},), got {bias.shape}")
        folded += np.rint(bias / scale)
    if not np.all(np.abs(folded) < 2.0**31):
        raise ValueError(f"{function}: bias must be finite and within int32 in steps of x_scale times weight_scale")
    return folded.astype(np.int32), scale.astype(np.float32)
