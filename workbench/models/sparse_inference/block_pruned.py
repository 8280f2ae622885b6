"""Gradual pruning to constant blocks while a model trains, and the group lasso that prepares for it.

A block of ``(4, 1)`` is 4 outputs by 1 input of ``torch.nn.Linear.weight``: what one dot-product instruction of the
int8 kernel takes.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from kernels.check import as_int, as_ints, as_number, check_choice
from kernels.masks.blocks import block_prune_mask
from kernels.masks.movement import movement_scores, snip_momentum_scores, snip_scores
from kernels.masks.schedules import SCHEDULES, scheduled_sparsity
from workbench.models.sparse_inference.statistics import linear_layers

__all__ = ["CRITERIA", "BlockPruner", "block_sparsity", "group_lasso_"]

CRITERIA = ("magnitude", "snip", "snip_momentum", "movement")
_SCORES = {"snip": snip_scores, "snip_momentum": snip_momentum_scores}
_AT_REST = 1e-6  # movement scores start at so much of |w|: as long as nothing has moved, the smallest weights go


class BlockPruner:
    """Prune the linear layers of a model block by block while it trains.

    Call `step` after every step of the optimiser, before gradients are cleared. Until ``end`` the masks are chosen anew
    at every event, so that a block may come back; from then on they stay.

    Parameters
    ----------
    model : its weights are changed in place; nothing else is.
    block : (br, bc), outputs and inputs of a block.
    target : share of the blocks that go at last, in [0, 1).
    schedule : how the share rises from 0, one of `SCHEDULES`.
    criterion : what a weight is worth: "magnitude" |w|; "snip" |w g| of this step; "snip_momentum" the running sum
        S = 0.9 S + |w g|; "movement" S = S - w g, which is large where weights move away from 0. With "movement",
        weights that are gone keep the value they had, are scored by it, and come back with it; with the others they
        are 0. A block is worth the mean of its weights.
    scope : "layer" prunes every layer to the share, "global" all blocks together.
    most : with "global", the largest share that a layer may lose.
    start, end : steps between which the share rises; every ``frequency`` steps, and at ``end``, masks are chosen.
    layers : names; None for those that `linear_layers` chooses.

    Raises
    ------
    ValueError : a layer that blocks do not divide, an unknown word, or numbers out of range.

    Source
    ------
    Shen et al. 2023, section on sparsity; the criterion of Lee et al. 2019 with momentum. Sanh et al. 2020, Eq. 3
    (movement; masks are passed straight through). *Differs from the paper:* its masks keep the largest entries, ours
    blocks of any size; scores start at a millionth of |w|, since a copy that learns from the model it equals has no
    gradient before its first block goes; and the optimiser's moments of weights that are gone go on.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        block: tuple[int, int] = (4, 1),
        target: float = 0.9,
        schedule: str = "exp",
        criterion: str = "snip_momentum",
        scope: str = "layer",
        most: float = 0.98,
        start: int = 0,
        end: int,
        frequency: int = 1,
        layers: Iterable[str] | None = None,
    ):
        name = "BlockPruner"
        check_choice(schedule, SCHEDULES, function=name, name="schedule")
        check_choice(criterion, CRITERIA, function=name, name="criterion")
        check_choice(scope, ("layer", "global"), function=name, name="scope")
        self.block = as_ints(block, 2, function=name, name="block", low=1)
        self.target = as_number(target, function=name, name="target", low=0, high=0.999999)
        self.start = as_int(start, function=name, name="start", low=0)
        self.end = as_int(end, function=name, name="end", low=self.start + 1)
        self.frequency = as_int(frequency, function=name, name="frequency", low=1)
        self.schedule, self.criterion, self.scope = schedule, criterion, scope
        self.most = max(as_number(most, function=name, name="most", low=0, high=1), self.target)
        self.layers: Mapping[str, nn.Linear] = linear_layers(model, layers)
        for label, layer in self.layers.items():
            if layer.out_features % self.block[0] or layer.in_features % self.block[1]:
                raise ValueError(
                    f"{name}: layer {label!r} is {layer.out_features} x {layer.in_features}, no multiple of the block "
                    f"{self.block[0]} x {self.block[1]}; leave it out with layers=, or choose another block"
                )
        self.taken = 0
        self.masks: dict[str, torch.Tensor] = {}
        self._scores = {label: torch.zeros_like(layer.weight) for label, layer in self.layers.items()}
        self._whole: dict[str, torch.Tensor] = {}  # with "movement": the weights, those that are gone among them
        if criterion == "movement":
            self._whole = {label: layer.weight.detach().clone() for label, layer in self.layers.items()}
            self._scores = {label: _AT_REST * whole.abs() for label, whole in self._whole.items()}

    @property
    def sparsity(self) -> float:
        """Share of the blocks that the schedule asks for after the steps taken so far."""
        if self.taken < self.start:
            return 0.0
        span = self.end - self.start
        return scheduled_sparsity(self.taken - self.start, span, self.target, schedule=self.schedule)

    @torch.no_grad()
    def step(self) -> None:
        """Take the scores of this step, choose masks where it is time, and set the weights that are gone to 0."""
        self.taken += 1
        if self.taken <= self.end:
            self._score()
            due = (self.taken - self.start) % self.frequency == 0 or self.taken == self.end
            if self.taken >= self.start and due and self.target > 0:
                self._choose()
        for label, mask in self.masks.items():
            self.layers[label].weight.mul_(mask)

    def _score(self):
        for label, layer in self.layers.items():
            if self.criterion == "magnitude":
                self._scores[label] = layer.weight.abs()
                continue
            if layer.weight.grad is None:
                raise ValueError(f"BlockPruner.step: layer {label!r} has no gradient; call it after loss.backward()")
            if self.criterion == "movement":
                self._move(label, layer.weight, layer.weight.grad)
                continue
            parts = layer.weight.numpy(), layer.weight.grad.numpy()
            before = (self._scores[label].numpy(),) if self.criterion == "snip_momentum" else ()
            self._scores[label] = torch.from_numpy(_SCORES[self.criterion](*before, *parts))

    def _move(self, label, weight, gradient):
        """Score the weights that the gradient was taken at, and put those that are gone back to what they were."""
        before = self._whole[label]
        scores = movement_scores(self._scores[label].numpy(), before.numpy(), gradient.numpy())
        self._scores[label] = torch.from_numpy(scores)
        if label in self.masks:
            weight.copy_(torch.where(self.masks[label] != 0, weight, before))
        self._whole[label] = weight.clone()

    def _choose(self):
        scores = {label: np.ascontiguousarray(worth.numpy()) for label, worth in self._scores.items()}
        bounds: dict[str, Any] = {"most": self.most} if self.scope == "global" else {}
        chosen = block_prune_mask(scores, self.sparsity, block=self.block, scope=self.scope, **bounds)
        self.masks = {
            label: torch.from_numpy(mask).to(self.layers[label].weight.dtype) for label, mask in chosen.items()
        }


