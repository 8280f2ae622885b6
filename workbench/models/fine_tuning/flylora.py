r"""FlyLoRA: every rank is an expert, and a frozen sparse random projection is at once the compressor and the router.

.. math:: y = W_0 x + b + \frac{\alpha}{r}\, B\, y', \qquad u = A x, \qquad
          y'_i = u_i \ \text{where}\ i \in \operatorname{top}_k(u + d), \ \text{else}\ 0

W_0 is (m, n) and frozen; A is (r, n), random, with p entries in each row, and frozen; B is (m, r) and the only thing
that is trained. The biases d choose and never enter the values: each rank that was chosen more often than the mean of a
batch loses a little of its own, each that was chosen less often gains it.
"""

import math
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kernels.check import as_int, as_number, check_choice
from workbench.models.fine_tuning.lora import check_base, merged_linear
from workbench.models.fine_tuning.method import Applied, TuningMethod
from workbench.models.sparse_inference.sparse_linear import replace_linear

__all__ = ["PROJECTIONS", "ROUTINGS", "FlyLoRALinear", "LoRAFALinear", "sparse_gaussian_projection"]

ROUTINGS = ("signed", "magnitude", "abs_biased", "random")
PROJECTIONS = ("gaussian", "rademacher", "fjlt")


def sparse_gaussian_projection(
    r: int, n: int, p: int, seed: int, std: float | None = None, kind: str = "gaussian"
) -> Any:
    """Draw a projection with exactly p entries in each row, at places without repetition.

    Parameters
    ----------
    r, n : rows and columns.
    p : entries of a row, from 1 to n.
    seed : of a generator of its own; NumPy's and PyTorch's global ones are not touched.
    std : deviation of an entry; 1 / r unless given.
    kind : "gaussian"; "rademacher" for entries of +std and -std; or "fjlt", a sparse Gaussian matrix times a Hadamard
        matrix times random signs, cut to n columns and scaled so that a row keeps its mean square norm p std^2.

    Returns
    -------
    scipy.sparse.csr_array float64 (r, n); for "fjlt", which has no zeros, ndarray float64 (r, n).

    Raises
    ------
    TypeError, ValueError : arguments out of range, or an unknown kind.

    Source
    ------
    Zou et al. 2025, "FlyLoRA", section 3, and its comparison of projections; Ailon and Chazelle 2006 for "fjlt".
    """
    name = "sparse_gaussian_projection"
    r, n = (as_int(value, function=name, name=what, low=1) for value, what in ((r, "r"), (n, "n")))
    p = as_int(p, function=name, name="p", low=1, high=n)
    std = 1 / r if std is None else as_number(std, function=name, name="std", above=0)
    check_choice(kind, PROJECTIONS, function=name, name="kind")
    draw = np.random.default_rng(as_int(seed, function=name, name="seed", low=0))
    width = 1 << (n - 1).bit_length() if kind == "fjlt" else n
    columns = np.sort(np.argsort(draw.random((r, width)), axis=1)[:, :p], axis=1)
    values = std * (draw.choice([-1.0, 1.0], (r, p)) if kind == "rademacher" else draw.standard_normal((r, p)))
    found = sparse.csr_array((values.ravel(), columns.ravel(), np.arange(0, r * p + 1, p)), shape=(r, width))
    if kind != "fjlt":
        return found
    mixed, half = found.toarray(), 1
    while half < width:  # the Hadamard matrix as butterflies, log2(width) passes
        pairs = mixed.reshape(r, -1, 2, half)
        mixed = np.stack((pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]), axis=2).reshape(r, width)
        half *= 2
    return mixed[:, :n] * draw.choice([-1.0, 1.0], n) / math.sqrt(n)


