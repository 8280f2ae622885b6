"""What pruning needs to know of a model: its linear layers, their inputs on calibration data, and their gradients."""

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = [
    "InputStatistics",
    "gather_gradients",
    "gather_statistics",
    "input_ranges",
    "linear_layers",
    "relative_output_error",
]


@dataclass(frozen=True, eq=False)
class InputStatistics:
    """The inputs of one linear layer on calibration data.

    Parameters
    ----------
    gram : float64 (n, n), X^T X over all tokens x (rows of X).
    tokens : rows of X.
    """

    gram: np.ndarray
    tokens: int


def linear_layers(model: nn.Module, names: Iterable[str] | None = None) -> dict[str, nn.Linear]:
    """Return the linear layers that pruning is about, by name.

    Parameters
    ----------
    model : any module.
    names : which layers; None for those inside numbered blocks ("layers.3.feed_in"), which leaves out embeddings and
        the last projection onto a vocabulary or classes, or for all where a model has no numbered block.

    Raises
    ------
    KeyError : a name that is no linear layer of the model.
    ValueError : the model has no linear layer.
    """
    every = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if names is not None:
        wanted = list(names)
        missing = [name for name in wanted if name not in every]
        if missing:
            raise KeyError(f"linear_layers: {missing[0]!r} is no linear layer; there are {', '.join(every) or 'none'}")
        return {name: every[name] for name in wanted}
    if not every:
        raise ValueError("linear_layers: the model has no torch.nn.Linear")
    return {name: module for name, module in every.items() if re.search(r"(^|\.)\d+\.", name)} or every


@torch.no_grad()
def gather_statistics(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    layers: Mapping[str, nn.Linear] | None = None,
    forward: Callable[[nn.Module, Any], Any] | None = None,
) -> dict[str, InputStatistics]:
    """Run a model on calibration data and sum the outer products of every layer's inputs.

    Parameters
    ----------
    model : left as it is.
    batches : what ``model(batch)`` takes.
    layers : as `linear_layers` returns them; None for its default.
    forward : ``forward(model, batch)`` in place of ``model(batch)``, for models that take more than one argument.

    Returns
    -------
    layer name -> InputStatistics. Layers that are given one tensor, such as query, key and value, share the product.

    Raises
    ------
    ValueError : a layer saw no input.

    Cost
    ----
    n^2 multiply-adds in float64 for each token and each input of width n, beside the model's own.
    """
    layers = layers or linear_layers(model)
    sums = {name: torch.zeros(layer.in_features, layer.in_features, dtype=torch.float64)
            for name, layer in layers.items()}  # fmt: skip
    tokens = dict.fromkeys(layers, 0)
    last: list[Any] = [None, None]

    def seen(name, given):
        if given is not last[0]:
            x = given.flatten(0, -2).double()
            last[:] = [given, x.T @ x]
        sums[name] += last[1]
        tokens[name] += given.numel() // given.shape[-1]

    with _watching(layers, seen):
        for batch in batches:
            forward(model, batch) if forward else model(batch)
            last[:] = [None, None]
    _all_seen(layers, [name for name, count in tokens.items() if count], "gather_statistics")
    return {name: InputStatistics(total.numpy(), tokens[name]) for name, total in sums.items()}


@torch.no_grad()
def input_ranges(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    layers: Mapping[str, nn.Linear] | None = None,
    forward: Callable[[nn.Module, Any], Any] | None = None,
) -> dict[str, tuple[float, float]]:
    """Return the least and the largest input of every layer: name -> (low, high); arguments of `gather_statistics`.

    Raises
    ------
    ValueError : a layer saw no input.
    """
    layers = layers or linear_layers(model)
    found: dict[str, tuple[float, float]] = {}

    def seen(name, given):
        low, high = (float(x) for x in torch.aminmax(given))
        before = found.get(name, (low, high))
        found[name] = (min(low, before[0]), max(high, before[1]))

    with _watching(layers, seen):
        for batch in batches:
            forward(model, batch) if forward else model(batch)
    _all_seen(layers, found, "input_ranges")
    return found


def gather_gradients(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Callable[[nn.Module, Any], torch.Tensor],
    *,
    layers: Mapping[str, nn.Linear] | None = None,
) -> dict[str, np.ndarray]:
    """Return the gradient of a loss by every layer's weight, summed over batches: layer name -> float32 (m, n).

    Parameters
    ----------
    model : its weights and their gradients are left as they are.
    loss : ``loss(model, batch)`` -> scalar tensor.
    layers : as `linear_layers` returns them; None for its default.
    """
    layers = layers or linear_layers(model)
    weights = {name: layer.weight for name, layer in layers.items()}
    wanted = {name: weight.requires_grad for name, weight in weights.items()}
    total = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
    try:
        for weight in weights.values():
            weight.requires_grad_(True)
        for batch in batches:
            found = torch.autograd.grad(loss(model, batch), list(weights.values()))
            for name, gradient in zip(weights, found, strict=True):
                total[name] += gradient
    finally:
        for name, weight in weights.items():
            weight.requires_grad_(wanted[name])
    return {name: gradient.numpy() for name, gradient in total.items()}


def relative_output_error(weight: np.ndarray, pruned: np.ndarray, gram: np.ndarray) -> float:
    """Return the relative change of a layer's outputs, sqrt(tr(D G D^T) / tr(W G W^T)) with D = W - pruned.

    Parameters
    ----------
    weight, pruned : (m, n).
    gram : float64 (n, n), X^T X of the inputs.

    Returns
    -------
    At least 0; 0 where neither changes anything, infinity where the layer had no output before.
    """
    weight, change = weight.astype(np.float64), weight.astype(np.float64) - pruned
    before, after = (float(np.einsum("mn,mn->", part @ gram, part)) for part in (weight, change))
    if before <= 0:
        return 0.0 if after <= 0 else np.inf
    return float(np.sqrt(max(after, 0.0) / before))


def _all_seen(layers, seen, function):
    unseen = [name for name in layers if name not in seen]
    if unseen:
        raise ValueError(f"{function}: layer {unseen[0]!r} saw no input; give batches that reach every layer")


@contextmanager
def _watching(layers, seen):
    """Call ``seen(name, input)`` whenever one of the layers runs."""
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, name=name: seen(name, given[0]))
        for name, layer in layers.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
