"""The Fourier transform learnt from pairs of vectors, by structures with equally many parameters."""

import numpy as np
import torch

from kernels.transforms.monarch import monarch_permutation
from workbench.models.bridge import block_chain
from workbench.paper import row

N, SIDE = 64, 8
VECTORS, BATCH, RATE = 4096, 256, 1e-2
STEPS = {"tiny": 20, "small": 1000, "full": 3000}
SEEDS = {"tiny": 1, "small": 1, "full": 3}


def learned(size, seed, report):
    """Regress the unitary transform of random complex vectors with Adam, and judge on vectors that were not seen."""
    rows = []
    for i in range(SEEDS[size]):
        for j, (name, make) in enumerate(STRUCTURES.items()):
            report((i + j / len(STRUCTURES)) / SEEDS[size], f"{name}, seed {seed + i}")
            rows += _trained(name, make, STEPS[size], seed + i)
    return rows


def _monarch(rng):
    order = torch.from_numpy(monarch_permutation(N))
    factors = [_draw(rng, (SIDE, SIDE, SIDE), SIDE) for _ in range(2)]
    return factors, lambda x: block_chain(x[:, order], [torch.view_as_complex(w) for w in factors], [1, SIDE])


def _low_rank(rng):
    factors = [_draw(rng, (N, SIDE), N), _draw(rng, (SIDE, N), SIDE)]
    return factors, lambda x: x @ torch.view_as_complex(factors[0]) @ torch.view_as_complex(factors[1])


def _block_sparse(rng):
    """Sixteen of the 64 blocks of 8 x 8, two in each block row and block column: 1,024 entries, at random places."""
    where = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    columns = rng.permutation(SIDE)
    for shift in rng.choice(SIDE, 2, replace=False):
        where[torch.arange(SIDE), torch.from_numpy((columns + shift) % SIDE)] = True
    kept = where.repeat_interleave(SIDE, 0).repeat_interleave(SIDE, 1)
    weight = _draw(rng, (N, N), 2 * SIDE)
    return [weight], lambda x: x @ (torch.view_as_complex(weight) * kept)


STRUCTURES = {"Monarch": _monarch, "low rank": _low_rank, "random blocks": _block_sparse}
PARAMETERS = 2 * 2 * N * SIDE  # real numbers


def _draw(rng, shape, fan_in):
    """Return complex numbers as pairs, with a mean square of 1 / fan_in."""
    values = rng.standard_normal((*shape, 2)) * (2 * fan_in) ** -0.5
    return torch.tensor(values, dtype=torch.float32, requires_grad=True)


def _trained(name, make, steps, seed):
    rng = np.random.default_rng(seed)
    factors, run = make(rng)
    x, fresh = (torch.complex(*torch.tensor(rng.standard_normal((2, VECTORS, N)), dtype=torch.float32)) for _ in "ab")
    optimiser = torch.optim.Adam(factors, lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        some = x[torch.from_numpy(rng.integers(VECTORS, size=BATCH))]
        optimiser.zero_grad()
        _relative(run(some), some).backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        error = float(_relative(run(fresh), fresh))
    labels = {"structure": name, "seed": seed, "steps": steps}
    return [
        row("squared error", error, "relative", "measured", **labels),
        row("parameters", PARAMETERS, "parameters", "counted", **labels),
    ]


def _relative(found, x):
    wanted = torch.fft.fft(x, norm="ortho")
    return (found - wanted).abs().square().sum() / wanted.abs().square().sum()
