"""The best keys of every query by product quantisation, against exact scores and against counts by one-hot products.

Every contender is handed queries and keys as they come from a layer, 64 numbers each, and chooses an eighth of the keys
for each query under the causal rule. Ours names codewords and counts; torch multiplies all queries with all keys and
takes the largest scores, which is another choice (the exact one); the third counts matches as a product of one-hot
codes, and takes the largest counts, by torch as well.
"""

from functools import partial

import numpy as np

from workbench.bench import topk
from workbench.bench.timing import Bench, Case, CaseSpec, Contender, Goal, Peer

WIDTH, SUBSPACES, WORDS, SHARE = 64, 8, 16, 8
EXACT, ONE_HOT = "torch q k^T, then topk", "torch one-hot product, then topk"
QUICK = ((2, 512),)
SUITE = ((8, 1024), (2, 4096), (1, 16384))


def _torch():
    import torch

    return torch


def _ours(q, k, book, L):
    from kernels.masks.pq_topk import pq_encode, pq_topk

    def run():
        qc, kc = (pq_encode(x.reshape(-1, WIDTH), book).reshape(*x.shape[:2], SUBSPACES) for x in (q, k))
        return pq_topk(qc, kc, L)[0]

    return run


def _largest(torch, scores, hidden, L):
    """Return int32 places of the L largest scores of every row, -1 where a row sees fewer."""
    best = scores.masked_fill_(hidden, -torch.inf).topk(L, dim=-1)
    return best.indices.to(torch.int32).masked_fill_(best.values == -torch.inf, -1).numpy()


def _exact(q, k, book, L):
    torch = _torch()
    left, right = map(torch.from_numpy, (q, k))
    hidden = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).triu(1)
    return lambda: _largest(torch, left @ right.mT, hidden, L)


def _one_hot(q, k, book, L):
    torch = _torch()
    left, right, words = (torch.from_numpy(x) for x in (q, k, book))
    hidden = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).triu(1)

    def coded(x):
        parts = x.view(-1, SUBSPACES, book.shape[2]).transpose(0, 1)
        codes = torch.cdist(parts, words, p=1).argmin(-1).T
        return torch.nn.functional.one_hot(codes, WORDS).float().view(*x.shape[:2], SUBSPACES * WORDS)

    return lambda: _largest(torch, coded(left) @ coded(right).mT, hidden, L)


CONTENDERS = {EXACT: _exact, ONE_HOT: _one_hot}
PEERS = tuple(Peer(name, topk.PEERS[1].load, topk.PEERS[1].cure) for name in CONTENDERS)


def _checker(q, k, book, L):
    from kernels.masks.pq_topk import match_counts, pq_encode

    codes = [pq_encode(x.reshape(-1, WIDTH), book).reshape(*x.shape[:2], SUBSPACES) for x in (q, k)]
    step = max(1, q.shape[1] // 64)
    rows = np.arange(q.shape[1])[::step]  # some rows of each head: scores of all would not fit into memory
    counts = match_counts(np.ascontiguousarray(codes[0][:, rows]), codes[1]).astype(np.float64)
    exact = q[:, rows].astype(np.float64) @ k.astype(np.float64).transpose(0, 2, 1)

    def check(name, found):
        if found.shape != (*q.shape[:2], L) or found.dtype != np.int32:
            raise ValueError(f"places are {found.shape} {found.dtype}, wanted {(*q.shape[:2], L)} int32")
        scores, slack = (exact, 1e-4) if name == EXACT else (counts, 0.0)
        for z in range(len(found)):
            for i, row in enumerate(rows):
                places = found[z, row][found[z, row] >= 0]
                if len(set(places)) != min(L, row + 1) or places.max() > row:
                    raise ValueError(f"row {row} has {len(set(places))} keys up to {places.max()}")
                kept, seen = scores[z, i, places], np.sort(scores[z, i, : row + 1])
                if kept.min() < seen[-len(places)] - slack:
                    raise ValueError(f"row {row} keeps a key of {kept.min():g}, {seen[-len(places)]:g} is the least")

    return check


def _build(shape, threads, loaded):
    heads, t = shape
    rng = np.random.default_rng(0)
    q, k = (rng.standard_normal((heads, t, WIDTH), np.float32) for _ in range(2))
    book = rng.standard_normal((SUBSPACES, WORDS, WIDTH // SUBSPACES), np.float32)
    L = t // SHARE
    contenders = [Contender("ours", _ours(q, k, book, L), threads, ours=True)]
    contenders += [Contender(name, CONTENDERS[name](q, k, book, L), threads) for name in loaded]
    return Case(
        work=heads * t * (t + 1) / 2,
        work_unit="pair",
        contenders=tuple(contenders),
        check=_checker(q, k, book, L),
        bytes=float(q.nbytes + k.nbytes + book.nbytes + 4 * heads * t * L),
        dtype="float32",
        facts={"heads": heads, "t": t, "d": WIDTH, "L": L, "subspaces": SUBSPACES, "codewords": WORDS},
        result_bytes=4 * heads * t * L,
    )


def _specs(quick, threads, loaded):
    return [
        CaseSpec(f"{heads}x{t}", f"{t:,} tokens", partial(_build, (heads, t), threads, tuple(loaded)))
        for heads, t in (QUICK if quick else SUITE)
    ]


BENCH = Bench(
    key="pq_topk",
    title="The best keys by matching codewords",
    peers=PEERS,
    specs=_specs,
    set_threads=topk.BENCH.set_threads,
    own_process=True,
    goals=(Goal("4,096 tokens", EXACT, 4.0),),
)
