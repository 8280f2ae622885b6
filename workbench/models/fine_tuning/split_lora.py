r"""Split-LoRA: the ranks of LoRA in groups, the experts, of which a trained router chooses for every token.

.. math:: y = W_0 x + b + \frac{\alpha}{r} \sum_{e \in \operatorname{top}_a(W_g x)}
          \sigma\big((W_g x)_e\big)\, B_e A_e x
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from kernels.check import as_int, as_number
from workbench.models.fine_tuning.lora import check_base
from workbench.models.fine_tuning.method import Applied, TuningMethod
from workbench.models.sparse_inference.sparse_linear import replace_linear

__all__ = ["SplitLoRALinear"]


class SplitLoRALinear(nn.Module):
    """A frozen layer and experts of low rank beside it.

    Parameters
    ----------
    base : the layer; frozen, and shared.
    experts, r : how many, and the rank of each.
    active : experts that a token uses, from 1 to all.
    alpha : the update is multiplied by alpha / r; 2 r unless given.

    Source
    ------
    Zou et al. 2025, "FlyLoRA", the baseline of section 4; that one of four experts is active follows from its table of
    parameters.
    """

    def __init__(self, base: nn.Linear, experts=4, r=8, active=1, alpha=None):
        super().__init__()
        name = "SplitLoRALinear"
        check_base(base, name)
        experts, r = (as_int(v, function=name, name=what, low=1) for v, what in ((experts, "experts"), (r, "r")))
        self.active = as_int(active, function=name, name="active", low=1, high=experts)
        self.scale = (2.0 * r if alpha is None else as_number(alpha, function=name, name="alpha", above=0)) / r
        m, n, dtype = base.out_features, base.in_features, base.weight.dtype
        self.base = base.requires_grad_(False)
        self.A = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(experts * r, n, dtype=dtype), a=math.sqrt(5)))
        self.B = nn.Parameter(torch.zeros(m, experts * r, dtype=dtype))
        self.router = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(experts, n, dtype=dtype), a=math.sqrt(5)))

    def gates(self, x: torch.Tensor) -> torch.Tensor:
        """Return how much of each expert the tokens (..., n) use, (..., experts), 0 for those not chosen."""
        scores = F.linear(x, self.router)
        found = scores.topk(self.active, dim=-1)
        return torch.zeros_like(scores).scatter(-1, found.indices, torch.sigmoid(found.values))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., n) to (..., m)."""
        inner = F.linear(x, self.A).unflatten(-1, (len(self.router), -1)) * self.gates(x)[..., None]
        return self.base(x) + self.scale * F.linear(inner.flatten(-2), self.B)

    def delta(self) -> torch.Tensor:
        """Raise NotImplementedError: each token has a weight of its own."""
        raise NotImplementedError(
            "SplitLoRALinear: no weight gives the same, because its router chooses experts for every token"
        )

    def merge(self) -> nn.Linear:
        """Raise NotImplementedError, as `delta`."""
        raise NotImplementedError(
            "SplitLoRALinear: no plain layer gives the same, because its router chooses experts for every token"
        )


def _apply(model, layers, **knobs):
    made: dict[str, nn.Module] = {name: SplitLoRALinear(layer, **knobs) for name, layer in layers.items()}
    replace_linear(model, made)
    return Applied(layers=made)


METHOD = TuningMethod(
    key="split_lora", title="Split-LoRA", apply=_apply, knobs={"experts": 4, "r": 8, "active": 1, "alpha": None},
    source="Zou et al. 2025, arXiv 2510.08396",
)  # fmt: skip