@torch.no_grad()
def group_lasso_(
    layers: Iterable[nn.Linear], strength: float, *, block: tuple[int, int] = (4, 1), norm_of: str = "weight"
) -> None:
    """Shrink every block of some layers by a decoupled step of the group lasso, after the optimiser's own step.

    ``W_b <- W_b - strength W_b / (||N_b||_2 + 1e-12)`` for each block b. A block whose norm is below ``strength`` goes
    to 0 and not beyond.

    Parameters
    ----------
    layers : their weights are changed in place.
    strength : at least 0.
    block : (br, bc), dividing every weight.
    norm_of : "weight", N = W, which is the group lasso; or "grad", N = the gradient, which is what Intel's published
        pruner divides by.

    Raises
    ------
    ValueError : an unknown word, a negative strength, a block that does not divide a weight, or a missing gradient.

    Source
    ------
    Yuan and Lin 2006; Shen et al. 2023.
    """
    strength = as_number(strength, function="group_lasso_", name="strength", low=0)
    check_choice(norm_of, ("weight", "grad"), function="group_lasso_", name="norm_of")
    for layer in layers:
        weight = layer.weight
        given = weight if norm_of == "weight" else weight.grad
        if given is None:
            raise ValueError("group_lasso_: a layer has no gradient; call it after loss.backward()")
        norms = _tiles(given, block, "group_lasso_").square().sum(dim=(1, 3)).sqrt()
        share = (strength / (norms + 1e-12)).clamp(max=1.0)
        weight.sub_(weight * _spread(share, block))


def block_sparsity(weight: torch.Tensor, block: tuple[int, int] = (4, 1)) -> float:
    """Return the share of a weight's blocks that are 0 as a whole; accidental zeros inside kept blocks do not count."""
    kept = (_tiles(weight.detach(), block, "block_sparsity") != 0).any(dim=3).any(dim=1)
    return float((~kept).double().mean())


def _tiles(x, block, function):
    """Return a matrix cut into blocks, (m / br, br, n / bc, bc)."""
    br, bc = as_ints(block, 2, function=function, name="block", low=1)
    m, n = x.shape
    if m % br or n % bc:
        raise ValueError(f"{function}: a weight of {m} x {n} has no whole {br} x {bc} blocks; choose another block")
    return x.reshape(m // br, br, n // bc, bc)


def _spread(values, block):
    return values.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
