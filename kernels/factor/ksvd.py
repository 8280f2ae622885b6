r"""K-SVD: a dictionary whose atoms are fitted, one after the other, to the vectors that use them.

.. math:: \min_{D, X} \|Y - D X\|_F^2 \quad \text{with at most } s \text{ entries in each column of } X, \qquad
          E_j = (Y - D X + d_j x_j)_{:, I_j}, \quad d_j, x_{j, I_j} \leftarrow \text{the best rank-one fit of } E_j

I_j are the vectors that use atom j. The fit comes from a few power iterations, u = E E^T u / ||E E^T u||, which start
at the atom itself, and x_j = E^T u. Coding (OMP) and such sweeps over all atoms take turns.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg

from kernels._native import core
from kernels.check import as_int, as_rng, check_array, check_callable, check_choice, check_threads
from kernels.factor.codes import SparseCodes, check_codes
from kernels.factor.omp import check_operands, omp
from kernels.work import Work

__all__ = ["KSVDResult", "code_residual", "first_dictionary", "ksvd", "ksvd_sweep", "ksvd_sweep_reference",
           "ksvd_sweep_work"]  # fmt: skip

INITS = ("auto", "svd", "vectors")
MOST_ATOMS, MOST_ITERATIONS = 2**22, 10_000
CODED, SWEPT = "coded", "swept"


@dataclass(frozen=True, kw_only=True, eq=False)
class KSVDResult:
    """The best dictionary and codes that a run of K-SVD saw.

    Parameters
    ----------
    dictionary : (d, k), unit columns.
    codes : SparseCodes of the n vectors.
    history : float64, relative errors ||Y - D X|| / ||Y||: after coding, after the sweep, after coding again, and so
        on. They never rise in a sweep; coding with a new dictionary may raise them.
    best : which entry of the history is that of this result.
    replaced : how many times an atom that no vector used was replaced.
    """

    dictionary: np.ndarray
    codes: SparseCodes
    history: np.ndarray
    best: int
    replaced: int

    @property
    def error(self) -> float:
        """The relative error of this result."""
        return float(self.history[self.best])


def ksvd(
    vectors,
    k,
    s,
    *,
    iters=60,
    power_iters=8,
    init="auto",
    dictionary=None,
    seed=0,
    callback: Callable[[int, str, float], object] | None = None,
    num_threads=None,
) -> KSVDResult:
    """Learn a dictionary of k atoms in which every vector is a combination of s.

    Parameters
    ----------
    vectors : (d, n) float32 or float64, finite, n at least 1; columns are the vectors. For the rows of a matrix, give
        its transpose.
    k : atoms; more than d make an overcomplete dictionary.
    s : atoms for each vector, from 1 to k.
    iters : rounds of coding and a sweep, from 0 to 10,000; 0 codes once with the first dictionary.
    power_iters : of every atom in a sweep, from 1 to 10,000.
    init : the first dictionary. "svd": the first k left singular vectors; "vectors": k vectors drawn at random, of
        unit length; "auto": "svd" where k is at most min(d, n), else "vectors".
    dictionary : (d, k) of the dtype of vectors, unit columns, in place of ``init``.
    seed : int or Generator, for "vectors".
    callback : ``callback(iteration, stage, error)`` after every stage, "coded" or "swept", with the relative error. It
        may raise to end the call, or return True for the best result so far.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    KSVDResult with the dictionary and codes of the smallest error of all stages.

    Raises
    ------
    TypeError : vectors are no float array, dictionary has another dtype, or callback is no function.
    ValueError : shapes do not fit, numbers are out of range, or a value is not finite.

    Cost
    ----
    For each round that of `omp`, and 2 (power_iters + 1) d s n multiply-adds.

    Source
    ------
    Aharon, Elad and Bruckstein 2006, "K-SVD"; Rubinstein et al. 2008 for the approximate update. *Differs from the
    papers:* several power iterations, as in Makhov et al. 2025, and the best of all stages is returned.
    """
    name = "ksvd"
    _check_vectors(vectors, name)
    k = as_int(k, function=name, name="k", low=1, high=MOST_ATOMS)
    s = as_int(s, function=name, name="s", low=1, high=k)
    iters = as_int(iters, function=name, name="iters", low=0, high=MOST_ITERATIONS)
    power_iters = as_int(power_iters, function=name, name="power_iters", low=1, high=MOST_ITERATIONS)
    check_callable(callback, function=name, name="callback")
    check_threads(num_threads, function=name)
    if dictionary is None:
        dictionary = first_dictionary(vectors, k, init=init, seed=seed)
    check_operands(dictionary, vectors, function=name)
    if dictionary.shape[1] != k:
        raise ValueError(f"{name}: dictionary must have k={k} columns, got {dictionary.shape[1]}")
    if not (np.abs(np.linalg.norm(dictionary, axis=0) - 1) <= 1e-3).all():
        raise ValueError(f"{name}: dictionary must have columns of unit length; divide it by its column norms")
    rows, size = np.ascontiguousarray(vectors.T), _norm(vectors)
    history: list[float] = []
    best, replaced = None, 0
    for iteration in range(max(1, iters)):
        codes = omp(dictionary, vectors, s, num_threads=num_threads)
        for stage in (CODED, SWEPT)[: 1 + (iters > 0)]:
            if stage == CODED:
                residual = _residual(dictionary, codes, rows, num_threads, name)
            else:
                dictionary, codes, more = _sweep(dictionary, codes, rows, residual, power_iters, num_threads, name)
                replaced += more
            history.append(_norm(residual) / size if size else 0.0)
            if best is None or history[-1] < history[best[0]]:
                best = len(history) - 1, dictionary, codes
            if callback is not None and callback(iteration, stage, history[-1]) is True:
                return _result(best, history, replaced)
    return _result(best, history, replaced)


def ksvd_sweep(dictionary, codes, vectors, *, power_iters=8, first=0, stop=None, num_threads=None) -> tuple:
    """Fit every atom, one after the other, to the vectors that use it.

    Parameters
    ----------
    dictionary : (d, k) float32 or float64, unit columns.
    codes : SparseCodes of the vectors, of the same dtype.
    vectors : (d, n) of the same dtype.
    power_iters : power iterations for each atom, at least 1.
    first, stop : the atoms from ``first`` to before ``stop`` (None: the last), for those who want to look in between.
    num_threads : 1 to 256; None means ``kernels.get_num_threads()``. The result does not depend on it.

    Returns
    -------
    The new dictionary, the new codes, which use the same atoms, and how many atoms were replaced: one that no vector
    uses becomes the vector that is reconstructed worst, of unit length. Each of them goes to one atom only.

    Raises
    ------
    TypeError, ValueError : as for `omp`; codes is no SparseCodes, or its shape or dtype does not fit.

    Cost
    ----
    2 (power_iters + 1) d multiply-adds for every entry of the codes.

    Source
    ------
    Rubinstein, Zibulevsky and Elad 2008, Algorithm 5 (approximate K-SVD), with several power iterations.
    """
    name = "ksvd_sweep"
    _, k, _ = _check_coded(dictionary, codes, vectors, name)
    power_iters = as_int(power_iters, function=name, name="power_iters", low=1, high=MOST_ITERATIONS)
    stop = k if stop is None else as_int(stop, function=name, name="stop", low=0, high=k)
    first = as_int(first, function=name, name="first", low=0, high=stop)
    rows = np.ascontiguousarray(vectors.T)
    residual = _residual(dictionary, codes, rows, num_threads, name)
    return _sweep(dictionary, codes, rows, residual, power_iters, num_threads, name, first, stop)


def code_residual(dictionary, codes, vectors, *, num_threads=None) -> np.ndarray:
    """Return what codes leave of the vectors, Y - D X.

    Parameters
    ----------
    dictionary, codes, vectors, num_threads : as for `ksvd_sweep`.

    Returns
    -------
    (d, n) of the dtype of vectors, the transpose of a C-contiguous array.

    Raises
    ------
    TypeError, ValueError : as for `ksvd_sweep`.

    Cost
    ----
    d multiply-adds for every entry of the codes.

    Source
    ------
    The definition.
    """
    _check_coded(dictionary, codes, vectors, "code_residual")
    return _residual(dictionary, codes, np.ascontiguousarray(vectors.T), num_threads, "code_residual").T


def first_dictionary(vectors, k, *, init="auto", seed=0) -> np.ndarray:
    """Return a dictionary to start from, (d, k) with unit columns; arguments, errors and source of `ksvd`.

    Vectors that are drawn are all different and not zero; where there are too few, the others are random directions.
    """
    name = "first_dictionary"
    _check_vectors(vectors, name)
    k = as_int(k, function=name, name="k", low=1, high=MOST_ATOMS)
    check_choice(init, INITS, function=name, name="init")
    d, n = vectors.shape
    if init == "svd" and k > min(d, n):
        raise ValueError(f"{name}: init 'svd' has at most {min(d, n)} atoms, k is {k}; use 'vectors'")
    if init == "svd" or (init == "auto" and k <= min(d, n)):
        return np.ascontiguousarray(linalg.svd(vectors, full_matrices=False, check_finite=False)[0][:, :k])
    rng = as_rng(seed, function=name)
    norms = np.linalg.norm(vectors, axis=0)
    drawn = rng.permutation(np.flatnonzero(norms > 0))[:k]
    found = np.concatenate([vectors[:, drawn].T, rng.standard_normal((k - len(drawn), d))]).astype(vectors.dtype).T
    return np.ascontiguousarray(found / np.linalg.norm(found, axis=0))


def ksvd_sweep_reference(dictionary, codes, vectors, power_iters=8) -> tuple[np.ndarray, np.ndarray]:
    """Sweep over dense float64 arrays, dictionary (d, k) and codes (k, n), the way the formula reads."""
    d, x = dictionary.astype(np.float64), codes.astype(np.float64)
    spent: list[int] = []
    for j in range(d.shape[1]):
        users = np.flatnonzero(x[j])
        residual = vectors - d @ x
        if not len(users):
            errors = np.linalg.norm(residual, axis=0)
            errors[spent] = 0.0
            spent.append(int(np.argmax(errors)))
            d[:, j] = vectors[:, spent[-1]] / np.linalg.norm(vectors[:, spent[-1]])
            continue
        e = residual[:, users] + np.outer(d[:, j], x[j, users])
        for _ in range(power_iters):
            u = e @ (e.T @ d[:, j])
            d[:, j] = u / np.linalg.norm(u)
        x[j, users] = e.T @ d[:, j]
    return d, x


def ksvd_sweep_work(d: int, k: int, n: int, s: int, power_iters: int = 8, itemsize: int = 4) -> Work:
    """Count a sweep of k atoms over n vectors of d numbers with s entries each: a residual row a pass is a gather."""
    names = (("d", d), ("k", k), ("n", n), ("s", s), ("power_iters", power_iters))
    d, k, n, s, power_iters = (as_int(v, function="ksvd_sweep_work", name=x, low=0) for x, v in names)
    itemsize = as_int(itemsize, function="ksvd_sweep_work", name="itemsize", low=1)
    moved = itemsize * (2 * d * n + 2 * d * k + 2 * n * s) + 4 * n * (s + 1)
    return Work(flops=4 * (power_iters + 1) * d * n * s, bytes_streamed=moved, gathers=(power_iters + 1) * n * s)


def _check_vectors(vectors, function):
    check_array(vectors, function=function, name="vectors")
    if vectors.ndim != 2 or not vectors.size:
        raise ValueError(f"{function}: vectors must be (d, n), both at least 1, got {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise ValueError(f"{function}: vectors must be finite")


def _check_coded(dictionary, codes, vectors, function):
    found = check_operands(dictionary, vectors, function=function)
    if not isinstance(codes, SparseCodes):
        raise TypeError(f"{function}: codes must be SparseCodes, got {type(codes).__name__}; use omp")
    if codes.values.dtype != vectors.dtype:
        raise TypeError(f"{function}: codes are {codes.values.dtype}, vectors {vectors.dtype}; convert one")
    if (codes.atoms, len(codes.counts)) != found[1:]:
        raise ValueError(
            f"{function}: codes are of {len(codes.counts)} vectors and {codes.atoms} atoms, there are "
            f"{found[2]} and {found[1]}"
        )
    check_codes(codes.indices, codes.counts, codes.atoms, function=function)
    return found


def _residual(dictionary, codes, rows, num_threads, function):
    """Return the residual of vectors that lie in rows, (n, d)."""
    out, atoms = np.empty_like(rows), np.ascontiguousarray(dictionary.T)
    threads = check_threads(num_threads, function=function)
    indices, values = np.ascontiguousarray(codes.indices), np.ascontiguousarray(codes.values)
    core.code_residual(rows, atoms, indices, values, np.ascontiguousarray(codes.counts), out, threads)
    return out


def _sweep(dictionary, codes, rows, residual, power_iters, num_threads, function, first=0, stop=None):
    """Return the new dictionary and codes, and how many atoms were replaced; keeps the residual up to date in place."""
    atoms, values = dictionary.T.copy(order="C"), codes.values.copy(order="C")
    stop = len(atoms) if stop is None else stop
    threads = check_threads(num_threads, function=function)
    indices, counts = np.ascontiguousarray(codes.indices), np.ascontiguousarray(codes.counts)
    replaced = core.ksvd_sweep(rows, indices, counts, atoms, values, residual, first, stop, power_iters, threads)
    return np.ascontiguousarray(atoms.T), replace(codes, values=values), replaced


def _norm(x):
    """Return the Frobenius norm, summed in float64."""
    return float(np.sqrt(np.square(x, dtype=np.float64).sum()))


def _result(best, history, replaced):
    at, dictionary, codes = best
    return KSVDResult(
        dictionary=dictionary, codes=codes, history=np.array(history), best=at, replaced=replaced
    )  # fmt: skip
