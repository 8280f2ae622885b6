"""The products of one transformer block for few and many tokens: dense, 2:4, and 2:4 between the wrappers."""

from functools import partial

import numpy as np
import torch

import kernels
from kernels.formats.nm_packed import NMPacked
from kernels.masks.nm import nm_mask
from kernels.matmul.nm_spmm import nm_spmm
from kernels.matmul.wrapped_nm_spmm import wrapped_nm_spmm
from workbench.machines.stopwatch import measure
from workbench.paper import row

TIME, BYTES = "time of the products of a block", "bytes that the products of a block read"
DENSE, NM, OURS = "dense", "2:4", "2:4 between wrappers"
TOKENS = {"tiny": (1,), "small": (1, 32), "full": (1, 32, 512)}
WIDTHS = {"tiny": (64,), "small": (384,), "full": (384, 1024)}
BLOCK = {64: 16, 384: 32, 1024: 64}  # side of the wrappers' blocks: a twelfth to a sixteenth of the width
ROUNDS = {"tiny": 1, "small": 3, "full": 7}


def products(size, seed, report):
    """Time the six products of a block of random weights, each way; which values they have does not matter."""
    rows, threads, before = [], kernels.get_num_threads(), torch.get_num_threads()
    cases = [(width, tokens) for width in WIDTHS[size] for tokens in TOKENS[size]]
    torch.set_num_threads(threads)
    try:
        for i, (width, tokens) in enumerate(cases):
            report(i / len(cases), f"width {width}, {tokens} tokens")
            runs, read = _runs(width, tokens, seed)
            labels = {"width": width, "block": BLOCK[width], "tokens": tokens, "threads": threads}
            with torch.inference_mode():
                found = measure(runs, rounds=ROUNDS[size])
            for name, timing in found.items():
                spread = {"spread_ms": 1e3 * timing.spread_s}
                rows.append(row(TIME, 1e3 * timing.median_s, "ms", "measured", run=name, **labels, **spread))
                rows.append(row(BYTES, read[name], "bytes", "counted", run=name, **labels))
    finally:
        torch.set_num_threads(before)
    return rows


def _runs(width, tokens, seed):
    """Return name -> function that multiplies with the six matrices of a block, and name -> bytes of the weights."""
    rng, runs, read = np.random.default_rng(seed), {DENSE: [], NM: [], OURS: []}, dict.fromkeys((DENSE, NM, OURS), 0)
    for m, n in [(width, width)] * 4 + [(4 * width, width), (width, 4 * width)]:
        x, weight = _normal(rng, n, tokens), _normal(rng, m, n)
        core, side = NMPacked.from_dense(weight * nm_mask(np.abs(weight), 2, 4), 2, 4), BLOCK[width]
        left, right = (_normal(rng, size // side, side, side) for size in (m, n))
        runs[DENSE].append(partial(torch.matmul, torch.from_numpy(weight), torch.from_numpy(x)))
        runs[NM].append(partial(nm_spmm, core, x))
        runs[OURS].append(partial(wrapped_nm_spmm, core, x, left=left, right=right))
        read[DENSE] += weight.nbytes
        read[NM] += core.nbytes
        read[OURS] += core.nbytes + left.nbytes + right.nbytes
    return {name: partial(_all, calls) for name, calls in runs.items()}, read


def _normal(rng, *shape):
    return rng.standard_normal(shape, np.float32)


def _all(calls):
    for call in calls:
        call()
