"""Binning nonzeros into pixels against numpy.bincount and datashader: CSR in, counts out."""

from functools import cache, partial

import numpy as np

from workbench.bench.timing import Bench, Case, CaseSpec, Contender, Goal, Peer
from workbench.data import matrices

PIXELS = (512, 512)


def _large():
    return matrices.erdos_renyi(1_000_000, nnz_per_row=10)


def _skewed():
    return matrices.rmat(19, 20, 0.47, 0.115, 0.115, 0.30)


def _banded():
    return matrices.banded(600_000, 8)


def _small():
    return matrices.rmat(16, 16)


QUICK = {"rmat-16x16": _small}
SUITE = {"erdos-renyi-1M": _large, "rmat-19x20": _skewed, "banded-600k": _banded, "rmat-16x16": _small}


@cache
def _load_datashader():
    import datashader
    import numba
    import pandas

    return datashader, numba, pandas


def _set_threads(threads, loaded):
    import kernels

    kernels.set_num_threads(threads)
    if "datashader" in loaded:
        numba = _load_datashader()[1]
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))


def _ours(a):
    from kernels.raster import raster

    return partial(raster, a, shape=PIXELS)


def _bincount(a):
    """The usual NumPy answer; it also starts from CSR, so row numbers are made within the clock."""
    (h, w), (m, n) = PIXELS, a.shape

    def run():
        rows = np.repeat(np.arange(m) * h // m * w, np.diff(a.indptr))
        return np.bincount(rows + a.indices.astype(np.int64) * w // n, minlength=h * w).reshape(h, w)

    return run


def _datashader(a):
    """Points for datashader are made before the clock starts: it takes coordinates, not CSR."""
    datashader, _, pandas = _load_datashader()
    rows = np.repeat(np.arange(a.shape[0]), np.diff(a.indptr))
    points = pandas.DataFrame({"x": a.indices.astype(np.float64), "y": rows.astype(np.float64)})
    canvas = datashader.Canvas(PIXELS[1], PIXELS[0], x_range=(0, a.shape[1]), y_range=(0, a.shape[0]))
    return lambda: canvas.points(points, "x", "y", datashader.count()).to_numpy()


CONTENDERS = {"bincount": _bincount, "datashader": _datashader}
PEERS = (
    Peer("bincount", lambda: None, "pip install numpy"),
    Peer("datashader", _load_datashader, "pip install .[bench]"),
)


def _build(make, threads, loaded):
    a = make()
    want = _bincount(a)()

    def check(name, result):
        if result.shape != PIXELS or int(result.sum()) != a.nnz:
            raise ValueError(f"counts {result.shape} sum to {int(result.sum()):,}, wanted {PIXELS} and {a.nnz:,}")
        moved = int(np.abs(np.asarray(result, dtype=np.int64) - want).sum()) // 2
        # datashader bins in floating point: an entry on an edge may fall into the next pixel.
        allowed = a.nnz // 1000 if name == "datashader" else 0
        if moved > allowed:
            raise ValueError(f"{moved:,} of {a.nnz:,} entries lie in another pixel")

    contenders = [Contender("ours", _ours(a), threads, ours=True)]
    for name in loaded:
        contenders.append(Contender(name, CONTENDERS[name](a), 1))
    return Case(
        work=float(a.nnz),
        work_unit="nonzero",
        contenders=tuple(contenders),
        check=check,
        bytes=float(4 * a.nnz + 4 * (a.shape[0] + 1) + 4 * PIXELS[0] * PIXELS[1]),
        facts={"m": a.shape[0], "n": a.shape[1], "nnz": a.nnz, "pixels": PIXELS[0] * PIXELS[1]},
        result_bytes=4 * PIXELS[0] * PIXELS[1],
    )


def _specs(quick, threads, loaded):
    cases = QUICK if quick else SUITE
    return [CaseSpec(name, "512 x 512", partial(_build, make, threads, tuple(loaded))) for name, make in cases.items()]


BENCH = Bench(
    key="raster",
    title="Nonzeros into 512 x 512 pixels",
    peers=PEERS,
    specs=_specs,
    set_threads=_set_threads,
    goals=(Goal("512 x 512", "best", 4.0),),
)
