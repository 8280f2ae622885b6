r"""One step of AdamW on chosen entries of an array: gather, update and scatter in one pass, in place.

.. math:: m_p \leftarrow \beta_1 m_p + (1 - \beta_1) g_p, \quad v_p \leftarrow \beta_2 v_p + (1 - \beta_2) g_p^2, \quad
          w_{i_p} \leftarrow (1 - \eta \lambda) w_{i_p}
          - \eta \frac{m_p / (1 - \beta_1^t)}{\sqrt{v_p / (1 - \beta_2^t)} + \epsilon}

i_p is the place of the p-th chosen entry, t the number of the step, eta the rate and lambda the decay. Other
weights are neither read nor written, so decay cannot reach them, and moments exist for the chosen ones alone.
"""

import math

import numpy as np

from kernels._native import core
from kernels.check import FLOATS, as_int, as_number, check_array, check_threads
from kernels.work import Work

__all__ = ["selected_adamw", "selected_adamw_reference", "selected_adamw_work"]


def selected_adamw(
    weights,
    gradients,
    index,
    first,
    second,
    *,
    step,
    rate,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    num_threads=None,
) -> None:
    """Take one step of AdamW on some entries of an array, in place.

    Parameters
    ----------
    weights : float32 or float64 of any shape, C-contiguous and writeable; changed at ``index``.
    gradients : of the same dtype and C-contiguous: of the shape of weights, or those of the chosen entries alone, (k,).
    index : (k,) int32 or int64, flat places in C order, strictly rising.
    first, second : (k,) of the dtype of weights, contiguous and writeable; the moments, zeros before the first step.
        Both are changed.
    step : number of this step, from 1 to 2^53.
    rate : at least 0.
    beta1, beta2 : in [0, 1), of the moments.
    eps : added to the root, at least 0. With 0, an entry whose gradients were all 0 becomes NaN.
    weight_decay : at least 0; the share ``rate * weight_decay`` of a chosen weight goes first.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    None.

    Raises
    ------
    TypeError : an array or a number of the wrong type.
    ValueError : shapes do not fit, an array is not contiguous or read-only, two arrays share memory, a place is out of
        range or does not lie after the one before it, or a number is out of range. Nothing has been changed then.

    Cost
    ----
    16 k operations. Weights and dense gradients are gathered, the moments and places streamed once, and nothing is
    allocated.

    Source
    ------
    Loshchilov and Hutter 2019, "AdamW", Algorithm 2, in the order of operations of ``torch.optim.AdamW``; the selection
    is that of Hu et al. 2024, "SaRA".
    """
    name = "selected_adamw"
    for label, part in (("weights", weights), ("gradients", gradients), ("first", first), ("second", second)):
        check_array(part, function=name, name=label, dtypes=FLOATS if label == "weights" else (weights.dtype,))
        if not (part.flags.c_contiguous and part.flags.aligned):
            raise ValueError(f"{name}: {label} must be C-contiguous and aligned; pass np.ascontiguousarray({label})")
        if label != "gradients" and not part.flags.writeable:
            raise ValueError(f"{name}: {label} is changed in place and must be writeable; pass {label}.copy()")
    check_array(index, function=name, name="index", dtypes=(np.int32, np.int64))
    if index.ndim != 1 or not (index.flags.c_contiguous and index.flags.aligned):
        raise ValueError(f"{name}: index must be (k,) and contiguous, got shape {index.shape}; pass index.copy()")
    for label, part in (("first", first), ("second", second)):
        if part.shape != index.shape:
            raise ValueError(f"{name}: {label} must have the shape of index, {index.shape}, got {part.shape}")
    dense = gradients.shape == weights.shape
    if not dense and gradients.shape != index.shape:
        raise ValueError(
            f"{name}: gradients must have the shape of weights, {weights.shape}, or of index, {index.shape}, "
            f"got {gradients.shape}"
        )
    _refuse_overlap({"weights": weights, "gradients": gradients, "first": first, "second": second, "index": index})
    step = as_int(step, function=name, name="step", low=1, high=2**53)
    numbers = {"rate": rate, "eps": eps, "weight_decay": weight_decay}
    rate, eps, decay = (as_number(x, function=name, name=what, low=0) for what, x in numbers.items())
    beta1, beta2 = _as_betas(beta1, beta2, name)
    scale, root = _corrections(beta1, beta2, step)
    constants = np.array([1 - rate * decay, beta1, beta2, rate * scale, root, eps], np.float64)
    threads = check_threads(num_threads, function=name)
    flat = [part.reshape(-1) for part in (weights, gradients)]
    at = core.selected_adamw(*flat, index, first, second, constants, dense, threads)
    if at >= 0:
        raise ValueError(
            f"{name}: index must rise strictly within [0, {weights.size}), got {index[at]} at {at}"
            + (f" after {index[at - 1]}" if at else "")
            + "; pass np.flatnonzero(mask)"
        )


def selected_adamw_reference(
    weights, gradients, index, first, second, step, rate, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights, first and second moments after a step, all float64, the way the formula reads."""
    w, g = weights.astype(np.float64), gradients.astype(np.float64)
    g = g.reshape(-1)[index] if g.shape == w.shape else g
    m = beta1 * first.astype(np.float64) + (1 - beta1) * g
    v = beta2 * second.astype(np.float64) + (1 - beta2) * g**2
    change = (m / (1 - beta1**step)) / (np.sqrt(v / (1 - beta2**step)) + eps)
    w.reshape(-1)[index] = (1 - rate * weight_decay) * w.reshape(-1)[index] - rate * change
    return w, m, v


def selected_adamw_work(k: int, *, itemsize: int = 4, index_bytes: int = 4, dense: bool = True) -> Work:
    """Count the work of a step on ``k`` chosen entries.

    Moments are read and written, places read once; weights are one gather each, and so are gradients that come dense.
    """
    name = "selected_adamw_work"
    k = as_int(k, function=name, name="k", low=0)
    itemsize = as_int(itemsize, function=name, name="itemsize", low=1)
    index_bytes = as_int(index_bytes, function=name, name="index_bytes", low=1)
    streamed = 4 * itemsize + index_bytes + (0 if dense else itemsize)
    return Work(flops=16 * k, bytes_streamed=streamed * k, gathers=(2 if dense else 1) * k)


def _as_betas(beta1, beta2, function) -> tuple[float, float]:
    found = []
    for label, value in (("beta1", beta1), ("beta2", beta2)):
        number = as_number(value, function=function, name=label, low=0)
        if number >= 1:
            raise ValueError(f"{function}: {label} must be at least 0 and below 1, got {value}")
        found.append(number)
    return found[0], found[1]


def _corrections(beta1, beta2, step) -> tuple[float, float]:
    """Return 1 / (1 - beta1^t) and the root of 1 - beta2^t; both are 1 where the power has vanished."""
    return 1 / (1 - beta1 ** float(step)), math.sqrt(1 - beta2 ** float(step))


def _refuse_overlap(arrays) -> None:
    """Raise ValueError where an array that is changed shares memory with another."""
    for label in ("weights", "first", "second"):
        for other, array in arrays.items():
            if other != label and arrays[label].size and np.may_share_memory(arrays[label], array):
                raise ValueError(f"selected_adamw: {label} and {other} must not share memory; pass {other}.copy()")
