"""Block-diagonal and Monarch products against torch.bmm and a dense product, float32, on square layers.

"one" is a single block-diagonal matrix, "two" the Monarch product of two with the permutation between them. The peer
"torch.bmm" does the same with batched products and reorders by view and transpose, as the paper's authors publish it;
"torch dense" multiplies with a full matrix of the layer's size.
"""

from functools import cache, partial

import numpy as np

from workbench.bench.timing import Bench, Case, CaseSpec, Contender, Goal, Peer

TOLERANCE = 2e-5
ROWS = (1, 32, 512)
QUICK = ((384, 4), (1024, 32))
SUITE = ((384, 4), (384, 16), (1024, 4), (1024, 32), (4096, 4), (4096, 64))


def blocks(n, count, seed=0) -> np.ndarray:
    """Draw ``count`` square blocks of a layer of width n."""
    side = n // count
    return np.random.default_rng(seed).standard_normal((count, side, side)).astype(np.float32) / side**0.5


@cache
def _load_torch():
    import torch

    return torch


def _ours(x, weights):
    from kernels.transforms.block_diagonal import block_diagonal_multiply
    from kernels.transforms.monarch import monarch_multiply

    return partial(block_diagonal_multiply if len(weights) == 1 else monarch_multiply, x, *weights)


def _batched(x, weights):
    torch = _load_torch()
    given, parts = torch.from_numpy(x), [torch.from_numpy(w).transpose(1, 2) for w in weights]
    rows, n = x.shape

    def one():
        first = torch.bmm(given.view(rows, len(parts[0]), -1).transpose(0, 1), parts[0])  # (blocks, rows, side)
        return first.transpose(0, 1).reshape(rows, n).numpy()

    def two():
        first = torch.bmm(given.view(rows, len(parts[0]), -1).transpose(0, 1), parts[0]).transpose(0, 1)
        turned = first.reshape(rows, -1, len(parts[1])).permute(2, 0, 1)
        return torch.bmm(turned, parts[1]).permute(1, 2, 0).reshape(rows, n).numpy()

    return one if len(parts) == 1 else two


def _dense(x, weights):
    torch = _load_torch()
    n = x.shape[1]
    full = torch.from_numpy(np.random.default_rng(2).standard_normal((n, n)).astype(np.float32))
    right = torch.from_numpy(x)
    return lambda: (right @ full.T).numpy()


CONTENDERS = {"torch.bmm": _batched, "torch dense": _dense}
PEERS = tuple(Peer(name, _load_torch, "pip install torch==2.13.0") for name in CONTENDERS)


def _set_threads(threads, loaded):
    import kernels

    kernels.set_num_threads(threads)
    _load_torch().set_num_threads(threads)


def _checker(x, weights):
    from kernels.transforms.block_diagonal import block_chain_multiply_reference

    want = block_chain_multiply_reference(x, weights, [1, len(weights[-1])][: len(weights)])
    size = float(np.abs(want).max())

    def check(name, result):
        if result.shape != want.shape or result.dtype != np.float32:
            raise ValueError(f"result is {result.shape} {result.dtype}, wanted {want.shape} float32")
        worst = float(np.abs(result - want).max()) / size
        if name != "torch dense" and not worst <= TOLERANCE:  # which multiplies with a matrix of its own
            raise ValueError(f"values differ from float64 by {worst:.1e}, tolerance {TOLERANCE:.0e}")

    return check


def _build(n, count, rows, factors, threads, loaded):
    weights = [blocks(n, count, seed) for seed in range(factors)]
    x = np.random.default_rng(9).standard_normal((rows, n)).astype(np.float32)
    contenders = [Contender("ours", _ours(x, weights), threads, ours=True)]
    contenders += [Contender(name, CONTENDERS[name](x, weights), threads) for name in loaded]
    size = sum(w.size for w in weights)
    return Case(
        work=2.0 * rows * size,
        work_unit="flop",
        contenders=tuple(contenders),
        check=_checker(x, weights),
        flops=2.0 * rows * size,
        bytes=4.0 * (size + 2 * rows * n),
        dtype="float32",
        facts={"width": n, "blocks": count, "rows": rows, "factors": factors},
        result_bytes=4 * rows * n,
    )


def _specs(quick, threads, loaded):
    return [
        CaseSpec(
            f"{name}/{n}/{count}/{rows}",
            f"{name}, {rows} rows",
            partial(_build, n, count, rows, factors, threads, tuple(loaded)),
        )
        for factors, name in ((1, "one"), (2, "two"))
        for rows in ROWS
        for n, count in (QUICK if quick else SUITE)
    ]


BENCH = Bench(
    key="block_diagonal",
    title="Block-diagonal and Monarch products",
    peers=PEERS,
    specs=_specs,
    set_threads=_set_threads,
    own_process=True,
    goals=tuple(Goal(f"{name}, {rows} rows", "torch.bmm", 1.5) for name in ("one", "two") for rows in ROWS),
)
