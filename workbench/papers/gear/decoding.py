"""Time of one decoding step over compressed caches of large models' shapes, beside dense attention."""

from functools import partial

import numpy as np
import torch

import kernels
from workbench.machines.stopwatch import measure
from workbench.models.compression.gear import GearCache
from workbench.paper import row
from workbench.papers.gear.errors import generated
from workbench.papers.gear.variants import GEAR, LOW_RANK, PLAIN, config

SHAPES = {  # tokens, heads of keys; 32 queries
    "tiny": ((192, 2),),
    "small": ((1024, 8),),
    "full": ((4096, 32), (4096, 8), (16384, 8), (32768, 8)),
}
ROUNDS = {"tiny": 1, "small": 5, "full": 7}
QUERIES = {"tiny": 4, "small": 32, "full": 32}
DENSE32, DENSE16 = "dense, 32 bits", "dense, bfloat16"
CACHES = {f"{bits} bits, {method}": ("kivi", bits, method) for bits in (2, 4) for method in (PLAIN, LOW_RANK, GEAR)}


def decoding(size, seed, report):
    """Time all contenders of each shape in turn."""
    threads, before, rows = kernels.get_num_threads(), torch.get_num_threads(), []
    torch.set_num_threads(threads)
    try:
        for place, (tokens, heads) in enumerate(SHAPES[size]):
            report(place / len(SHAPES[size]), f"{tokens:,} tokens, {heads} heads")
            rows += _timed(tokens, heads, size, seed, {"threads": threads, "rounds": ROUNDS[size]})
    finally:
        torch.set_num_threads(before)
    return rows


def _timed(tokens, heads, size, seed, labels):
    _, k, v = generated(tokens, heads, seed=seed)
    q = np.random.default_rng(seed).standard_normal((1, QUERIES[size], 1, k.shape[3]), np.float32)
    calls, held = _contenders(q, k, v, tiny=size == "tiny")
    labels = labels | {"tokens": tokens, "heads": heads, "queries": q.shape[1], "width": k.shape[3]}
    rows = []
    for name, timing in measure(calls, rounds=labels["rounds"]).items():
        spread = {"contender": name, "spread_ms": 1e3 * timing.spread_s, "cache_bytes": held[name]}
        rows.append(row("time of a step", 1e3 * timing.median_s, "ms", "measured", **spread, **labels))
    return rows


def _contenders(q, k, v, tiny):
    """Return name -> call, and name -> bytes of its cache."""
    attend = torch.nn.functional.scaled_dot_product_attention
    calls, held = {}, {}
    for name, dtype in ((DENSE32, torch.float32), (DENSE16, torch.bfloat16)):
        rows = q.reshape(1, k.shape[1], -1, q.shape[3])  # queries of a head together, so that its keys are read once
        given = [torch.from_numpy(x).to(dtype) for x in (rows, k, v)]
        calls[name] = partial(attend, *given)
        held[name] = 2 * k.size * given[0].element_size()
    for name, (backbone, bits, method) in list(CACHES.items())[: 3 if tiny else None]:
        cache = GearCache(config(backbone, bits, method))
        cache.prefill(k, v)
        calls[name], held[name] = partial(cache.attend, q), cache.nbytes()
    return calls, held
