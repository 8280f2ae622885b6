"""A small seeded training loop for classifiers of pictures, with masks that hold through every step."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels.check import as_int, as_number
from workbench.models.compression.channel_graph import prunable_layers

__all__ = ["History", "accuracy", "train"]

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
JUDGED = 512  # examples that are judged at once


@dataclass(frozen=True, kw_only=True)
class History:
    """What a training did, one entry an epoch.

    Parameters
    ----------
    losses : mean cross-entropy of the batches, in nats.
    seconds : wall-clock time of the epoch, without the test.
    accuracies : share of the test examples that are recognised; empty without test data.
    """

    losses: tuple[float, ...]
    seconds: tuple[float, ...]
    accuracies: tuple[float, ...]


def train(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    masks: Mapping[str, Tensor] | None = None,
    *,
    epochs: int = 15,
    rate: float = 0.1,
    batch: int = 64,
    seed: int = 0,
    test: tuple[Tensor, Tensor] | None = None,
    report: Callable[[float, str], None] = lambda fraction, step: None,
) -> History:
    """Train a classifier in place: SGD with momentum 0.9, weight decay 5e-4, and a cosine schedule down to zero.

    Parameters
    ----------
    model : pictures (n, channels, rows, columns) -> logits (n, classes).
    data : inputs and int64 labels.
    masks : layer name -> bool (shape of its weight). Weights outside are zero before the first step and after each
        one, so that neither momentum nor decay revives them.
    epochs, rate, batch : passes over the data, first learning rate, examples a step.
    seed : of the order of the examples.
    test : inputs and labels that are judged after every epoch.
    report : ``report(fraction, step)``, called after every step; it may raise to stop the training.

    Returns
    -------
    History.

    Raises
    ------
    KeyError : a mask of a layer that the model does not have.
    ValueError : a mask of another shape than its weight, no example, or a value out of range.

    Source
    ------
    He et al. 2016, section 4.2, with a cosine in place of steps.
    """
    epochs = as_int(epochs, function="train", name="epochs", low=0)
    batch = as_int(batch, function="train", name="batch", low=1)
    rate = as_number(rate, function="train", name="rate", low=0)
    seed = as_int(seed, function="train", name="seed", low=0)
    x, labels = data
    if not len(x) or len(x) != len(labels):
        raise ValueError(
            f"train: data must hold as many labels as inputs and one at least, got {len(x)}, {len(labels)}"
        )
    held = _held(model, masks or {})
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    steps = epochs * -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    rng = np.random.default_rng(seed)
    losses, seconds, accuracies, done = [], [], [], 0
    _apply(held)
    for epoch in range(epochs):
        model.train()
        start, total = time.perf_counter(), 0.0
        for some in torch.from_numpy(rng.permutation(len(x))).split(batch):
            optimiser.zero_grad()
            loss = F.cross_entropy(model(x[some]), labels[some])
            loss.backward()
            optimiser.step()
            schedule.step()
            _apply(held)
            total += float(loss.detach()) * len(some)
            done += 1
            report(done / steps, f"epoch {epoch + 1} of {epochs}")
        seconds.append(time.perf_counter() - start)
        losses.append(total / len(x))
        if test is not None:
            accuracies.append(accuracy(model, test))
    return History(losses=tuple(losses), seconds=tuple(seconds), accuracies=tuple(accuracies))


@torch.no_grad()
def accuracy(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    """Return the share of examples that a model recognises, in evaluation mode; its mode is left as it was."""
    was = model.training
    model.eval()
    x, labels = data
    right = [model(some).argmax(1) == of for some, of in zip(x.split(JUDGED), labels.split(JUDGED), strict=True)]
    model.train(was)
    return float(torch.cat(right).float().mean())


def _held(model, masks):
    layers, found = prunable_layers(model), []
    for name, mask in masks.items():
        if name not in layers:
            raise KeyError(f"train: masks name a layer {name} that the model does not have; it has {', '.join(layers)}")
        if mask.shape != layers[name].weight.shape:
            want, got = tuple(layers[name].weight.shape), tuple(mask.shape)
            raise ValueError(f"train: the mask of {name} must have the shape of its weight {want}, got {got}")
        found.append((layers[name].weight, ~mask))
    return found


@torch.no_grad()
def _apply(held):
    for weight, gone in held:
        weight.masked_fill_(gone, 0.0)
