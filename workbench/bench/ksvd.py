"""One round of K-SVD, coding and a sweep, against scikit-learn's coding with the sweep written in NumPy.

No library that is kept up has K-SVD itself; the sweep of the peer is the formula with matrix products, on the columns
that use an atom, eight power iterations an atom as ours.
"""

from functools import partial

import numpy as np

from workbench.bench import omp as coding
from workbench.bench.timing import Bench, Case, CaseSpec, Contender, Goal, Peer

PEER = "scikit-learn and NumPy"
POWER = 8


def numpy_round(atoms, y, s):
    """Code with scikit-learn and sweep with NumPy; return the dictionary and the dense codes."""
    d, x = atoms.copy(), coding.load_sklearn()(atoms.T @ atoms, atoms.T @ y, n_nonzero_coefs=s)
    residual = y - d @ x
    for j in range(d.shape[1]):
        users = np.flatnonzero(x[j])
        if not len(users):
            continue
        e = residual[:, users] + np.outer(d[:, j], x[j, users])
        u = d[:, j]
        for _ in range(POWER):
            u = e @ (e.T @ u)
            u /= np.linalg.norm(u)
        d[:, j], x[j, users] = u, e.T @ u
        residual[:, users] = e - np.outer(u, x[j, users])
    return d, x


def _checker(atoms, y, s):
    want = coding.error_of(*numpy_round(atoms.astype(np.float64), y.astype(np.float64), s), y)

    def check(name, result):
        dictionary, codes = result
        found = coding.error_of(dictionary, codes, y)
        if not abs(found - want) <= 1e-3 * want + 1e-6:
            raise ValueError(f"the round leaves {found:.6g} of the vectors, that of float64 {want:.6g}")

    return check


def _ours(atoms, y, s):
    from kernels.factor.ksvd import ksvd

    found = ksvd(y, atoms.shape[1], s, iters=1, power_iters=POWER, dictionary=atoms)
    return found.dictionary, found.codes


def _build(d, k, n, s, dtype, threads, loaded):
    from kernels.factor.ksvd import ksvd_sweep_work
    from kernels.factor.omp import omp_work

    atoms, y = coding.problem(d, k, n, dtype)
    contenders = [Contender("ours", partial(_ours, atoms, y, s), threads, ours=True)]
    if PEER in loaded:
        contenders.append(Contender(PEER, partial(numpy_round, atoms, y, s), threads))
    work = omp_work(d, k, n, s, y.itemsize) + ksvd_sweep_work(d, k, n, s, POWER, y.itemsize)
    return Case(
        work=float(n * s),
        work_unit="code",
        contenders=tuple(contenders),
        check=_checker(atoms, y, s),
        flops=float(work.flops),
        bytes=float(work.bytes_streamed),
        dtype=y.dtype.name,
        facts={"d": d, "k": k, "n": n, "s": s},
        result_bytes=n * s * (y.itemsize + 4) + d * k * y.itemsize,
    )


def _specs(quick, threads, loaded):
    return [
        CaseSpec(f"{d}x{k}x{n}/{s}/{dtype}", dtype, partial(_build, d, k, n, s, dtype, threads, tuple(loaded)))
        for dtype in coding.DTYPES
        for d, k, n, s in (coding.QUICK if quick else coding.SUITE)
    ]


BENCH = Bench(
    key="ksvd",
    title="One round of K-SVD: coding and a sweep",
    peers=(Peer(PEER, coding.load_sklearn, "pip install scikit-learn"),),
    specs=_specs,
    set_threads=coding.set_threads,
    goals=tuple(Goal(dtype, PEER, 10.0) for dtype in coding.DTYPES),
)