class FlyLoRALinear(nn.Module):
    """A frozen layer and a low-rank update of which every token uses k ranks of r.

    Parameters
    ----------
    base : the layer; frozen, and shared.
    r, k : ranks, and those that a token uses, from 1 to r.
    alpha : the update is multiplied by alpha / r; 2 r unless given.
    rho : share of the entries of A that are not zero, above 0 and at most 1; k / r unless given. A row has the whole
        part of rho n entries, which must be at least 1.
    routing : which ranks a token takes: the largest u + d ("signed", as the published results), |u| + d ("magnitude",
        as the paper's text), |u + d| ("abs_biased", for comparison: its balancing makes loads worse), or any k
        ("random", for comparison, from PyTorch's generator).
    bias_u : step of the balancing biases; 0 for no balancing.
    seed : of A. Adapters that are to be merged need different ones.
    propagate_input_grad : whether the layers below get the update's part of the gradient too, which the released code
        leaves out.
    kind : of `sparse_gaussian_projection`.

    Notes
    -----
    A, the biases ``d`` and the ``counts`` of the latest batch are buffers, so files hold them and no optimiser does.
    Set ``keep`` to a bool tensor like a batch without its last axis to leave padding out of the counts; a token whose
    projection is all zero never counts. A is held as a dense matrix.

    Source
    ------
    Zou et al. 2025, "FlyLoRA", arXiv 2510.08396, and the released code, whose biases move in evaluation too.
    """

    A: torch.Tensor
    d: torch.Tensor
    counts: torch.Tensor

    def __init__(self, base: nn.Linear, r=32, k=8, alpha=None, rho=None, routing="signed", bias_u=1e-3, seed=0,
                 propagate_input_grad=True, kind="gaussian"):  # fmt: skip
        super().__init__()
        name = type(self).__name__
        check_base(base, name)
        r = as_int(r, function=name, name="r", low=1)
        k = as_int(k, function=name, name="k", low=1, high=r)
        check_choice(routing, ROUTINGS, function=name, name="routing")
        m, n, dtype = base.out_features, base.in_features, base.weight.dtype
        if rho is None:
            entries, share = n * k // r, k / r
        else:
            share = as_number(rho, function=name, name="rho", above=0, high=1)
            entries = int(share * n)
        if not entries:
            raise ValueError(f"{name}: rho n must be at least 1, got {share:g} x {n}; raise rho, or k")
        self.scale = (2.0 * r if alpha is None else as_number(alpha, function=name, name="alpha", above=0)) / r
        self.bias_u = as_number(bias_u, function=name, name="bias_u", low=0)
        self.base, self.r, self.k, self.routing = base.requires_grad_(False), r, k, routing
        self.propagate_input_grad = bool(propagate_input_grad)
        drawn = sparse_gaussian_projection(r, n, entries, seed, kind=kind)
        dense = drawn.toarray() if isinstance(drawn, sparse.csr_array) else drawn
        self.register_buffer("A", torch.from_numpy(dense).to(dtype))
        self.register_buffer("d", torch.zeros(r, dtype=dtype))
        self.register_buffer("counts", torch.zeros(r, dtype=torch.int64))
        self.B = nn.Parameter(torch.zeros(m, r, dtype=dtype))
        self.keep: torch.Tensor | None = None

    @torch.no_grad()
    def route(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the values (T, k) and the ranks int64 (T, k) that the tokens (..., n) use, T of them."""
        u = F.linear(x.reshape(-1, x.shape[-1]), self.A)
        if self.routing == "signed":
            scores = u + self.d
        elif self.routing == "magnitude":
            scores = u.abs() + self.d
        elif self.routing == "abs_biased":
            scores = (u + self.d).abs()
        else:
            scores = torch.rand_like(u)
        index = scores.topk(self.k, dim=-1, sorted=False).indices
        return u.gather(1, index), index

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., n) to (..., m); in training, the biases move afterwards."""
        values, index = self.route(x)
        update = _Routed.apply(x, self.A, self.B, values, index, self.scale, self.propagate_input_grad)
        if self.training:
            self._balance(values, index)
        return self.base(x) + update

    @torch.no_grad()
    def _balance(self, values, index):
        """Count who was chosen, and move every bias by one step towards the mean of the counts."""
        counted = (values != 0).any(1)
        if self.keep is not None:
            if self.keep.numel() != len(index):
                raise ValueError(
                    f"{type(self).__name__}: keep must have one entry for each of {len(index)} tokens, got "
                    f"{tuple(self.keep.shape)}; set it for every batch, or to None"
                )
            counted &= self.keep.reshape(-1).bool()
        self.counts.copy_(torch.bincount(index[counted].reshape(-1), minlength=self.r))
        total = self.counts.sum()
        self.d += self.bias_u * torch.sign(total - self.r * self.counts).to(self.d.dtype)  # in whole numbers, exactly

    def expert_load(self) -> torch.Tensor:
        """Return the share of the latest training batch's choices that fell on each rank, float64 (r,)."""
        return self.counts.double() / self.counts.sum().clamp_min(1)

    def delta(self) -> torch.Tensor:
        """Return (alpha / r) B A, (m, n): what merging takes. It is what the layer does only where k = r."""
        return self.scale * self.B @ self.A

    def merge(self) -> nn.Linear:
        """Return a plain layer that gives the same; NotImplementedError where k < r, as no matrix does."""
        if self.k < self.r:
            raise NotImplementedError(
                f"{type(self).__name__}: no weight gives the same, because every token uses its own {self.k} of "
                f"{self.r} ranks; merge_adapters and merged_linear take delta(), which uses all of them"
            )
        return merged_linear(self.base, self.delta())

    def extra_repr(self) -> str:
        """Say the settings."""
        return f"r={self.r}, k={self.k}, routing={self.routing!r}"


class LoRAFALinear(FlyLoRALinear):
    """LoRA with a frozen dense Gaussian A: every token uses all r ranks.

    Source
    ------
    Zhang et al. 2023, "LoRA-FA", arXiv 2308.03303, with the scale of A of FlyLoRA.
    """

    def __init__(self, base: nn.Linear, r=32, alpha=None, seed=0, **how):
        super().__init__(base, r=r, k=r, alpha=alpha, rho=1.0, bias_u=0.0, seed=seed, **how)


class _Routed(torch.autograd.Function):
    """The update of the chosen ranks, which keeps their values and places for the backward pass, and not the input."""

    @staticmethod
    def forward(ctx, x, A, B, values, index, scale, exact):
        ctx.save_for_backward(A, B, values, index.to(torch.uint8 if len(A) <= 256 else torch.int32))
        ctx.scale, ctx.exact = scale, exact
        chosen = values.new_zeros(len(values), len(A)).scatter_(1, index, values)
        return (scale * chosen @ B.T).view(*x.shape[:-1], len(B))

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):  # type: ignore[override]
        A, B, values, places = ctx.saved_tensors
        index, g, dx, dB = places.long(), gradient.reshape(-1, len(B)), None, None
        nothing = values.new_zeros(len(values), len(A))
        if ctx.needs_input_grad[2]:
            dB = ctx.scale * g.T @ nothing.scatter(1, index, values)
        if ctx.needs_input_grad[0] and ctx.exact:
            into = nothing.scatter(1, index, (ctx.scale * g @ B).gather(1, index))
            dx = (into @ A).view(*gradient.shape[:-1], A.shape[1])
        return dx, None, dB, None, None, None, None


def _apply(model, layers, **knobs):
    made: dict[str, nn.Module] = {
        name: FlyLoRALinear(layer, seed=int(torch.randint(2**62, ())), **knobs) for name, layer in layers.items()
    }
    replace_linear(model, made)
    return Applied(layers=made)


METHOD = TuningMethod(
    key="flylora", title="FlyLoRA", apply=_apply,
    knobs={"r": 32, "k": 8, "alpha": None, "rho": None, "routing": "signed", "bias_u": 1e-3,
           "propagate_input_grad": True, "kind": "gaussian"},
    source="Zou et al. 2025, arXiv 2510.08396",
)  # fmt: skip
