r"""Orthogonal matching pursuit (OMP): each vector as a combination of few atoms, taken one by one.

.. math:: i_t = \arg\max_i |d_i^T r_{t-1}|, \quad
          x_t = \arg\min_x \|y - D_{I_t} x\|_2, \quad I_t = I_{t-1} \cup \{i_t\}, \quad r_t = y - D_{I_t} x_t

d_i are the atoms, columns of the dictionary D, and r_0 = y. With the Gram matrix D^T D and the products D^T y known, no
step looks at the vectors themselves.
"""

import numpy as np

from kernels._native import core
from kernels.check import as_int, as_number, check_array, check_threads
from kernels.factor.codes import SparseCodes
from kernels.work import Work

__all__ = ["omp", "omp_reference", "omp_work"]


def omp(dictionary, vectors, s, *, tol=0.0, num_threads=None) -> SparseCodes:
    """Code every vector with at most s atoms.

    Parameters
    ----------
    dictionary : (d, k) float32 or float64, finite; atoms are columns and should have unit length, since the atom of the
        largest product with the residual is taken. Any memory order: rows as atoms are ``dictionary.T``.
    vectors : (d, n) of the same dtype, finite; to code the rows of a matrix, give its transpose.
    s : atoms for each vector, from 1 to k.
    tol : in [0, 1); a vector is left with fewer atoms once its residual is at most ``tol`` times as long as itself.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    SparseCodes with rows of s atoms in the order in which they were taken, values of the dtype of vectors. Of equal
    products the atom of the lower index is taken. A vector takes fewer atoms where what is left is rounding, or where
    the next atom depends on those taken; its row is filled up with value 0.

    Raises
    ------
    TypeError : neither is a float array, or the dtypes differ.
    ValueError : shapes do not fit, a value is not finite, or s or tol is out of range.

    Cost
    ----
    d k (n + k) multiply-adds for products, then k s^2 / 2 for each vector; s k values of scratch for each thread.

    Source
    ------
    Pati, Rezaiifar and Krishnaprasad 1993; Rubinstein, Zibulevsky and Elad 2008, "Efficient Implementation of the K-SVD
    Algorithm using Batch Orthogonal Matching Pursuit". *Differs from the paper:* the factor's rows are read off the
    products of the orthonormalised atoms with all atoms, so that no system is solved before the last step.
    """
    _, k, n = check_operands(dictionary, vectors, function="omp")
    s = as_int(s, function="omp", name="s", low=1, high=k)
    tol = as_number(tol, function="omp", name="tol", low=0)
    if tol >= 1:
        raise ValueError(f"omp: tol must be below 1, the length of a vector before coding, got {tol}")
    for name, x in (("dictionary", dictionary), ("vectors", vectors)):
        if not np.isfinite(x).all():
            raise ValueError(f"omp: {name} must be finite")
    threads = check_threads(num_threads, function="omp")
    indices, values = np.empty((n, s), np.int32), np.empty((n, s), vectors.dtype)
    counts = np.empty(n, np.int32)
    gram, products = np.ascontiguousarray(dictionary.T @ dictionary), np.ascontiguousarray(vectors.T @ dictionary)
    squares = np.einsum("dn,dn->n", vectors, vectors)
    core.omp(gram, products, squares, tol, indices, values, counts, threads)
    return SparseCodes(indices=indices, values=values, counts=counts, atoms=k)


def omp_reference(dictionary, vectors, s) -> np.ndarray:
    """Take atoms one by one and fit them by least squares; return the codes as a dense matrix (k, n)."""
    d, codes = dictionary.astype(np.float64), np.zeros((dictionary.shape[1], vectors.shape[1]))
    for i, y in enumerate(vectors.T.astype(np.float64)):
        taken: list[int] = []
        residual = y
        for _ in range(s):
            products = np.abs(d.T @ residual)
            products[taken] = -1.0
            taken.append(int(np.argmax(products)))
            x = np.linalg.lstsq(d[:, taken], y, rcond=None)[0]
            residual = y - d[:, taken] @ x
        codes[taken, i] = x
    return codes


def omp_work(d: int, k: int, n: int, s: int, itemsize: int = 4) -> Work:
    """Count the work of n vectors of d numbers with s of k atoms; every step of a vector gathers the steps before."""
    d, k, n = (as_int(v, function="omp_work", name=x, low=0) for x, v in (("d", d), ("k", k), ("n", n)))
    s = as_int(s, function="omp_work", name="s", low=0, high=k)
    itemsize = as_int(itemsize, function="omp_work", name="itemsize", low=1)
    steps = s * (s - 1) // 2
    flops = 2 * d * k * (n + k) + 2 * n * (k * (steps + s) + 2 * steps + s)
    moved = itemsize * (d * k + d * n + n * s) + 4 * n * (s + 1)
    return Work(flops=flops, bytes_streamed=moved, gathers=2 * n * steps)


def check_operands(dictionary, vectors, *, function: str) -> tuple[int, int, int]:
    """Return d, k and n of a dictionary (d, k) and vectors (d, n) of one float dtype."""
    check_array(vectors, function=function, name="vectors")
    check_array(dictionary, function=function, name="dictionary", dtypes=(vectors.dtype,))
    if dictionary.ndim != 2 or vectors.ndim != 2 or dictionary.shape[0] != vectors.shape[0]:
        raise ValueError(
            f"{function}: dictionary must be (d, k) and vectors (d, n), got {dictionary.shape} and {vectors.shape}; "
            "atoms and vectors are columns (transpose one?)"
        )
    return *dictionary.shape, vectors.shape[1]
