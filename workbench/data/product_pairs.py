"""Pairs of matrices to multiply: how a single matrix becomes a pair, how labels are shuffled, and a worked example."""

import numpy as np
import scipy.sparse as sp

from workbench.data.matrices import banded, erdos_renyi, graph, poisson2d, power_law, rmat


def worked_example() -> tuple[sp.csr_array, sp.csr_array]:
    """Return the 3 x 3 and the 3 x 2 matrix whose product takes 7 partial products, 6 results and 1 merge."""
    a = sp.csr_array(np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0], [4.0, 5.0, 0.0]]))
    b = sp.csr_array(np.array([[0.0, 6.0], [7.0, 0.0], [8.0, 9.0]]))
    return a, b


def paired(a) -> tuple[sp.csr_array, sp.csr_array]:
    """Return (A, A), or (A, A^T) where A is not square."""
    return (a, a) if a.shape[0] == a.shape[1] else (a, sp.csr_array(a.T.tocsr()))


def relabelled(a, b, seed=100) -> tuple[sp.csr_array, sp.csr_array]:
    """Relabel rows, inner dimension and columns at random; A's columns and B's rows keep matching.

    Parameters
    ----------
    a, b : csr_array, m x k and k x n.
    seed : seed of the three permutations, drawn in this order.
    """
    rng = np.random.default_rng(seed)
    rows, inner, columns = (rng.permutation(n) for n in (a.shape[0], a.shape[1], b.shape[1]))
    left, right = a[rows][:, inner], b[inner][:, columns]
    left.sort_indices()
    right.sort_indices()
    return left, right


def rmat_pair(scale, edge_factor=16, a=0.47, b=0.115, c=0.115, seed=1, permute=True):
    """Draw two R-MAT matrices with seeds ``seed`` and ``seed + 1``; the defaults at scale 14 are the pair W0.

    Parameters
    ----------
    a, b, c : chances of three quadrants, >= 0; the fourth gets what they leave.
    permute : relabel at random (see :func:`relabelled`).
    """
    if a + b + c > 1 + 1e-9:
        raise ValueError(f"rmat_pair: a + b + c must be at most 1, got {a} + {b} + {c}; lower one of them")
    quadrants = {"a": a, "b": b, "c": c, "d": max(0.0, 1.0 - a - b - c)}
    pair = tuple(rmat(scale, edge_factor, **quadrants, seed=seed + place) for place in (0, 1))
    return relabelled(*pair) if permute else pair


def small_pairs(seed=1) -> dict[str, tuple[sp.csr_array, sp.csr_array]]:
    """Return eight small products of different structure by name, to check methods on."""
    return {
        "worked example": worked_example(),
        "R-MAT, 128 rows": paired(rmat(7, 8, seed=seed, values="uniform")),
        "Poisson 12 x 12": paired(poisson2d(12)),
        "banded, 200 rows": paired(banded(200, 4, 0.7, seed=seed)),
        "uniform, 150 x 100": paired(erdos_renyi(150, 100, 5.0, seed=seed)),
        "power-law, 200 rows": paired(power_law(200, nnz_per_row=6.0, seed=seed)),
        "karate club": paired(graph("karate")),
        "Les Misérables": paired(graph("les_miserables")),
    }
