"""Random projections with orthogonal rows."""

import numpy as np

__all__ = ["orthogonal_random_features"]


def orthogonal_random_features(m: int, d: int, *, seed=0) -> np.ndarray:
    """Draw m directions in d dimensions, orthogonal in blocks of d, with the lengths of Gaussian vectors.

    Parameters
    ----------
    m, d : number and width of the rows, at least 1.
    seed : int or numpy Generator.

    Returns
    -------
    (m, d) float64. Every block of d rows is an orthonormal basis (the last one cut off), each row scaled by the norm of
    an independent standard normal d-vector.

    Raises
    ------
    ValueError : m or d below 1.

    Source
    ------
    Choromanski et al. 2021, "Rethinking Attention with Performers", section 2.4 (orthogonal random features).
    """
    if m < 1 or d < 1:
        raise ValueError(f"orthogonal_random_features: m and d must be at least 1, got {m} and {d}")
    rng = np.random.default_rng(seed)
    blocks = [np.linalg.qr(rng.standard_normal((d, d)))[0].T for _ in range(-(-m // d))]
    return np.concatenate(blocks)[:m] * np.linalg.norm(rng.standard_normal((m, d)), axis=1, keepdims=True)
