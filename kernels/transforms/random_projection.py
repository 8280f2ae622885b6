"""Random projections with orthogonal rows."""

import numpy as np

from kernels.check import as_int, as_rng

__all__ = ["orthogonal_random_features"]


def orthogonal_random_features(m: int, d: int, *, seed=0) -> np.ndarray:
    """Draw m directions in d dimensions, orthogonal in blocks of d, with the lengths of Gaussian vectors.

    Parameters
    ----------
    m, d : number and width of the rows, from 1 to 2^20 and to 2^13.
    seed : int or numpy Generator.

    Returns
    -------
    (m, d) float64. Every block of d rows is an orthonormal basis (the last one cut off), each row scaled by the norm of
    an independent standard normal d-vector.

    Raises
    ------
    TypeError, ValueError : m or d is no such int, or seed is neither an int nor a Generator.

    Source
    ------
    Choromanski et al. 2021, "Rethinking Attention with Performers", section 2.4 (orthogonal random features).
    """
    name = "orthogonal_random_features"
    m = as_int(m, function=name, name="m", low=1, high=2**20)
    d = as_int(d, function=name, name="d", low=1, high=2**13)
    rng = as_rng(seed, function=name)
    blocks = [np.linalg.qr(rng.standard_normal((d, d)))[0].T for _ in range(-(-m // d))]
    return np.concatenate(blocks)[:m] * np.linalg.norm(rng.standard_normal((m, d)), axis=1, keepdims=True)
