r"""A low-rank factorisation by a few block power iterations: a cheap truncated SVD.

.. math:: Q \leftarrow E P, \qquad P \leftarrow E^T Q, \qquad E \approx Q P^T

Q is orthonormal at the end, so Q P^T is the projection of E onto the columns of Q. P starts from uniform numbers.

Source
------
Kang et al. 2024, "GEAR", Algorithm 2, after Vogels et al. 2019, "PowerSGD", Algorithm 1.
"""

from math import prod

import numpy as np

from kernels.check import as_int, as_rng, check_array, check_choice
from kernels.work import Work

__all__ = ["power_iteration_lowrank", "power_iteration_lowrank_reference", "power_iteration_lowrank_work"]

WHEN = ("last", "every")


def power_iteration_lowrank(e, rank, *, loops=3, orthogonalize="last", seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Factorise every matrix of a stack: e is about a b^T.

    Parameters
    ----------
    e : (..., n, d) float32 or float64, finite.
    rank : from 0 to min(n, d).
    loops : passes, from 1 to 1000.
    orthogonalize : "last" makes the columns orthonormal in the last pass only, as published: more loops than about 10
        then lose the rank, since the columns turn towards each other. "every" does it in each pass, and comes
        nearer to the truncated SVD with each.
    seed : an int of at least 0, or a NumPy generator. All matrices start from the same numbers, so a matrix gets the
        same factors in any stack.

    Returns
    -------
    a (..., n, rank) with orthonormal columns, b (..., d, rank), of the dtype of e.

    Raises
    ------
    TypeError : e is no float array, or a number is no integer.
    ValueError : e has less than two axes or is not finite, rank or loops out of range, unknown orthogonalize.

    Cost
    ----
    4 loops n d rank flops a matrix, and QR factorisations of n x rank and d x rank.

    Source
    ------
    As of the module.
    """
    name = "power_iteration_lowrank"
    check_array(e, function=name, name="e")
    if e.ndim < 2:
        raise ValueError(f"{name}: e must have at least two axes (..., n, d), got shape {e.shape}")
    n, d = e.shape[-2:]
    rank = as_int(rank, function=name, name="rank", low=0, high=min(n, d))
    loops = as_int(loops, function=name, name="loops", low=1, high=1000)
    check_choice(orthogonalize, WHEN, function=name, name="orthogonalize")
    rng = as_rng(seed, function=name)
    if not np.isfinite(e).all():
        raise ValueError(f"{name}: e must be finite, got NaN or infinity; np.nan_to_num(e) takes them out")
    if not rank or not e.size:
        return np.zeros((*e.shape[:-1], rank), e.dtype), np.zeros((*e.shape[:-2], d, rank), e.dtype)
    turned = np.swapaxes(e, -1, -2)
    p = np.broadcast_to(rng.random((d, rank)).astype(e.dtype), (*e.shape[:-2], d, rank))
    for left in range(loops, 0, -1):
        orthonormal = left == 1 or orthogonalize == "every"
        if orthonormal:
            p = np.linalg.qr(p).Q
        q = e @ p
        if orthonormal:
            q = np.linalg.qr(q).Q
        p = turned @ q
        if not orthonormal:  # a power of two changes no digit, and keeps 60 passes within the range
            largest = np.abs(p).max((-2, -1), keepdims=True)
            p = np.ldexp(p, -np.frexp(largest)[1])
    return np.ascontiguousarray(q), np.ascontiguousarray(p)


def power_iteration_lowrank_reference(e, rank, start, loops=3) -> tuple[np.ndarray, np.ndarray]:
    """Iterate on one matrix in float64 from ``start`` (d, rank), with QR in the last pass."""
    e, p = e.astype(np.float64), start.astype(np.float64)
    for i in range(loops):
        if i == loops - 1:
            p = np.linalg.qr(p)[0]
        q = e @ p
        if i == loops - 1:
            q = np.linalg.qr(q)[0]
        p = e.T @ q
    return q, p


def power_iteration_lowrank_work(shape, rank, *, loops=3, itemsize=4) -> Work:
    """Count the products of a stack of shape (..., n, d): e is read twice a loop; QR is left out."""
    name = "power_iteration_lowrank_work"
    try:
        sides = [as_int(side, function=name, name="each of shape", low=0) for side in shape]
    except TypeError:
        raise TypeError(f"{name}: shape must be a tuple of ints, got {shape!r:.60}") from None
    if len(sides) < 2:
        raise ValueError(f"{name}: shape must have at least two sides, got {len(sides)}")
    rank = as_int(rank, function=name, name="rank", low=0)
    loops = as_int(loops, function=name, name="loops", low=1)
    itemsize = as_int(itemsize, function=name, name="itemsize", low=1)
    *many, n, d = sides
    factors = rank * (n + d)
    return Work(
        flops=4 * loops * prod(many) * n * d * rank,
        bytes_streamed=2 * loops * itemsize * prod(many) * (n * d + factors),
        gathers=0,
    )
