"""Throughput of the PIUMA model: partial products replayed and simulated per second. It has no peer."""

from functools import partial

from workbench.bench.timing import Bench, Case, CaseSpec, Contender
from workbench.data.matrices import rmat, w0
from workbench.data.product_pairs import paired
from workbench.machines.piuma import PiumaConfig, simulate_spgemm

CROWDED = PiumaConfig(load=0.20)
INPUTS = {"w0": w0, "graph500-12": lambda: paired(rmat(12))}


def _set_threads(threads, loaded):
    import kernels

    kernels.set_num_threads(threads)


def _case(pair, version, config, threads) -> Case:
    from kernels.matmul.spgemm import row_flops, symbolic_nnz

    a, b = pair()
    products, stored = int(row_flops(a, b).sum()), int(symbolic_nnz(a, b).sum())

    def check(name, result):
        if (result.products, result.inserts) != (products, stored):
            raise ValueError(
                f"{name}: {result.products} products, {result.inserts} entries; wanted {products}, {stored}"
            )

    run = partial(simulate_spgemm, a, b, version, config)
    contenders = (Contender("workbench", run, threads, ours=True),)
    return Case(products, "product", contenders, check, facts={"products": products, "nnz(C)": stored})


def _specs(quick, threads, loaded) -> list[CaseSpec]:
    runs = [(f"w0-v{v}", "w0", v, PiumaConfig()) for v in (1, 2, 3)]
    if not quick:
        runs += [("w0-v1-load-0.20", "w0", 1, CROWDED), ("graph500-12-v3", "graph500-12", 3, PiumaConfig())]
    return [
        CaseSpec(name, "model", partial(_case, INPUTS[source], version, config, threads))
        for name, source, version, config in runs
    ]


BENCH = Bench(key="piuma", title="PIUMA model", peers=(), specs=_specs, set_threads=_set_threads)
