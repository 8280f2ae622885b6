"""One step of decoding over a cache in 2 or 4 bits, with low rank and outliers, against dense attention in torch.

Shapes are those of one layer: 32 heads of 128 channels (as in LLaMA-2 7B), and 8 that serve 32 queries (as in Mistral
7B). Keys and values are normal, with some channels that are ten times as large, as in language models. Dense SDPA
computes on the uncompressed cache, the others on what the compressed one stands for: each is checked against float64 on
its own. A contender that makes the cache dense first does that in every step.
"""

from functools import cache, partial

import numpy as np

from workbench.bench.skinny_spmm import PEERS as SKINNY_PEERS
from workbench.bench.timing import Bench, Case, CaseSpec, Contender, Goal, Peer

WIDTH, QUERIES = 128, 32
DENSE, BF16, UNPACKED = "SDPA f32", "SDPA bf16", "made dense, then SDPA"
TOLERANCE = {BF16: 3e-2}  # of the largest number; others as float32 allows
BITS = (2, 4)
SHAPES = ((512, 32), (4096, 32), (4096, 8), (32768, 8))  # (tokens, heads of keys)
QUICK = ((512, 8), (4096, 8))


@cache
def _load_torch():
    import torch

    return torch


def layer(tokens, heads, seed=0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw q (1, queries, 1, d) and keys and values (1, heads, tokens, d), float32; every 16th channel is large."""
    rng = np.random.default_rng(seed)
    q = rng.standard_normal((1, QUERIES, 1, WIDTH), dtype=np.float32)
    k, v = (rng.standard_normal((1, heads, tokens, WIDTH), dtype=np.float32) for _ in range(2))
    k[..., ::16] *= 10
    return q, k.astype(np.float16).astype(np.float32), v.astype(np.float16).astype(np.float32)


def by_head(q, heads) -> np.ndarray:
    """Return q (1, queries, 1, d) as (1, heads, queries of a head, d): torch reads each head's keys once that way."""
    return q.reshape(1, heads, q.shape[1] // heads, q.shape[3])


def _sdpa(q, k, v, dtype):
    torch = _load_torch()
    own, rows, k, v = q.shape, by_head(q, k.shape[1]), *(torch.from_numpy(x).to(dtype) for x in (k, v))
    attend = torch.nn.functional.scaled_dot_product_attention
    rows = torch.from_numpy(rows).to(dtype)
    return lambda: attend(rows, k, v).float().numpy().reshape(own)


def _unpacked(q, cache):
    torch = _load_torch()
    attend, rows = torch.nn.functional.scaled_dot_product_attention, by_head(q, cache.recent("key").shape[1])

    def run():
        k, v = (torch.from_numpy(cache.dense(kind)) for kind in ("key", "value"))
        return attend(torch.from_numpy(rows), k, v).numpy().reshape(q.shape)

    return run


def _wanted(q, k, v):
    share = q.shape[1] // k.shape[1]
    out = np.empty(q.shape)
    for h in range(q.shape[1]):
        scores = k[0, h // share].astype(np.float64) @ q[0, h, 0] / WIDTH**0.5
        weights = np.exp(scores - scores.max())
        out[0, h, 0] = weights @ v[0, h // share] / weights.sum()
    return out


def _build(tokens, heads, bits, threads, loaded):
    from kernels.attention.quantised_decode import quantised_decode_work
    from workbench.models.compression.gear import GearCache, GearConfig

    q, k, v = layer(tokens, heads)
    held = GearCache(GearConfig(bits=bits))
    held.prefill(k, v)
    right = {"dense": _wanted(q, k, v), "compressed": _wanted(q, held.dense("key"), held.dense("value"))}
    torch = _load_torch()
    made = {
        DENSE: lambda: _sdpa(q, k, v, torch.float32),
        BF16: lambda: _sdpa(q, k, v, torch.bfloat16),
        UNPACKED: lambda: _unpacked(q, held),
    }

    def check(name, result):
        want = right["dense" if name in (DENSE, BF16) else "compressed"]
        worst, allowed = float(np.abs(result - want).max() / np.abs(want).max()), TOLERANCE.get(name, 1e-4)
        if not worst <= allowed:
            raise ValueError(f"values differ from float64 by {worst:.1e}, tolerance {allowed:.0e}")

    work = quantised_decode_work(QUERIES, held.blocks("key"), held.blocks("value"), held.recent("key"))
    return Case(
        work=float(tokens),
        work_unit="token",
        contenders=(
            Contender("ours", lambda: held.attend(q), threads, ours=True),
            *(Contender(name, made[name](), threads) for name in loaded),
        ),
        check=check,
        flops=float(work.flops),
        bytes=float(work.bytes_streamed),
        dtype="float32",
        facts={
            "tokens": tokens, "heads": heads, "queries": QUERIES, "d": WIDTH, "bits": bits,
            "bytes": held.nbytes(), "share of f32 bytes": round(held.nbytes() / (2 * k.nbytes), 4),
        },
        result_bytes=q.nbytes,
    )  # fmt: skip


def _set_threads(threads, loaded):
    import kernels

    kernels.set_num_threads(threads)
    if loaded:
        _load_torch().set_num_threads(threads)


def _specs(quick, threads, loaded):
    return [
        CaseSpec(
            f"{tokens}x{heads}/{bits}bit",
            f"{tokens:,} tokens, {bits} bits",
            partial(_build, tokens, heads, bits, threads, tuple(loaded)),
        )
        for bits in BITS
        for tokens, heads in (QUICK if quick else SHAPES)
    ]


CURE = "pip install torch==2.13.0"
BENCH = Bench(
    key="quantised_decode",
    title="One decoding step over a compressed cache",
    peers=(
        Peer(DENSE, _load_torch, CURE),
        Peer(BF16, SKINNY_PEERS[1].load, SKINNY_PEERS[1].cure),
        Peer(UNPACKED, _load_torch, CURE),
    ),
    specs=_specs,
    set_threads=_set_threads,
    own_process=True,
    goals=tuple(
        Goal(f"{tokens:,} tokens, {bits} bits", DENSE, least)
        for bits in BITS
        for tokens, least in ((4096, 1.0), (32768, 2.0))
    ),
)
