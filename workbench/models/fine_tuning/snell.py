r"""SNELL: a sparse update of full rank from two thin matrices, merged by a kernel and thinned out by competition.

.. math:: y = W_0 x + b + \Delta W_s\, x, \qquad \Delta W_{ij} = \kappa(B_i, A_j), \qquad
          \Delta W_s = \Delta W \circ \max(|\Delta W| - t, 0)

W_0 is (m, n) and frozen; t is such that the share s of the entries goes. Neither the merged matrix nor which entries
stay is held: both are computed anew in the backward pass.
"""

import math

import torch
from scipy import sparse
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from kernels.check import as_int, as_number, check_choice
from kernels.masks.threshold import quantile_threshold, topk_threshold
from workbench.models.fine_tuning.kernel_merge import piecewise_linear_kernel
from workbench.models.fine_tuning.lora import check_base, merged_linear
from workbench.models.fine_tuning.method import Applied, TuningMethod
from workbench.models.sparse_inference.sparse_linear import replace_linear

__all__ = ["MODES", "KLoRALinear", "SNELLLinear", "competition_sparsify", "competition_threshold"]

MODES = ("paper", "code", "hard")


class SNELLLinear(nn.Module):
    """A frozen layer and an update whose strongest entries alone take part.

    Parameters
    ----------
    base : the layer; frozen, and shared.
    r : numbers of a point, divisible by P.
    s : share of the entries that go, in [0, 1); it may be set at any time. With 0 all stay, as they are.
    P : pieces of the kernel.
    mode : of `competition_sparsify`.
    scale : of the coefficients, whose signs alternate.
    learn_alpha : whether they are learnt.
    dropout, drop_path : shares of the update's inputs, and of the samples' updates, that training leaves out.
    checkpoint : whether the merged matrix is computed again in the backward pass, in place of being kept.

    Source
    ------
    Shen et al. 2024, "SNELL", Eq. 4 and 5, and the released code. The coefficients are fixed there, learnable in the
    paper's table.
    """

    def __init__(self, base: nn.Linear, r=8, s=0.9, P=2, mode="paper", scale=0.1, learn_alpha=False, dropout=0.0,
                 drop_path=0.0, checkpoint=True):  # fmt: skip
        super().__init__()
        name = type(self).__name__
        check_base(base, name)
        r, P = (as_int(value, function=name, name=what, low=1) for value, what in ((r, "r"), (P, "P")))
        if r % P:
            raise ValueError(f"{name}: r must be divisible by P={P}, got {r}")
        check_choice(mode, MODES, function=name, name="mode")
        m, n, dtype = base.out_features, base.in_features, base.weight.dtype
        self.base, self.mode, self.checkpoint = base.requires_grad_(False), mode, bool(checkpoint)
        self.A, self.B = (
            nn.Parameter(nn.init.kaiming_uniform_(torch.empty(P, size, r // P, dtype=dtype), a=math.sqrt(5)))
            for size in (n, m)
        )
        scale = as_number(scale, function=name, name="scale", above=0)
        alphas = torch.tensor([scale * (-1) ** p for p in range(P)], dtype=dtype)
        self.alphas = nn.Parameter(alphas, requires_grad=bool(learn_alpha))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.drop_path = as_number(drop_path, function=name, name="drop_path", low=0, high=1)
        self.s = s

    @property
    def s(self) -> float:
        """The share of the entries that go."""
        return self._s

    @s.setter
    def s(self, share):
        self._s = _as_share(share, type(self).__name__)

    def get_extra_state(self) -> torch.Tensor:
        """Return the share, so that files and checkpoints hold it."""
        return torch.tensor(self.s, dtype=torch.float64)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Take the share of a file or checkpoint."""
        self.s = float(state)

    def merged(self) -> torch.Tensor:
        """Return the update before the competition, (m, n)."""
        return piecewise_linear_kernel(self.B, self.A, self.alphas)

    def delta(self) -> torch.Tensor:
        """Return the update, (m, n)."""
        merged = self.merged()
        return competition_sparsify(merged, self.s, self.mode) if self.s else merged

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., n) to (..., m)."""
        given = self.dropout(x)
        update = checkpoint(self._update, given, use_reentrant=False) if self.checkpoint else self._update(given)
        if self.drop_path and self.training:
            kept = torch.rand(x.shape[:1] + (1,) * (x.ndim - 1), dtype=x.dtype) >= self.drop_path
            update = update * kept / (1 - self.drop_path)
        return self.base(x) + update

    def _update(self, x):
        return F.linear(x, self.delta())

    @torch.no_grad()
    def support(self) -> sparse.csr_array:
        """Return the entries of the update that are not zero, float32 (m, n)."""
        return sparse.csr_array(self.delta().float().numpy())

    @property
    @torch.no_grad()
    def density(self) -> float:
        """The share of the entries that are not zero."""
        return float((self.delta() != 0).double().mean())

    def merge(self) -> nn.Linear:
        """Return a plain layer that gives the same; the frozen one is as before."""
        return merged_linear(self.base, self.delta())

    def extra_repr(self) -> str:
        """Say the settings."""
        return f"r={self.A.shape[0] * self.A.shape[2]}, s={self.s:g}, P={len(self.A)}, mode={self.mode!r}"


class KLoRALinear(SNELLLinear):
    """The update of a kernel with all of its entries: SNELL without the competition."""

    def __init__(self, base: nn.Linear, r=8, P=2, **how):
        super().__init__(base, r=r, s=0.0, P=P, **how)


def competition_threshold(W: torch.Tensor, s: float, mode: str = "paper") -> float:
    """Return the magnitude at or below which entries go.

    Parameters
    ----------
    W : floating-point tensor of any shape and size, finite.
    s : share of the entries that go, in [0, 1).
    mode : "paper" and "hard" take the ceil(s N)-th smallest magnitude of N, 0 where that is none; "code" the s-quantile
        with linear interpolation.

    Raises
    ------
    TypeError, ValueError : as for `competition_sparsify`.

    Source
    ------
    Shen et al. 2024, "SNELL", Eq. 5, and the released code, whose quantile takes at most 2^24 entries.
    """
    if not isinstance(W, torch.Tensor) or not W.is_floating_point():
        raise TypeError(f"competition_sparsify: W must be a floating-point tensor, got {type(W).__name__}")
    check_choice(mode, MODES, function="competition_sparsify", name="mode")
    s, size = _as_share(s, "competition_sparsify"), W.numel()
    if not size:
        raise ValueError("competition_sparsify: W must have an entry")
    magnitudes = W.detach().abs()
    if magnitudes.dtype == torch.bfloat16:
        magnitudes = magnitudes.float()
    flat = magnitudes.contiguous().view(-1).numpy()
    if mode == "code":
        return float(quantile_threshold(flat, s, method="linear"))
    gone = math.ceil(s * size)
    return float(topk_threshold(flat, size - gone + 1)) if gone else 0.0


def competition_sparsify(W: torch.Tensor, s: float, mode: str = "paper") -> torch.Tensor:
    """Set the weakest entries to zero; the others are weighed with their own strength, as published.

    Parameters
    ----------
    W, s : as for `competition_threshold`.
    mode : "paper" is W max(|W| - t, 0), "code" W |W| where |W| > t with a factor that takes no gradient, and "hard" W
        where |W| > t, for comparison.

    Returns
    -------
    Tensor like W; t takes no gradient.

    Raises
    ------
    TypeError : W is no floating-point tensor. ValueError : s outside [0, 1), NaN, or an unknown mode.

    Cost
    ----
    That of the exact selection of `kernels.masks.threshold`, and one pass.

    Source
    ------
    Shen et al. 2024, "SNELL", Eq. 5, and the released code.
    """
    t = competition_threshold(W, s, mode)
    size = W.detach().abs()
    stays = size > t
    if mode == "hard":
        factor = slope = stays.to(W.dtype)
    elif mode == "code":
        factor = slope = size * stays
    else:
        factor, slope = (size - t).clamp_min(0), (2 * size - t) * stays
    return _Weighed.apply(W, factor, slope)


class _Weighed(torch.autograd.Function):
    """W times a factor, whose gradient is that times a slope: one tensor is kept for the backward pass."""

    @staticmethod
    def forward(ctx, W, factor, slope):
        ctx.save_for_backward(slope)
        return W * factor

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[override]
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None


def _as_share(s, function) -> float:
    s = as_number(s, function=function, name="s", low=0)
    if s >= 1:
        raise ValueError(f"{function}: s must be a share of the entries that go, at least 0 and below 1, got {s}")
    return s


def _apply(model, layers, **knobs):
    made: dict[str, nn.Module] = {name: SNELLLinear(layer, **knobs) for name, layer in layers.items()}
    replace_linear(model, made)
    return Applied(layers=made)


METHOD = TuningMethod(
    key="snell", title="SNELL", apply=_apply,
    knobs={"r": 8, "s": 0.9, "P": 2, "mode": "paper", "scale": 0.1, "learn_alpha": False, "dropout": 0.0,
           "drop_path": 0.0, "checkpoint": True},
    source="Shen et al. 2024, arXiv 2411.01800",
)  # fmt: skip
