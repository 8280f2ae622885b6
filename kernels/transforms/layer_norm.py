r"""Layer normalisation of columns: every column gets mean 0 and variance 1, then each row its factor and summand.

.. math:: y_{ij} = g_i \frac{x_{ij} - \mu_j}{\sqrt{\sigma_j^2 + \epsilon}} + b_i

Activations lie as columns of tokens where a sparse weight is the left operand of a product.
"""

import numpy as np

from kernels._native import core
from kernels.check import as_int, as_number, check_array, check_threads
from kernels.work import Work

__all__ = ["layer_norm_columns", "layer_norm_columns_reference", "layer_norm_columns_work"]


def layer_norm_columns(x, weight, bias, *, eps=1e-5, num_threads=None) -> np.ndarray:
    """Normalise every column of a matrix.

    Parameters
    ----------
    x : (width, n) float32, C-contiguous, width at least 1.
    weight, bias : (width,) float32, contiguous.
    eps : added to the variance, at least 0.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    (width, n) float32. The variance is that of the column itself, divided by width. A column with infinity or NaN
    becomes NaN, and so does one of equal values with eps 0.

    Raises
    ------
    TypeError : an array is not float32.
    ValueError : shapes do not fit, an array is not contiguous, or eps is below 0.

    Cost
    ----
    Three passes over x, of which two find it in cache.

    Source
    ------
    Ba, Kiros and Hinton 2016, "Layer normalization", Eq. 4.
    """
    name = "layer_norm_columns"
    check_array(x, function=name, name="x", dtypes=(np.float32,))
    if x.ndim != 2 or not x.flags.c_contiguous or not len(x):
        raise ValueError(f"{name}: x must be (width, n), C-contiguous and have a row; pass np.ascontiguousarray(x)")
    for label, part in (("weight", weight), ("bias", bias)):
        check_array(part, function=name, name=label, dtypes=(np.float32,))
        if part.shape != (len(x),) or not part.flags.c_contiguous:
            raise ValueError(f"{name}: {label} must be contiguous and of shape ({len(x)},), got {part.shape}")
    eps = as_number(eps, function=name, name="eps", low=0, high=1e30)
    out = np.empty_like(x)
    core.layer_norm_columns(x, weight, bias, eps, out, check_threads(num_threads, function=name))
    return out


def layer_norm_columns_reference(x, weight, bias, eps=1e-5) -> np.ndarray:
    """Normalise in float64, the way the formula reads."""
    x = x.astype(np.float64)
    return weight[:, None] * (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps) + bias[:, None]


def layer_norm_columns_work(width: int, n: int) -> Work:
    """Count the work for n columns: eight operations an element, x read and the result written once."""
    width = as_int(width, function="layer_norm_columns_work", name="width", low=1)
    n = as_int(n, function="layer_norm_columns_work", name="n", low=0)
    return Work(flops=8 * width * n, bytes_streamed=8 * width * n + 8 * width, gathers=0)
