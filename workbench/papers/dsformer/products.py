"""One product for few and many tokens: dense, low rank, and dense-sparse blocks with as many values."""

import numpy as np
import torch

import kernels
from workbench.machines.stopwatch import measure
from workbench.models.compression.dsformer import DSBlockSpec, DSFactors, spec_for_ratio
from workbench.paper import row

TIME = "time of a product"
DENSE, LOW, OURS = "dense", "low rank", "dense-sparse blocks"
SHAPES = {"tiny": ((64, 64),), "small": ((384, 384),), "full": ((384, 384), (1536, 384), (384, 1536), (1024, 1024))}
RATIOS = {"tiny": (2.0,), "small": (2.0,), "full": (2.0, 2.8, 3.57)}
TOKENS = {"tiny": (1,), "small": (1, 32), "full": (1, 32, 512)}
ROUNDS = {"tiny": 1, "small": 3, "full": 9}


def products(size, seed, report):
    """Time products of random factors; which values they have does not matter."""
    rows, threads, before = [], kernels.get_num_threads(), torch.get_num_threads()
    cases = [(shape, ratio, t) for shape in SHAPES[size] for ratio in RATIOS[size] for t in TOKENS[size]]
    torch.set_num_threads(threads)
    try:
        for i, (shape, ratio, tokens) in enumerate(cases):
            report(i / len(cases), f"{shape[0]} x {shape[1]}, {ratio:g} times smaller, {tokens} tokens")
            with torch.inference_mode():
                found = measure(_runs(shape, ratio, tokens, np.random.default_rng(seed)), rounds=ROUNDS[size])
            for name, timing in found.items():
                labels = {"run": name, "outputs": shape[0], "inputs": shape[1], "ratio": ratio, "tokens": tokens}
                labels |= {"threads": threads, "spread_ms": 1e3 * timing.spread_s}
                rows.append(row(TIME, 1e3 * timing.median_s, "ms", "measured", **labels))
    finally:
        torch.set_num_threads(before)
    return rows


def _runs(shape, ratio, tokens, rng):
    """Return name -> function that multiplies the columns of one input."""
    (m, n), spec = shape, spec_for_ratio(shape, ratio)
    x = rng.standard_normal((n, tokens), np.float32)
    rank = spec.num_values(shape) // (m + n)
    weight, left, right = (torch.from_numpy(rng.standard_normal(s, np.float32)) for s in (shape, (m, rank), (rank, n)))
    blocks, columns = random_factors(shape, spec, rng), torch.from_numpy(x)
    return {
        DENSE: lambda: weight @ columns,
        LOW: lambda: left @ (right @ columns),
        OURS: lambda: blocks.columns(x),
    }


def random_factors(shape, spec: DSBlockSpec, rng) -> DSFactors:
    """Return random atoms, and coefficients at random places."""
    (m, n), r, s = shape, spec.atoms, spec.nnz_per_row
    q = n // spec.block_cols
    places = np.sort(np.argsort(rng.random((1, q, m, r)), axis=3)[..., :s], axis=3)
    D = rng.standard_normal((1, q, r, spec.block_cols), np.float32)
    val = rng.standard_normal((1, q, m, s), np.float32)
    return DSFactors(D=D, idx=places.astype(np.uint8 if r <= 256 else np.int16), val=val, history=np.zeros(0))
