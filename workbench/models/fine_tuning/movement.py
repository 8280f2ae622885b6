r"""Movement pruning: a score of its own for every weight, learnt beside it.

.. math:: \partial L / \partial W = G \circ M, \qquad \partial L / \partial S = G \circ W

A score rises where a weight moves away from zero, whatever its size.
"""

import torch
from torch import nn

from kernels.check import as_number
from workbench.models.fine_tuning.masked_linear import MaskedLinear, apply_masked
from workbench.models.fine_tuning.method import Applied, TuningMethod

__all__ = ["MovementLinear"]


class MovementLinear(MaskedLinear):
    """A layer whose weight and scores are trained.

    Parameters
    ----------
    base, how : of `MaskedLinear`; the weight is copied, the bias frozen and shared.

    Source
    ------
    Sanh et al. 2020, "Movement pruning", sections 3 and 4, "hard": a fixed share stays, without a penalty.
    """

    def __init__(self, base: nn.Linear, **how):
        super().__init__(base, **how)
        self.weight = nn.Parameter(base.weight.detach().clone())
        self.score = nn.Parameter(torch.zeros_like(self.weight))
        self._begin = base.weight.detach()

    def parts(self):
        """Return the weight and its scores."""
        return self.weight, self.score

    def begin(self) -> torch.Tensor:
        """Return the weight before it was tuned, (m, n)."""
        return self._begin

    def weight_of(self, weight, score):
        """Return the weight."""
        return weight

    def scores_of(self, weight, *parts):
        """Return the scores."""
        return parts[1]

    def gradients_of(self, gradient, weight, mask, *parts):
        """Return the gradients of weight and scores."""
        return gradient * mask, gradient * weight


def _apply(model, layers, *, score_rate, **knobs):
    score_rate = as_number(score_rate, function="movement", name="score_rate", above=0)
    applied = apply_masked(model, layers, MovementLinear, **knobs)
    rates = [(layer.score, score_rate) for layer in applied.layers.values()]
    return Applied(layers=applied.layers, after_step=applied.after_step, rates=rates)


METHOD = TuningMethod(
    key="movement", title="Movement pruning", apply=_apply,
    knobs={"sf": 0.9, "iw": 0.1, "fw": 0.3, "s0": 0.0, "score_rate": 10.0, "memory_efficient": True},
    source="Sanh et al. 2020, arXiv 2005.07683",
)  # fmt: skip
