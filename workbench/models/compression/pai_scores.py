"""Pruning at initialisation: what each weight is worth before any training, by five rules.

Theta are the weights, L the loss of a batch, g its gradient and H its Hessian with respect to theta.

* SynFlow: |dR/dtheta theta|, where R is the sum of the outputs for an input of ones, and every parameter and buffer is
  taken at its absolute value. It needs no data. ReLU6 layers are taken without their cap: above it no gradient flows,
  and the layers before would seem worthless.
* SNIP: |g theta|, divided by the sum of all.
* GraSP: (H g) theta, with logits divided by a temperature, divided by |the sum of all|; the largest are kept.
* magnitude: |theta|; random: uniform on [0, 1).

All are taken in evaluation mode, so that BatchNorm uses its stored statistics.
"""

import copy
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels.check import as_int, as_number, check_choice
from kernels.masks.threshold import topk_mask
from workbench.models.compression.channel_graph import prunable_layers

__all__ = [
    "METHODS", "layerwise_density", "masked", "pai_masks", "pai_scores", "random_masks", "shuffle_masks",
]  # fmt: skip

Batches = Iterable[tuple[Tensor, Tensor]]
Masks = Mapping[str, Tensor]
TEMPERATURE = 200.0  # of GraSP's logits
SMALLEST = 1e-10  # added to the sum by which GraSP's scores are divided
UNCAPPED = ("synflow",)
ROUNDS = {"synflow": 100}  # of the method where none are given; all others choose at once
SCHEDULES = {
    "exponential": lambda density, done: density**done,
    "linear": lambda density, done: 1 - (1 - density) * done,
}


def pai_scores(
    model: nn.Module,
    method: str = "synflow",
    loader: Batches | None = None,
    loss_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
    seed: int = 0,
    *,
    input_shape: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:
    """Return what every weight of the convolutions and linear layers is worth.

    Parameters
    ----------
    model : any module; it is left as it is.
    method : "synflow", "snip", "grasp", "magnitude" or "random".
    loader : for SNIP and GraSP, batches (inputs, labels) whose losses are averaged; one batch is usual.
    loss_fn : ``loss_fn(outputs, labels)``; cross-entropy unless given.
    seed : for random scores.
    input_shape : for SynFlow, (channels, rows, columns) of an input; taken from the first batch of ``loader`` if there
        is one.
    dtype : in which scores are computed; the product over many layers leaves float32 in deep nets.

    Returns
    -------
    Layer name -> scores (shape of its weight) of ``dtype``.

    Raises
    ------
    ValueError : an unknown method, a module without such layers, or no batches or shape where they are needed.
    ArithmeticError : a score is infinite or NaN.

    Cost
    ----
    SynFlow one pass forward and backward with one example; SNIP one for each batch, GraSP two of them and one through
    the gradient.

    Source
    ------
    Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving synaptic flow" (SynFlow);
    Lee et al. 2019 (SNIP); Wang et al. 2020 (GraSP), with the signs and the temperature of SynFlow's released code.
    """
    return _Scorer(model, method, loader, loss_fn, seed, input_shape, dtype).scores()


def pai_masks(
    model: nn.Module,
    method: str = "synflow",
    density: float = 0.1,
    rounds: int | None = None,
    schedule: str = "exponential",
    scope: str = "global",
    report: Callable[[float, str], None] = lambda fraction, step: None,
    **scoring,
) -> dict[str, Tensor]:
    """Choose the weights that stay before training: the N - int((1 - density) N) of the highest scores.

    With several rounds, round e of n keeps the density density^(e / n) ("exponential") or
    1 - (1 - density) e / n ("linear"), by the scores of the net masked so far.

    Parameters
    ----------
    model, method, **scoring : as for `pai_scores`; the model is left as it is.
    density : share that stays, in (0, 1].
    rounds : 100 for SynFlow and 1 for all others unless given.
    schedule : "exponential" or "linear".
    scope : "global" compares all layers' scores, "layer" keeps the same share of every layer.
    report : ``report(fraction, step)``, called before every round; it may raise to stop the work.

    Returns
    -------
    Layer name -> bool (shape of its weight). Of equal scores those that come first stay.

    Raises
    ------
    ValueError, ArithmeticError : as `pai_scores`; a density outside (0, 1], or fewer than one round.

    Source
    ------
    Tanaka et al. 2020, Algorithm 1.
    """
    check_choice(method, tuple(METHODS), function="pai_masks", name="method")
    check_choice(schedule, tuple(SCHEDULES), function="pai_masks", name="schedule")
    check_choice(scope, ("global", "layer"), function="pai_masks", name="scope")
    density = _density(density, "pai_masks")
    rounds = as_int(ROUNDS.get(method, 1) if rounds is None else rounds, function="pai_masks", name="rounds", low=1)
    scorer = _Scorer(model, method, **scoring)
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in scorer.weights.items()}
    for e in range(1, rounds + 1):
        report((e - 1) / rounds, f"round {e} of {rounds}")
        scores = {name: score.masked_fill(~masks[name], -torch.inf) for name, score in scorer.scores(masks).items()}
        masks = _kept(scores, SCHEDULES[schedule](density, e / rounds), scope)
    return masks


