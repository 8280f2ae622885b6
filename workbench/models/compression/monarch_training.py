"""Training around Monarch layers: the steps of sparse, then dense training, and what a projection lost brought back."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from kernels.check import as_int, as_number, check_choice
from workbench.models.compression.monarch import MonarchLinear
from workbench.models.sparse_inference.recovery import Forward, Loss, Report, learn_from

__all__ = ["RATES", "TrainSchedule", "recover_factors", "recover_monarch", "train_schedule"]

RATES = ("continue", "keep", "rewarm")
KEPT = 0.5  # of the highest rate, at the switch
WARM = 0.1  # of the dense steps, in which a warmed-up rate rises


@dataclass(frozen=True, kw_only=True)
class TrainSchedule:
    """When training becomes dense, and the learning rate of every step.

    Parameters
    ----------
    steps : of the whole training.
    switch : the first dense step; ``steps`` if there is none.
    rates : "continue", "keep" or "rewarm", see `train_schedule`.
    """

    steps: int
    switch: int
    rates: str

    def rate(self, step: int) -> float:
        """Return the rate of a step, from 0 to ``steps - 1``, as a share of the highest one."""
        if self.rates == "continue":
            return _cosine(step / self.steps)
        share = step / max(1, self.switch)
        if step < self.switch:
            return KEPT + (1 - KEPT) * _cosine(share) if self.rates == "keep" else _cosine(share)
        dense = self.steps - self.switch
        warm = max(1, math.ceil(WARM * dense)) if self.rates == "rewarm" else 0
        after = step - self.switch
        if after < warm:
            return KEPT * (after + 1) / warm
        return KEPT * _cosine((after - warm) / max(1, dense - warm))


def train_schedule(steps: int, dense_fraction: float = 0.1, *, rates: str = "continue") -> TrainSchedule:
    """Plan a training that is sparse at first and dense in the end.

    Parameters
    ----------
    steps : of the whole training, at least 1.
    dense_fraction : share of the steps that are dense, in [0, 1]; the paper takes about a tenth.
    rates : how the learning rate goes. "continue": one cosine from 1 to 0 over all steps, as if nothing happened, which
        leaves a short dense phase with almost none. "keep": from 1 to a half while sparse, then along a cosine to 0.
        "rewarm": a cosine to 0 while sparse, then up to a half again within a tenth of the dense steps, and to 0.

    Returns
    -------
    TrainSchedule; call `reverse_sparsify` before its step ``switch``.

    Raises
    ------
    TypeError, ValueError : arguments out of range.

    Source
    ------
    Dao et al. 2022, section 3.3. *Differs from the paper:* "keep" and "rewarm" are ours, for short trainings.
    """
    steps = as_int(steps, function="train_schedule", name="steps", low=1)
    dense = as_number(dense_fraction, function="train_schedule", name="dense_fraction", low=0, high=1)
    check_choice(rates, RATES, function="train_schedule", name="rates")
    return TrainSchedule(steps=steps, switch=steps - round(dense * steps), rates=rates)


def recover_monarch(
    model: nn.Module,
    dense: nn.Module,
    batches: Sequence[Any],
    *,
    steps: int,
    rate: float = 1e-3,
    loss: Loss | None = None,
    forward: Forward | None = None,
    seed: int = 0,
    report: Report = lambda fraction, step: None,
) -> nn.Module:
    """Return a copy of a projected model that was trained for a short while to give what the dense model gives.

    The factors, their biases and all layers of normalisation are trained; nothing else changes.

    Parameters
    ----------
    model : what `d2s_project` made; left as it is.
    dense : the model before the projection; left as it is.
    batches, steps, rate, loss, forward, seed, report : as of `workbench.models.sparse_inference.recovery.recover`.

    Returns
    -------
    nn.Module like ``model``, for inference.

    Raises
    ------
    ValueError : no batches, no Monarch layer, or numbers out of range.

    Examples
    --------
    ``recover_monarch(d2s_project(model), model, batches, steps=100)``

    Source
    ------
    Dao et al. 2022, section 3.4. *Differs from the paper:* the training target is what the dense model gives, and no
    labels are needed (Hinton et al. 2015).
    """
    how = {"steps": steps, "rate": rate, "loss": loss, "forward": forward, "seed": seed, "report": report}
    return recover_factors(model, dense, batches, kinds=(MonarchLinear,), **how)


def recover_factors(
    model, dense, batches, *, kinds, steps, rate=1e-3, loss=None, forward=None, seed=0,
    report: Report = lambda fraction, step: None,
) -> nn.Module:  # fmt: skip
    """Train the layers of some kinds in a copy as `recover_monarch` does, for others than Monarch layers.

    Parameters
    ----------
    kinds : types of module, all of whose parameters are trained. The rest as of `recover_monarch`.
    """
    batches = list(batches)
    if not batches:
        raise ValueError("recover_monarch: batches is empty; give at least one batch of training data")
    steps = as_int(steps, function="recover_monarch", name="steps", low=1)
    rate = as_number(rate, function="recover_monarch", name="rate", above=0)
    pupil = copy.deepcopy(model)
    trained = [p for layer in pupil.modules() if isinstance(layer, kinds) for p in layer.parameters()]
    if not trained:
        raise ValueError("recover_monarch: the model has no MonarchLinear layer; make them with d2s_project(model)")
    how = {"loss": loss, "forward": forward, "layers": None, "seed": seed, "report": report}
    return learn_from(dense, pupil, batches, lambda: None, steps=steps, rate=rate, parameters=trained, **how)


def _cosine(share):
    return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
