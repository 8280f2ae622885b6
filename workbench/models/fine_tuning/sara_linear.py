"""A linear layer whose entries closest to zero are vectors of their own, for optimisers that know nothing of SaRA."""

import torch
from torch import nn
from torch.nn import functional as F

from workbench.models.fine_tuning.lora import check_base
from workbench.models.fine_tuning.selection import flat_places, unstructural_map

__all__ = ["SaRALinear"]


class SaRALinear(nn.Module):
    """A linear layer whose weights and biases closest to zero are trained, as one vector, by any optimiser.

    Parameters
    ----------
    base : the layer; its weights are copied.
    threshold : below which magnitudes are trained.

    Source
    ------
    Hu et al. 2024, "SaRA", unstructural backpropagation.
    """

    weight_places: torch.Tensor
    bias_places: torch.Tensor

    def __init__(self, base: nn.Linear, threshold: float):
        super().__init__()
        check_base(base, "SaRALinear")
        self._begin = base.weight.detach()
        for name in ("weight", "bias"):
            given = getattr(base, name)
            own = None if given is None else nn.Parameter(given.detach().clone().contiguous(), requires_grad=False)
            self.register_parameter(name, own)
            index = flat_places(own.abs() < threshold) if own is not None else torch.zeros(0, dtype=torch.int32)
            self.register_buffer(f"{name}_places", index, persistent=False)
            learnt = own.detach().view(-1)[index].clone() if own is not None else self._begin.new_zeros(0)
            setattr(self, f"{name}_learnt", nn.Parameter(learnt, requires_grad=bool(len(index))))

    def current(self, name: str) -> torch.Tensor | None:
        """Return the weight or the bias with what has been learnt."""
        frozen = getattr(self, name)
        if frozen is None or not len(getattr(self, f"{name}_places")):
            return frozen
        return unstructural_map(frozen, getattr(self, f"{name}_learnt"), getattr(self, f"{name}_places"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., n) to (..., m)."""
        weight = self.current("weight")
        assert weight is not None
        return F.linear(x, weight, self.current("bias"))

    @torch.no_grad()
    def delta(self) -> torch.Tensor:
        """Return the change of the weight, (m, n)."""
        weight = self.current("weight")
        assert weight is not None
        return weight - self._begin

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """Return a plain layer that gives the same."""
        m, n = self._begin.shape
        plain = nn.Linear(n, m, self.bias is not None, dtype=self._begin.dtype)
        for name, p in plain.named_parameters():
            now = self.current(name)
            assert now is not None
            p.copy_(now)
        return plain.requires_grad_(False)
