"""What brings back a part of what pruning took: the kept weights fitted anew, and a short training.

Both leave the weights that are gone at 0 and need no labels: the layers, and then the whole copy, are to give what the
dense model gives.
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from kernels.check import as_int, as_number
from workbench.models.sparse_inference.statistics import InputStatistics, linear_layers

__all__ = ["Forward", "Loss", "Report", "learn_from", "recover", "refit"]

WARM = 0.05
DAMPING = 0.01  # of the mean diagonal of X^T X, as in SparseGPT
Forward = Callable[[nn.Module, Any], Any]
Loss = Callable[[nn.Module, nn.Module, Any], torch.Tensor]
Report = Callable[[float, str], None]


@torch.no_grad()
def refit(model: nn.Module, dense: nn.Module, statistics: Mapping[str, InputStatistics]) -> nn.Module:
    r"""Return a copy of a pruned model whose kept weights change the outputs of every layer least.

    .. math:: V_S = W G_{:,S} \, G_{SS}^{-1}, \qquad G = X^T X + \lambda I

    for the rows of a weight W that keep the same columns S: least squares on the inputs X of the dense model, with a
    small penalty, of one hundredth of the mean diagonal of X^T X, on leaving W.

    Parameters
    ----------
    model : the pruned model; left as it is.
    dense : the same model before pruning.
    statistics : what `gather_statistics` returned for the dense model. The layers that it names are fitted.

    Returns
    -------
    nn.Module like ``model``; a weight that is 0 stays 0.

    Raises
    ------
    KeyError : statistics of a layer that there is not. ValueError : statistics of another width.

    Cost
    ----
    A system of equations for each set of rows that keep the same columns, which 4 x 1 blocks do four by four.

    Source
    ------
    Hassibi and Stork 1993 (optimal brain surgeon), all weights of a row at once and with its mask given.
    """
    copied = copy.deepcopy(model)
    for (name, layer), before in zip(
        linear_layers(copied, statistics).items(), linear_layers(dense, statistics).values(), strict=True
    ):
        gram, weight = statistics[name].gram, before.weight.double().numpy()
        if gram.shape != (layer.in_features, layer.in_features):
            raise ValueError(
                f"refit: the statistics of layer {name!r} are of {len(gram)} inputs, the layer has "
                f"{layer.in_features}; gather them with the same model"
            )
        gram = gram + (DAMPING * np.trace(gram) / len(gram) or 1.0) * np.eye(len(gram))
        fitted = np.zeros_like(weight)
        for columns, rows in _alike(layer.weight.numpy() != 0).items():
            kept = np.frombuffer(columns, bool)
            solved = np.linalg.solve(gram[np.ix_(kept, kept)], gram[kept] @ weight[rows].T)
            fitted[np.ix_(rows, kept)] = solved.T
        layer.weight.copy_(torch.from_numpy(fitted))
    return copied


def _alike(kept) -> dict[bytes, list[int]]:
    """Return the rows that keep the same columns, by the bytes of the row."""
    found: dict[bytes, list[int]] = {}
    for i, row in enumerate(kept):
        found.setdefault(row.tobytes(), []).append(i)
    return found


def recover(
    model: nn.Module,
    dense: nn.Module,
    batches: Sequence[Any],
    *,
    steps: int,
    rate: float = 1e-4,
    loss: Loss | None = None,
    forward: Forward | None = None,
    layers: Iterable[str] | None = None,
    seed: int = 0,
    report: Report = lambda fraction, step: None,
) -> nn.Module:
    """Return a copy of a pruned model that was trained for a short while to give what the dense model gives.

    Weights that are 0 stay 0, whatever the pattern: single weights, n:m or blocks.

    Parameters
    ----------
    model : the pruned model; left as it is.
    dense : the same model before pruning; left as it is.
    batches : training data, what ``model(batch)`` takes; one a step, in turn.
    steps, rate : training steps, at least 1, and the highest learning rate.
    loss : ``loss(copy, dense, batch)`` -> scalar tensor; None for the mean squared difference of the outputs.
    forward : ``forward(model, batch)`` in place of ``model(batch)``.
    layers : names; None for those that `linear_layers` chooses. They and all layers of normalisation are trained.
    seed : for a model that draws numbers while it trains, such as one with dropout.
    report : ``report(fraction, step)`` as the work goes on; it may raise to stop it.

    Returns
    -------
    nn.Module like ``model``, for inference.

    Raises
    ------
    ValueError : no batches, no weight that is 0, or numbers out of range. KeyError : no such layer.

    Examples
    --------
    ``recover(pruned, model, batches, steps=100)``

    Source
    ------
    Hinton et al. 2015 (distillation); Han et al. 2015 (training of a pruned network with its mask fixed).
    """
    batches = list(batches)
    if not batches:
        raise ValueError("recover: batches is empty; give at least one batch of training data")
    steps = as_int(steps, function="recover", name="steps", low=1)
    rate = as_number(rate, function="recover", name="rate", above=0)
    pupil = copy.deepcopy(model)
    found = linear_layers(pupil, layers)
    masks = {name: layer.weight.detach() != 0 for name, layer in found.items()}
    if all(bool(mask.all()) for mask in masks.values()):
        raise ValueError("recover: no weight of model is 0; prune it first, and pass the model before pruning as dense")

    @torch.no_grad()
    def stay_gone():
        for name, layer in found.items():
            layer.weight.mul_(masks[name])

    how = {"loss": loss, "forward": forward, "layers": list(found), "seed": seed, "report": report}
    return learn_from(dense, pupil, batches, stay_gone, steps=steps, rate=rate, **how)


def learn_from(
    dense, pupil, batches, after_step, *, steps, rate, loss, forward, layers, seed, report, parameters=None
) -> nn.Module:  # fmt: skip
    """Train a copy in place to give what the dense model gives, and return it; checked arguments of `recover`.

    AdamW trains the named linear layers, or ``parameters`` of the copy in their place, and all layers of normalisation;
    ``after_step()`` is called after each of its steps, while the gradients are there.
    """
    pupil.train().requires_grad_(False)
    trained = list(parameters or (p for layer in linear_layers(pupil, layers).values() for p in layer.parameters()))
    trained += [p for m in pupil.modules() if isinstance(m, nn.LayerNorm | nn.RMSNorm) for p in m.parameters()]
    for parameter in trained:
        parameter.requires_grad_(True)
    distance = loss or _distance(forward)
    optimiser = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in range(steps):
            report(step / steps, f"training step {step + 1:,} of {steps:,}")
            optimiser.zero_grad()
            distance(pupil, dense, batches[step % len(batches)]).backward()
            optimiser.step()
            after_step()
            schedule.step()
    return pupil.eval().requires_grad_(False)


def _rate(step, steps):
    """Rise over the first twentieth, then fall along a cosine to a tenth."""
    warm = max(1, math.ceil(WARM * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))


def _distance(forward) -> Loss:
    run = forward or (lambda model, batch: model(batch))

    def distance(pupil, teacher, batch):
        with torch.no_grad():
            wanted = _tensor(run(teacher, batch))
        return F.mse_loss(_tensor(run(pupil, batch)), wanted)

    return distance


def _tensor(out) -> torch.Tensor:
    """Return the tensor that a model's output is about: itself, or the first part that a transformers model gives."""
    if isinstance(out, torch.Tensor):
        return out
    for name in ("logits", "last_hidden_state"):
        found = getattr(out, name, None)
        if isinstance(found, torch.Tensor):
            return found
    raise TypeError(
        f"training: the model returns {type(out).__name__}; pass loss=function(copy, model, batch) that compares two"
    )
