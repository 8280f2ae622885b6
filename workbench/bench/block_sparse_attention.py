"""Block-sparse attention against torch: compiled flex_attention with the same block mask, and dense SDPA.

Causal, float32, 8 heads of 64; a random block mask of the wanted density that always holds the diagonal and block
column 0. Forward, and forward with backward. Dense SDPA does more than is asked: its result is checked against dense
attention. On CPUs torch's flex_attention has no backward pass; where it gets one, it takes part.
"""

from functools import cache, partial

import numpy as np

from kernels.attention.cost import kept_pairs, pair_share
from workbench.bench.timing import Bench, Case, CaseSpec, Contender, Goal, Peer

HEADS, WIDTH = 8, 64
DENSITIES = (0.05, 0.1, 0.2, 0.5, 0.9, 1.0)
TOLERANCE = 1e-5
CHECKED_ROWS = 32


def causal_block_mask(t, block, density, *, heads=HEADS, seed=0) -> np.ndarray:
    """Draw the mask, (1, heads, n, n) bool: on and below the diagonal, each block with probability ``density``."""
    n = -(-t // block)
    keep = np.random.default_rng(seed).random((1, heads, n, n)) < density
    keep[..., 0] = True
    return (keep | np.eye(n, dtype=bool)) & np.tri(n, dtype=bool)


def _causal(b, h, q, k):
    return q >= k


@cache
def _load_torch():
    import torch

    return torch


@cache
def _load_flex():
    """Return the module once a compiled call has worked: it needs a C++ compiler at run time."""
    from torch.nn.attention import flex_attention as flex

    torch = _load_torch()
    x = torch.zeros(1, 1, 128, 16)
    torch.compile(flex.flex_attention)(x, x, x, block_mask=_flex_mask(flex, np.ones((1, 1, 2, 2), bool), 64, 128))
    return flex


@cache
def _flex_has_backward():
    flex, torch = _load_flex(), _load_torch()
    x = torch.zeros(1, 1, 128, 16, requires_grad=True)
    mask = _flex_mask(flex, np.ones((1, 1, 2, 2), bool), 64, 128)
    try:
        torch.compile(flex.flex_attention)(x, x, x, block_mask=mask).sum().backward()
    except NotImplementedError:
        return False
    return True


def _flex_mask(flex, keep, block, t):
    """Return the same mask in flex_attention's form: off-diagonal blocks are full, those on the diagonal partial."""
    torch = _load_torch()
    diagonal = np.eye(keep.shape[2], dtype=bool)

    def listed(blocks):
        blocks = torch.from_numpy(np.tril(blocks)).to(torch.int32)
        return blocks.sum(-1).to(torch.int32), torch.argsort(blocks, dim=-1, descending=True, stable=True).to(
            torch.int32
        )

    return flex.BlockMask.from_kv_blocks(
        *listed(keep & diagonal), *listed(keep & ~diagonal), BLOCK_SIZE=block, mask_mod=_causal, seq_lengths=(t, t)
    )


def _ours(given, keep, block, backward):
    from kernels.attention.block_sparse import block_sparse_attention, block_sparse_attention_backward

    q, k, v, grad = given
    how = {"block_size": block, "causal": True}

    def forward():
        return (block_sparse_attention(q, k, v, keep, **how),)

    def both():
        out, lse = block_sparse_attention(q, k, v, keep, return_lse=True, **how)
        return out, *block_sparse_attention_backward(q, k, v, keep, out, lse, grad, **how)

    return both if backward else forward


def _flex(given, keep, block, backward):
    flex, torch = _load_flex(), _load_torch()
    torch._dynamo.reset()  # else the ninth shape falls back to the uncompiled form
    mask = _flex_mask(flex, keep, block, given[0].shape[2])
    return _torch_run(partial(torch.compile(flex.flex_attention, dynamic=False), block_mask=mask), given, backward)


def _sdpa(given, keep, block, backward):
    return _torch_run(
        partial(_load_torch().nn.functional.scaled_dot_product_attention, is_causal=True), given, backward
    )


def _torch_run(attend, given, backward):
    torch = _load_torch()
    *inputs, grad = (torch.from_numpy(x) for x in given)
    for x in inputs:
        x.requires_grad_(backward)

    def forward():
        with torch.no_grad():
            return (attend(*inputs).numpy(),)

    def both():
        out = attend(*inputs)
        return out.detach().numpy(), *(g.numpy() for g in torch.autograd.grad(out, inputs, grad))

    return both if backward else forward


DENSE = "SDPA dense"
CONTENDERS = {DENSE: _sdpa, "flex_attention": _flex}
PEERS = (
    Peer(DENSE, _load_torch, "pip install torch==2.13.0"),
    Peer("flex_attention", _load_flex, "pip install torch==2.13.0, and a C++ compiler on the path"),
)


def _rows_of(q, k, v, allowed, rows):
    """Compute attention of some query rows of one head in float64: (rows, d), and the weights (rows, t)."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    logits = np.where(allowed, q[rows] @ k.T * WIDTH**-0.5, -np.inf)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights @ v, weights


def _allowed(keep, block, rows, t):
    return np.repeat(keep[rows // block], block, axis=1)[:, :t] & (np.arange(t) <= rows[:, None])


def _gradients(q, k, v, grad, keep, block, chunk=512):
    """Compute dq, dk, dv of one head in float64, some rows at a time."""
    q, k, v, grad = (np.asarray(x, np.float64) for x in (q, k, v, grad))
    dq, dk, dv = np.zeros_like(q), np.zeros_like(q), np.zeros_like(q)
    for first in range(0, len(q), chunk):
        rows = np.arange(first, min(first + chunk, len(q)))
        out, weights = _rows_of(q, k, v, _allowed(keep, block, rows, len(q)), rows)
        dv += weights.T @ grad[rows]
        inner = weights * (grad[rows] @ v.T - (grad[rows] * out).sum(axis=1, keepdims=True)) * WIDTH**-0.5
        dq[rows] = inner @ k
        dk += inner.T @ q[rows]
    return dq, dk, dv


def _checker(given, keep, block, backward):
    """Check some rows of every head's output, and with ``backward`` all gradients of the last head."""
    q, k, v = given[:3]
    heads, t = q.shape[1:3]
    rows = np.sort(np.random.default_rng(1).choice(t, min(CHECKED_ROWS, t), replace=False))

    @cache
    def wanted(dense):
        mask = np.tri(keep.shape[2], dtype=bool)[None, None].repeat(heads, 1) if dense else keep
        out = np.stack(
            [_rows_of(q[0, h], k[0, h], v[0, h], _allowed(mask[0, h], block, rows, t), rows)[0] for h in range(heads)]
        )
        last = [x[0, -1] for x in given]
        return out, _gradients(*last, mask[0, -1], block) if backward else ()

    def check(name, result):
        out, gradients = wanted(name == DENSE)
        got = [result[0][0][:, rows], *(x[0, -1] for x in result[1:])]
        for label, ours, right in zip(("out", "dq", "dk", "dv"), got, (out, *gradients), strict=len(got) > 1):
            worst = float(np.abs(ours - right).max()) / max(1.0, float(np.abs(right).max()))
            if not worst <= TOLERANCE:
                raise ValueError(f"{label} differs from float64 by {worst:.1e}, tolerance {TOLERANCE:.0e}")
        if not all(np.isfinite(x).all() for x in result):
            raise ValueError("the result holds NaN or infinity")

    return check


def _flops(keep, t, block, backward):
    """Count what must be computed: pairs of kept blocks on or below the diagonal; 2 products forward, 5 backward."""
    return float(kept_pairs(keep, t, block_size=block, causal=True)) * 2 * WIDTH * (7 if backward else 2)


def _build(t, block, density, backward, threads, loaded, heads=HEADS):
    rng = np.random.default_rng(t + block)
    given = tuple(rng.standard_normal((1, heads, t, WIDTH), dtype=np.float32) for _ in range(4))
    keep = causal_block_mask(t, block, density, heads=heads)
    facts = {
        "t": t,
        "block": block,
        "heads": heads,
        "d": WIDTH,
        "density": round(pair_share(keep, t, block_size=block, causal=True), 4),
    }
    contenders = [Contender("ours", _ours(given, keep, block, backward), threads, ours=True)]
    for name in loaded:
        if backward and name == "flex_attention" and not _flex_has_backward():
            facts["flex_attention"] = "has no backward pass on CPUs"
            continue
        contenders.append(Contender(name, CONTENDERS[name](given, keep, block, backward), threads))
    arrays = 8 if backward else 4  # q, k, v, out; and their gradients
    flops = _flops(keep, t, block, backward)
    return Case(
        work=flops,
        work_unit="flop",
        contenders=tuple(contenders),
        check=_checker(given, keep, block, backward),
        flops=flops,
        bytes=float(arrays * given[0].nbytes),
        dtype="float32",
        facts=facts,
        result_bytes=given[0].nbytes * (4 if backward else 1),
    )


def _set_threads(threads, loaded):
    import kernels

    kernels.set_num_threads(threads)
    if loaded:
        _load_torch().set_num_threads(threads)


SHAPES = {  # (tokens, block size)
    "forward": ((1024, 64), (4096, 64), (4096, 128), (8192, 64), (16384, 64)),
    "backward": ((1024, 64), (4096, 64)),
}
QUICK_SHAPES = {"forward": ((1024, 64), (4096, 64)), "backward": ((1024, 64),)}


def _specs(quick, threads, loaded):
    specs = []
    for direction, shapes in (QUICK_SHAPES if quick else SHAPES).items():
        for density in (0.05, 0.2) if quick else DENSITIES:
            for t, block in shapes:
                build = partial(_build, t, block, density, direction == "backward", threads, tuple(loaded))
                specs.append(
                    CaseSpec(f"{t}x{block}/{density:g}/{direction}", f"{direction}, density {density:g}", build)
                )
    return specs


BENCH = Bench(
    key="block_sparse_attention",
    title="Block-sparse attention, causal, float32; backward includes the forward pass",
    peers=PEERS,
    specs=_specs,
    set_threads=_set_threads,
    goals=tuple(
        goal
        for density in DENSITIES
        for goal in (
            Goal(f"forward, density {density:g}", "flex_attention", 1.3),
            Goal(f"forward, density {density:g}", "lowest", 1.0),
        )
    ),
)