def layerwise_density(masks: Masks) -> dict[str, float]:
    """Return the share of every layer's weights that stays: all that PreCropping takes from a mask."""
    return {name: float(mask.double().mean()) if mask.numel() else 0.0 for name, mask in masks.items()}


def shuffle_masks(masks: Masks, seed: int = 0) -> dict[str, Tensor]:
    """Return masks with as many weights in every layer, at places drawn at random.

    Parameters
    ----------
    masks : layer name -> bool.
    seed : equal seeds give equal masks.

    Source
    ------
    Frankle et al. 2021, "Pruning neural networks at initialization: why are we missing the mark?", section 5.
    """
    rng = np.random.default_rng(as_int(seed, function="shuffle_masks", name="seed", low=0))
    return {
        name: torch.from_numpy(rng.permutation(mask.numpy().reshape(-1)).reshape(tuple(mask.shape)))
        for name, mask in masks.items()
    }


def random_masks(model: nn.Module, densities: Mapping[str, float] | float, seed: int = 0) -> dict[str, Tensor]:
    """Draw masks at random with a given density in every layer.

    Parameters
    ----------
    model : any module.
    densities : layer name -> share in [0, 1], or one share for all layers.
    seed : equal seeds give equal masks.

    Returns
    -------
    Layer name -> bool, with round(density x size) True.

    Raises
    ------
    KeyError : a layer without a density. ValueError : a density outside [0, 1].
    """
    rng = np.random.default_rng(as_int(seed, function="random_masks", name="seed", low=0))
    found = {}
    for name, layer in prunable_layers(model).items():
        if isinstance(densities, Mapping) and name not in densities:
            raise KeyError(f"random_masks: densities has no layer {name}; it has {', '.join(densities)}")
        share = densities[name] if isinstance(densities, Mapping) else densities
        share = as_number(share, function="random_masks", name="densities", low=0, high=1)
        mask = np.zeros(layer.weight.numel(), bool)
        mask[rng.permutation(mask.size)[: round(share * mask.size)]] = True
        found[name] = torch.from_numpy(mask.reshape(tuple(layer.weight.shape)))
    return found


@torch.no_grad()
def masked(model: nn.Module, masks: Masks) -> nn.Module:
    """Return a copy of a model whose weights outside the masks are zero; KeyError names a layer that is not there."""
    copied = copy.deepcopy(model)
    layers = prunable_layers(copied)
    for name, mask in masks.items():
        if name not in layers:
            raise KeyError(f"masked: the model has no layer {name}; it has {', '.join(layers)}")
        layers[name].weight.mul_(mask)
    return copied


