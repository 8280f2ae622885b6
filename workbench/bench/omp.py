"""Orthogonal matching pursuit of many vectors against scikit-learn, which also codes from the Gram matrix.

The first cases are layers of a sentence encoder at half of their values, as CoSpaDi codes them; the last is a block as
DSFormer cuts it. Atoms and vectors are drawn from the normal distribution, so atoms are as incoherent as they can be.
"""

from functools import cache, partial

import numpy as np

from workbench.bench.timing import Bench, Case, CaseSpec, Contender, Goal, Peer

SKLEARN = "scikit-learn"
QUICK = ((384, 158, 384, 79),)
SUITE = ((384, 256, 1536, 128), (384, 158, 384, 79), (32, 48, 384, 12))  # d, k, n, s
DTYPES = {"f32": np.float32, "f64": np.float64}


@cache
def load_sklearn():
    """Import what codes from a Gram matrix."""
    from sklearn.linear_model import orthogonal_mp_gram

    return orthogonal_mp_gram


def problem(d, k, n, dtype):
    """Return a dictionary (d, k) of unit atoms and vectors (d, n)."""
    rng = np.random.default_rng(0)
    atoms, y = rng.standard_normal((d, k)), rng.standard_normal((d, n))
    return (atoms / np.linalg.norm(atoms, axis=0)).astype(DTYPES[dtype]), y.astype(DTYPES[dtype])


def set_threads(threads, loaded):
    """Give our kernels and every BLAS of the process so many threads."""
    from threadpoolctl import threadpool_limits

    import kernels

    kernels.set_num_threads(threads)
    threadpool_limits(threads)


def error_of(atoms, codes, y) -> float:
    """Return the relative error of codes, dense (k, n) or ours, in float64."""
    dense = codes.as_csr().T if hasattr(codes, "as_csr") else codes.reshape(atoms.shape[1], -1)
    rebuilt = dense.T.astype(np.float64) @ atoms.T.astype(np.float64)
    return float(np.linalg.norm(y.T - rebuilt) / np.linalg.norm(y))


def _checker(atoms, y, s):
    from kernels.factor.omp import omp

    want = error_of(atoms, omp(atoms.astype(np.float64), y.astype(np.float64), s), y)

    def check(name, codes):
        dense = codes.as_csr().T.toarray() if hasattr(codes, "as_csr") else codes
        if dense.shape != (atoms.shape[1], y.shape[1]) or (np.count_nonzero(dense, axis=0) > s).any():
            raise ValueError(f"codes must be {atoms.shape[1]} x {y.shape[1]} with at most {s} entries a column")
        found = error_of(atoms, codes, y)
        if not abs(found - want) <= 1e-3 * want + 1e-6:
            raise ValueError(f"codes leave {found:.6g} of the vectors, those of float64 {want:.6g}")

    return check


def _build(d, k, n, s, dtype, threads, loaded):
    from kernels.factor.omp import omp, omp_work

    atoms, y = problem(d, k, n, dtype)
    contenders = [Contender("ours", partial(omp, atoms, y, s), threads, ours=True)]
    if SKLEARN in loaded:

        def theirs():
            return load_sklearn()(atoms.T @ atoms, atoms.T @ y, n_nonzero_coefs=s)

        contenders.append(Contender(SKLEARN, theirs, threads))
    work = omp_work(d, k, n, s, y.itemsize)
    return Case(
        work=float(n),
        work_unit="vector",
        contenders=tuple(contenders),
        check=_checker(atoms, y, s),
        flops=float(work.flops),
        bytes=float(work.bytes_streamed),
        dtype=y.dtype.name,
        facts={"d": d, "k": k, "n": n, "s": s},
        result_bytes=n * s * (y.itemsize + 4),
    )


def _specs(quick, threads, loaded):
    return [
        CaseSpec(f"{d}x{k}x{n}/{s}/{dtype}", dtype, partial(_build, d, k, n, s, dtype, threads, tuple(loaded)))
        for dtype in DTYPES
        for d, k, n, s in (QUICK if quick else SUITE)
    ]


BENCH = Bench(
    key="omp",
    title="Orthogonal matching pursuit of many vectors",
    peers=(Peer(SKLEARN, load_sklearn, "pip install scikit-learn"),),
    specs=_specs,
    set_threads=set_threads,
    goals=tuple(Goal(dtype, SKLEARN, 10.0) for dtype in DTYPES),
)
