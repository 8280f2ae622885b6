r"""Magnitude pruning while all weights of the chosen layers are tuned: what learnt scores are compared with.

.. math:: S = |W|, \qquad \partial L / \partial W = G \circ M
"""

import torch
from torch import nn

from workbench.models.fine_tuning.masked_linear import MaskedLinear, apply_masked
from workbench.models.fine_tuning.method import TuningMethod

__all__ = ["MagnitudeLinear"]


class MagnitudeLinear(MaskedLinear):
    """A layer whose weight is trained and whose largest weights take part.

    A weight that went has no gradient. It comes back if others become smaller.

    Parameters
    ----------
    base, how : of `MaskedLinear`; the weight is copied, the bias frozen and shared.

    Source
    ------
    Zhu and Gupta 2017, "To prune, or not to prune"; "MaP" in Li et al. 2022, "PST".
    """

    def __init__(self, base: nn.Linear, **how):
        super().__init__(base, **how)
        self.weight = nn.Parameter(base.weight.detach().clone())
        self._begin = base.weight.detach()

    def parts(self):
        """Return the weight."""
        return (self.weight,)

    def begin(self) -> torch.Tensor:
        """Return the weight before it was tuned, (m, n)."""
        return self._begin

    def weight_of(self, weight):
        """Return the weight."""
        return weight

    def scores_of(self, weight, *parts):
        """Return the magnitudes, which take no gradient."""
        return weight.detach().abs()

    def gradients_of(self, gradient, weight, mask, *parts):
        """Return the gradient where weights take part."""
        return (gradient * mask,)


METHOD = TuningMethod(
    key="magnitude", title="Magnitude pruning",
    apply=lambda model, layers, **knobs: apply_masked(model, layers, MagnitudeLinear, **knobs),
    knobs={"sf": 0.9, "iw": 0.1, "fw": 0.3, "s0": 0.0, "memory_efficient": True},
    source="Zhu and Gupta 2017, arXiv 1710.01878",
)  # fmt: skip
