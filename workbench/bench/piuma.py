"""How many partial products per second the PIUMA model gets through; nothing else computes the same, so no peer."""

from functools import partial

import numpy as np

from workbench.bench.timing import Bench, Case, CaseSpec, Contender, Goal
from workbench.data import matrices

QUICK = {"w0": matrices.w0}
SUITE = QUICK | {
    "rmat-mild-16x16": lambda: (matrices.rmat(16, 16, 0.47, 0.115, 0.115, 0.30, permute=True),) * 2,
    "banded-60k": lambda: (matrices.banded(60_000, 12),) * 2,
}


def _set_threads(threads, loaded):
    import kernels

    kernels.set_num_threads(threads)


def _build(make, version):
    from workbench.machines.piuma import simulate_spgemm

    a, b = make()
    products = int(np.diff(b.indptr).astype(np.int64)[a.indices].sum())

    def check(name, result):
        if result.products != products or int(result.histogram.sum()) != products:
            counted = f"{result.products:,} products, {int(result.histogram.sum()):,} in the histogram"
            raise ValueError(f"{counted}, wanted {products:,}")
        if not result.cycles >= result.lower_bound:
            raise ValueError(f"{result.cycles} cycles are below the bound of {result.lower_bound}")

    return Case(
        work=float(products),
        work_unit="product",
        contenders=(Contender("ours", partial(simulate_spgemm, a, b, version), 1, ours=True),),
        check=check,
        facts={"nnz_a": a.nnz, "nnz_b": b.nnz, "products": products},
    )


def _specs(quick, threads, loaded):
    cases = QUICK if quick else SUITE
    return [
        CaseSpec(f"{name}/v{version}", "model", partial(_build, make, version))
        for name, make in cases.items()
        for version in (1, 2, 3)
    ]


BENCH = Bench(
    key="piuma",
    title="PIUMA model of SpGEMM",
    peers=(),
    specs=_specs,
    set_threads=_set_threads,
    goals=(Goal("model", "rate", 1e7),),
)
