"""The products of one transformer block for few and many tokens: dense, low rank, dictionary with sparse codes."""

from functools import partial

import numpy as np
import torch

import kernels
from kernels.factor.codes import SparseCodes
from kernels.factor.svd import rank_for_ratio
from workbench.machines.stopwatch import measure
from workbench.models.compression.cospadi import solve_k_s
from workbench.models.compression.dictionary_linear import SparseDictLinear
from workbench.paper import row

TIME = "time of the products of a block"
DENSE, LOW, OURS = "dense", "low rank", "dictionary and sparse codes"
RATIOS = {"tiny": (0.3,), "small": (0.3,), "full": (0.2, 0.3, 0.4)}
TOKENS = {"tiny": (1,), "small": (1, 32), "full": (1, 32, 512)}
WIDTHS = {"tiny": (64,), "small": (384,), "full": (384, 1024)}
ROUNDS = {"tiny": 1, "small": 3, "full": 7}


def products(size, seed, report):
    """Time the six products of a block of random weights, each way; which values they have does not matter."""
    rows, threads, before = [], kernels.get_num_threads(), torch.get_num_threads()
    cases = [(width, ratio, tokens) for width in WIDTHS[size] for ratio in RATIOS[size] for tokens in TOKENS[size]]
    torch.set_num_threads(threads)
    try:
        for i, (width, ratio, tokens) in enumerate(cases):
            report(i / len(cases), f"width {width}, {ratio:.0%} gone, {tokens} tokens")
            runs = _runs(width, ratio, tokens, seed)
            with torch.inference_mode():
                found = measure(runs, rounds=ROUNDS[size])
            for name, timing in found.items():
                labels = {"run": name, "width": width, "ratio": ratio, "tokens": tokens, "threads": threads}
                labels["spread_ms"] = 1e3 * timing.spread_s
                rows.append(row(TIME, 1e3 * timing.median_s, "ms", "measured", **labels))
    finally:
        torch.set_num_threads(before)
    return rows


def _runs(width, ratio, tokens, seed):
    """Return name -> function that multiplies with the six matrices of a block."""
    rng, runs = np.random.default_rng(seed), {DENSE: [], LOW: [], OURS: []}
    for m, n in [(width, width)] * 4 + [(4 * width, width), (width, 4 * width)]:
        x = torch.from_numpy(rng.standard_normal((tokens, n), np.float32))
        weight, rank = _normal(rng, m, n), rank_for_ratio(ratio, (m, n))
        left, right = _normal(rng, m, rank), _normal(rng, rank, n)
        layer = random_layer(m, n, *solve_k_s(ratio, n, m), rng)
        runs[DENSE].append(partial(torch.nn.functional.linear, x, weight))
        runs[LOW].append(partial(_low_rank, x, left, right))
        runs[OURS].append(partial(layer, x))
    return {name: partial(_all, calls) for name, calls in runs.items()}


def random_layer(m, n, k, s, rng) -> SparseDictLinear:
    """Return a layer of random atoms and of codes at random places."""
    indices = np.argsort(rng.random((m, k)), axis=1)[:, :s].astype(np.int32)
    values = rng.standard_normal((m, s)).astype(np.float32)
    codes = SparseCodes(indices=indices, values=values, counts=np.full(m, s, np.int32), atoms=k)
    return SparseDictLinear.from_codes(rng.standard_normal((n, k)).astype(np.float32), codes)


def _normal(rng, m, n):
    return torch.from_numpy(rng.standard_normal((m, n), np.float32))


def _low_rank(x, left, right):
    return torch.nn.functional.linear(torch.nn.functional.linear(x, right), left)


def _all(calls):
    for call in calls:
        call()