class _Scorer:
    """A copy of a model that scores its weights again and again, under one mask after the other."""

    def __init__(
        self, model, method="synflow", loader=None, loss_fn=None, seed=0, input_shape=None, dtype=torch.float64
    ):
        check_choice(method, tuple(METHODS), function="pai_scores", name="method")
        self.method, self.dtype = method, dtype
        self.seed = as_int(seed, function="pai_scores", name="seed", low=0)
        self.model = copy.deepcopy(model).to(dtype).eval()
        if method in UNCAPPED:
            _lift_caps(self.model)
        self.layers = prunable_layers(self.model)
        if not self.layers:
            raise ValueError("pai_scores: model must have Conv2d or Linear layers, got none")
        self.weights = {name: layer.weight.detach().clone() for name, layer in self.layers.items()}
        self.batches = [(x.to(dtype) if x.is_floating_point() else x, y) for x, y in loader or ()]
        self.loss_fn = loss_fn or F.cross_entropy
        first = tuple(self.batches[0][0].shape[1:]) if self.batches else None
        self.input_shape = input_shape or first

    def scores(self, masks=None):
        """Return the scores of the model under masks; ArithmeticError if one is not finite."""
        with torch.no_grad():
            for name, layer in self.layers.items():
                layer.weight.copy_(self.weights[name] if masks is None else self.weights[name] * masks[name])
        with torch.enable_grad():
            scores = METHODS[self.method](self)
        for name, score in scores.items():
            if not bool(torch.isfinite(score).all()):
                raise ArithmeticError(
                    f"pai_scores: {self.method} gave infinite scores or NaN in {name} with {self.dtype}; pass "
                    "dtype=torch.float64, or scale the initial weights down"
                )
        return scores

    def mean_loss(self, temperature=1.0):
        """Return the mean of the batches' losses."""
        if not self.batches:
            raise ValueError("pai_scores: SNIP and GraSP need a loader: batches of (inputs, labels)")
        losses = [self.loss_fn(self.model(x) / temperature, y) for x, y in self.batches]
        return torch.stack(losses).mean()

    def gradients(self, output, **how):
        """Return the gradients of a number with respect to the weights of the layers."""
        return torch.autograd.grad(output, [layer.weight for layer in self.layers.values()], **how)

    def times_weights(self, gradients):
        """Return gradient times weight, by layer."""
        each = zip(self.layers.items(), gradients, strict=True)
        return {name: (layer.weight * g).detach() for (name, layer), g in each}


def _density(density, function):
    density = as_number(density, function=function, name="density", low=0, high=1)
    if density == 0:
        raise ValueError(f"{function}: density must be in (0, 1], got 0: nothing would be left to train")
    return density


def _kept(scores, density, scope):
    if scope == "layer":
        return {name: _largest({name: score}, density)[name] for name, score in scores.items()}
    return _largest(scores, density)


def _largest(scores, density):
    flat = torch.cat([score.reshape(-1) for score in scores.values()]).numpy()
    mask = torch.from_numpy(topk_mask(flat, flat.size - int((1 - density) * flat.size + 1e-9)))
    parts = mask.split([score.numel() for score in scores.values()])
    return {name: part.reshape(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}


def _synflow(of):
    if of.input_shape is None:
        raise ValueError("pai_scores: SynFlow needs input_shape=(channels, rows, columns), or a loader")
    with torch.no_grad():
        for tensor in (*of.model.parameters(), *of.model.buffers()):
            if tensor.is_floating_point():
                tensor.abs_()
    flow = of.model(torch.ones(1, *of.input_shape, dtype=of.dtype)).sum()
    return {name: score.abs() for name, score in of.times_weights(of.gradients(flow)).items()}


def _snip(of):
    found = {name: score.abs() for name, score in of.times_weights(of.gradients(of.mean_loss())).items()}
    return _over(found, sum(float(score.sum()) for score in found.values()))


def _grasp(of):
    loss = of.mean_loss(TEMPERATURE)
    still = [g.detach() for g in of.gradients(loss, retain_graph=True)]
    moving = of.gradients(loss, create_graph=True)
    product = torch.stack([(a * b).sum() for a, b in zip(still, moving, strict=True)]).sum()
    found = of.times_weights(of.gradients(product))
    return _over(found, abs(sum(float(score.sum()) for score in found.values())) + SMALLEST)


def _magnitude(of):
    return {name: layer.weight.detach().abs() for name, layer in of.layers.items()}


def _random(of):
    generator = torch.Generator().manual_seed(of.seed)
    return {
        name: torch.rand(layer.weight.shape, generator=generator, dtype=of.dtype) for name, layer in of.layers.items()
    }


def _lift_caps(model):
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.ReLU6):
            above, _, last = name.rpartition(".")
            setattr(model.get_submodule(above), last, nn.ReLU())


def _over(scores, total):
    return {name: score / total for name, score in scores.items()}


METHODS = {"synflow": _synflow, "snip": _snip, "grasp": _grasp, "magnitude": _magnitude, "random": _random}
