"""AdamW on chosen entries of a weight against dense AdamW with a mask, and against torch's on gathered vectors.

"dense masked" keeps moments for all entries, masks the gradients, and puts entries that were not chosen back after the
step, as decay would move them. "gathered" takes the chosen gradients out, steps a vector with torch's fused AdamW, and
writes it back. Every contender goes on from where it stands: a step takes as long whatever the numbers are.
"""

from functools import cache, partial

import numpy as np

from workbench.bench.timing import Bench, Case, CaseSpec, Contender, Goal, Peer

RATE, DECAY, TOLERANCE = 1e-3, 1e-2, 1e-5
QUICK = ((512, 2048),)
SUITE = ((256, 256), (512, 2048), (3072, 4096))
DENSITIES = (0.02, 0.1, 0.2)


@cache
def _load_torch():
    import torch

    return torch


def draw(m, n, density, seed=0):
    """Draw a weight, a gradient, and the places of the weights closest to zero."""
    rng = np.random.default_rng(seed)
    weights, gradients = (rng.standard_normal((m, n)).astype(np.float32) for _ in range(2))
    k = round(density * weights.size)
    index = np.sort(np.argpartition(np.abs(weights).reshape(-1), k)[:k]).astype(np.int32)
    return weights, gradients, index


def _ours(weights, gradients, index):
    from kernels.optim.selected_adamw import selected_adamw

    own, first, second = weights.copy(), *np.zeros((2, len(index)), np.float32)
    steps = iter(range(1, 2**62))

    def run():
        selected_adamw(own, gradients, index, first, second, step=next(steps), rate=RATE, weight_decay=DECAY)
        return own

    return run


def _dense_masked(weights, gradients, index):
    torch = _load_torch()
    p = torch.nn.Parameter(torch.from_numpy(weights.copy()))
    mask = torch.zeros(p.numel(), dtype=torch.bool)
    mask[torch.from_numpy(index).long()] = True
    mask = mask.view(p.shape)
    begin, given = torch.from_numpy(weights), torch.from_numpy(gradients)
    optimizer = torch.optim.AdamW([p], lr=RATE, weight_decay=DECAY, fused=True)

    def run():
        p.grad = given * mask
        optimizer.step()
        with torch.no_grad():
            p.copy_(torch.where(mask, p, begin))
        return p.detach().numpy()

    return run


def _gathered(weights, gradients, index):
    torch = _load_torch()
    own, places, given = torch.from_numpy(weights.copy()), torch.from_numpy(index).long(), torch.from_numpy(gradients)
    p = torch.nn.Parameter(own.view(-1)[places])
    optimizer = torch.optim.AdamW([p], lr=RATE, weight_decay=DECAY, fused=True)

    def run():
        p.grad = given.view(-1)[places]
        optimizer.step()
        own.view(-1)[places] = p.detach()
        return own.numpy()

    return run


CONTENDERS = {"dense masked": _dense_masked, "gathered": _gathered}
PEERS = tuple(Peer(name, _load_torch, "pip install torch==2.13.0") for name in CONTENDERS)


def _set_threads(threads, loaded):
    import kernels

    kernels.set_num_threads(threads)
    _load_torch().set_num_threads(threads)


def _checker(weights, gradients, index):
    """Return a check of the first step, which is known; what was not chosen must be as before."""
    from kernels.optim.selected_adamw import selected_adamw_reference

    zeros = np.zeros(len(index))
    want = selected_adamw_reference(weights, gradients, index, zeros, zeros, 1, RATE, weight_decay=DECAY)[0]
    others = np.ones(weights.size, bool)
    others[index] = False

    def check(name, result):
        if result.shape != want.shape or result.dtype != np.float32:
            raise ValueError(f"result is {result.shape} {result.dtype}, wanted {want.shape} float32")
        if not np.array_equal(result.reshape(-1)[others], weights.reshape(-1)[others]):
            raise ValueError("a weight that was not chosen has moved")
        worst = float(np.abs(result - want).max()) if want.size else 0.0
        if not worst <= TOLERANCE:
            raise ValueError(f"values differ from float64 by {worst:.1e}, tolerance {TOLERANCE:.0e}")

    return check


def _build(m, n, density, threads, loaded):
    weights, gradients, index = draw(m, n, density)
    contenders = [Contender("ours", _ours(weights, gradients, index), threads, ours=True)]
    contenders += [Contender(name, CONTENDERS[name](weights, gradients, index), threads) for name in loaded]
    return Case(
        work=float(len(index)),
        work_unit="entry",
        contenders=tuple(contenders),
        check=_checker(weights, gradients, index),
        flops=16.0 * len(index),
        bytes=4.0 * 7 * len(index) + 4.0 * len(index),
        dtype="float32",
        facts={"rows": m, "columns": n, "entries": len(index), "state_bytes": 8 * len(index),
               "dense_state_bytes": 8 * weights.size},
        result_bytes=weights.nbytes,
    )  # fmt: skip


def _specs(quick, threads, loaded):
    return [
        CaseSpec(f"{m}x{n}/{density}", f"{density:g} chosen", partial(_build, m, n, density, threads, tuple(loaded)))
        for density in DENSITIES
        for m, n in (QUICK if quick else SUITE)
    ]


BENCH = Bench(
    key="selected_adamw",
    title="AdamW on chosen entries of a weight",
    peers=PEERS,
    specs=_specs,
    set_threads=_set_threads,
    own_process=True,
    goals=tuple(Goal(f"{density:g} chosen", "dense masked", 2.0) for density in DENSITIES),
)
