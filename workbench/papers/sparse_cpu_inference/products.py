"""Times of one product with a sparse weight: our kernels against dense products and other sparse libraries."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

import kernels
from kernels.formats.block_groups import BlockGroupedWeight
from kernels.matmul.bsr_spmm import bsr_spmm
from kernels.matmul.spmm_int8 import spmm_int8
from workbench.machines import stopwatch
from workbench.paper import row
from workbench.papers.sparse_cpu_inference.layers import LAYERS, SPARSITIES, drawn_weight

BLOCK = (4, 1)
OURS_INT8, OURS_FLOAT = "4 x 1 blocks, int8", "4 x 1 blocks, float32"
DENSE_INT8, DENSE_FLOAT = "dense, int8 (oneDNN)", "dense, float32 (torch)"
MKL, SCIPY_CSR, SCIPY_BSR = "CSR, float32 (oneMKL)", "CSR, float32 (SciPy)", "BSR, float32 (SciPy)"
HEIGHTS = ((1, 4), (2, 1), (4, 1), (8, 1), (16, 1))
LAYERS_OF = {"tiny": LAYERS[:1], "small": LAYERS[3:4], "full": LAYERS}
ROUNDS = {"tiny": 1, "small": 5, "full": 7}
TOLERANCE = 1e-5


def products(size, seed, report):
    """Time every library on each layer and sparsity, with one thread each; each result is checked first."""
    cases = [(layer, sparsity) for layer in LAYERS_OF[size] for sparsity in SPARSITIES]
    rows = []
    with _OneThread():
        for place, (layer, sparsity) in enumerate(cases):
            report(place / len(cases), f"{layer.outputs} x {layer.inputs}, {sparsity:.0%} of the blocks gone")
            rows += _timed(layer, sparsity, ROUNDS[size], seed)
    return rows


def heights(size, seed, report):
    """Time the int8 product with blocks of other heights, which share a row of the activations among fewer rows."""
    layers = {"full": LAYERS[3:6]}.get(size, LAYERS_OF[size])
    rows = []
    with _OneThread():
        for place, layer in enumerate(layers):
            report(place / len(layers), f"{layer.outputs} x {layer.inputs}")
            x = _activations(layer, seed)
            runs = {}
            for block in HEIGHTS:
                weight = drawn_weight(layer.outputs, layer.inputs, 0.2, block=block, seed=seed)
                grouped = BlockGroupedWeight.from_dense(weight, block=block, group=4 // block[1])
                runs["{} x {}".format(*block)] = partial(spmm_int8, grouped, x)
                _check("{} x {}".format(*block), spmm_int8(grouped, x), weight, x)
            for name, timing in stopwatch.measure(runs, rounds=ROUNDS[size]).items():
                labels = layer.labels | {"sparsity": 0.8, "block": name} | _facts(timing, ROUNDS[size])
                rows.append(row("time of an int8 product", 1e3 * timing.median_s, "ms", "measured", **labels))
    return rows


def contenders(weight: np.ndarray, x: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return name -> call that multiplies; every library has its operands in the form that it likes best.

    Parameters
    ----------
    weight : int8 (m, k), sparse in 4 x 1 blocks.
    x : uint8 (k, tokens), at most 127, which signed bytes hold too.
    """
    grouped, floats = BlockGroupedWeight.from_dense(weight), weight.astype(np.float32)
    csr, bsr = sp.csr_array(floats), sp.bsr_array(floats, blocksize=BLOCK)
    given = x.astype(np.float32)
    dense, columns = torch.from_numpy(floats), torch.from_numpy(given)
    tokens, transposed = torch.from_numpy(np.ascontiguousarray(x.T).astype(np.int8)), torch.from_numpy(weight).t()
    starts, places, stored = (torch.from_numpy(part) for part in (csr.indptr, csr.indices, csr.data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its CSR tensors a beta feature
        mkl = torch.sparse_csr_tensor(starts, places, stored, csr.shape)
    return {
        OURS_INT8: lambda: spmm_int8(grouped, x),
        DENSE_INT8: lambda: torch._int_mm(tokens, transposed).numpy().T,
        OURS_FLOAT: lambda: bsr_spmm(bsr, given),
        DENSE_FLOAT: lambda: (dense @ columns).numpy(),
        MKL: lambda: (mkl @ columns).numpy(),
        SCIPY_CSR: lambda: csr @ given,
        SCIPY_BSR: lambda: bsr @ given,
    }


def _timed(layer, sparsity, rounds, seed):
    weight = drawn_weight(layer.outputs, layer.inputs, 1 - sparsity, block=BLOCK, seed=seed)
    x = _activations(layer, seed)
    runs = contenders(weight, x)
    for name, run in runs.items():
        _check(name, run(), weight, x)
    times = stopwatch.measure(runs, rounds=rounds)
    rows = []
    for name, timing in times.items():
        labels = layer.labels | {"sparsity": sparsity, "method": name} | _facts(timing, rounds)
        rows.append(row("time of a product", 1e3 * timing.median_s, "ms", "measured", **labels))
    for ours, dense in ((OURS_INT8, DENSE_INT8), (OURS_FLOAT, DENSE_FLOAT)):
        density = min(1.0, (1 - sparsity) * times[dense].median_s / times[ours].median_s)
        labels = layer.labels | {"sparsity": sparsity, "method": ours}
        rows.append(row("density at which times break even", density, "fraction", "measured", **labels))
    return rows


def _facts(timing, rounds):
    return {"spread_ms": round(1e3 * timing.spread_s, 4), "threads": 1, "rounds": rounds}


def _activations(layer, seed):
    return np.random.default_rng(seed + 1).integers(0, 128, (layer.inputs, layer.tokens)).astype(np.uint8)


def _check(name, result, weight, x):
    """Raise ValueError unless a product is that of float64, to the last bit where it is in whole numbers."""
    want = weight.astype(np.float64) @ x.astype(np.float64)
    worst = float(np.abs(result - want).max() / max(np.abs(want).max(), 1.0))
    if not worst <= (0 if result.dtype == np.int32 else TOLERANCE):
        raise ValueError(f"products: the product of {name} is off by {worst:.1e} of its largest element")


class _OneThread:
    """Let every library use one thread, since SciPy has no more."""

    def __enter__(self):
        self._before = kernels.get_num_threads(), torch.get_num_threads()
        kernels.set_num_threads(1)
        torch.set_num_threads(1)

    def __exit__(self, *_):
        kernels.set_num_threads(self._before[0])
        torch.set_num_threads(self._before[1])
