"""All weights of the chosen layers, trained as they are: what every other method is compared with."""

import torch
from torch import nn

from workbench.models.fine_tuning.method import Applied, TuningMethod
from workbench.models.sparse_inference.sparse_linear import replace_linear

__all__ = ["FullLinear"]


class FullLinear(nn.Linear):
    """A linear layer whose weight and bias are trained, and which knows where they began.

    Parameters
    ----------
    base : the layer; its weights are copied.
    """

    def __init__(self, base: nn.Linear):
        super().__init__(base.in_features, base.out_features, base.bias is not None, dtype=base.weight.dtype)
        self.load_state_dict(base.state_dict())
        self._begin = base.weight.detach()

    def delta(self) -> torch.Tensor:
        """Return the change of the weight, (m, n)."""
        return self.weight.detach() - self._begin

    def merge(self) -> nn.Linear:
        """Return a plain layer."""
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None, dtype=self.weight.dtype)
        plain.load_state_dict(self.state_dict())
        return plain


def _apply(model, layers):
    made: dict[str, nn.Module] = {name: FullLinear(layer) for name, layer in layers.items()}
    replace_linear(model, made)
    return Applied(layers=made)


METHOD = TuningMethod(key="full", title="All weights", apply=_apply, knobs={}, source="plain fine-tuning")
