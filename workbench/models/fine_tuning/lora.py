"""LoRA: a frozen weight and the product of two thin matrices beside it."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from kernels.check import as_int, as_number, check_choice
from workbench.models.fine_tuning.method import Applied, TuningMethod
from workbench.models.sparse_inference.sparse_linear import replace_linear

__all__ = ["LoRALinear", "check_base", "merged_linear"]


class LoRALinear(nn.Module):
    r"""y = W_0 x + b + (alpha / r) B A x.

    Parameters
    ----------
    base : the layer; frozen, and shared.
    r : rank, from 1 on.
    alpha : scale; r unless given, which makes the factor 1.
    init_B : "zeros", so that nothing changes at first, or "kaiming", for what would stand still at zero.
    dropout : share of the inputs of A that training leaves out.

    Source
    ------
    Hu et al. 2021, "LoRA", arXiv 2106.09685.
    """

    def __init__(self, base: nn.Linear, r: int = 8, alpha: float | None = None, init_B: str = "zeros", dropout=0.0):
        super().__init__()
        check_base(base, "LoRALinear")
        r = as_int(r, function="LoRALinear", name="r", low=1)
        check_choice(init_B, ("zeros", "kaiming"), function="LoRALinear", name="init_B")
        self.scale = (r if alpha is None else as_number(alpha, function="LoRALinear", name="alpha", above=0)) / r
        m, n, dtype = base.out_features, base.in_features, base.weight.dtype
        self.base = base.requires_grad_(False)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()  # which keeps nothing for the backward pass
        self.A = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(r, n, dtype=dtype), a=math.sqrt(5)))
        start = torch.zeros(m, r, dtype=dtype)
        self.B = nn.Parameter(start if init_B == "zeros" else nn.init.kaiming_uniform_(start, a=math.sqrt(5)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., n) to (..., m)."""
        return self.base(x) + self.scale * F.linear(F.linear(self.dropout(x), self.A), self.B)

    def delta(self) -> torch.Tensor:
        """Return the change of the weight, (m, n)."""
        return self.scale * self.B @ self.A

    def merge(self) -> nn.Linear:
        """Return a plain layer that gives the same."""
        return merged_linear(self.base, self.delta())


def check_base(base, function: str) -> None:
    """Raise TypeError unless a base is a linear layer of floating-point weights, ValueError unless they are finite."""
    if not isinstance(base, nn.Linear) or not base.weight.is_floating_point():
        raise TypeError(f"{function}: base must be a torch.nn.Linear with float weights, got {type(base).__name__}")
    if not torch.isfinite(base.weight).all():
        raise ValueError(f"{function}: base must have finite weights, got {tuple(base.weight.shape)} with others")


@torch.no_grad()
def merged_linear(base: nn.Linear, delta: torch.Tensor) -> nn.Linear:
    """Return a plain layer with the weight of a base plus a change of it, (m, n)."""
    plain = nn.Linear(base.in_features, base.out_features, base.bias is not None, dtype=base.weight.dtype)
    plain.weight.copy_(base.weight + delta)
    if base.bias is not None:
        plain.bias.copy_(base.bias)
    return plain.requires_grad_(False)


def _apply(model, layers, **knobs):
    made: dict[str, nn.Module] = {name: LoRALinear(layer, **knobs) for name, layer in layers.items()}
    replace_linear(model, made)
    return Applied(layers=made)


METHOD = TuningMethod(
    key="lora", title="LoRA", apply=_apply, knobs={"r": 8, "alpha": None, "init_B": "zeros", "dropout": 0.0},
    source="Hu et al. 2021, arXiv 2106.09685",
)  # fmt: skip
