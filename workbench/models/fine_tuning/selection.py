r"""Which entries of a model are trained: those closest to zero, those furthest from it, or any.

.. math:: M_l = (|P_l| < \theta) \quad\text{with one}\ \theta\ \text{for all tensors}

An entry is where the mask of its tensor is True. `unstructural_map` makes a tensor whose chosen entries are a vector of
their own, so that gradients and an optimiser's state exist for them alone.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import nn

from kernels.check import as_int, as_number
from kernels.masks.threshold import quantile_threshold, topk_threshold

__all__ = [
    "flat_places",
    "places_digest",
    "select_largest",
    "select_random",
    "select_smallest",
    "smallest_threshold",
    "unstructural_map",
]

INT32_END = 2**31
Tensors = Mapping[str, torch.Tensor]


def select_smallest(model: nn.Module, threshold=None, fraction=None) -> dict[str, torch.Tensor]:
    """Choose the entries of all parameters whose magnitude is below one threshold.

    Parameters
    ----------
    model : of floating-point parameters.
    threshold : above which and at which nothing is chosen, at least 0; infinity chooses all.
    fraction : in (0, 1), in place of a threshold: the share of all entries that lies below it.

    Returns
    -------
    name -> bool tensor of the parameter's shape. Of entries with just the magnitude at the fraction none is chosen.

    Raises
    ------
    ValueError : both or neither of threshold and fraction, one out of range, or a parameter of integers.

    Cost
    ----
    One pass with a threshold; with a fraction a copy of all magnitudes and an exact selection.

    Source
    ------
    Hu et al. 2024, "SaRA"; global over all tensors, not layer by layer.
    """
    given = _parameters(model, "select_smallest")
    theta = smallest_threshold(given, threshold, fraction, "select_smallest")
    return {name: p.abs() < theta for name, p in given.items()}


def select_largest(model: nn.Module, fraction) -> dict[str, torch.Tensor]:
    """Choose the share of all entries whose magnitude is largest; arguments and errors as of `select_smallest`.

    Source
    ------
    The ablation of Hu et al. 2024, "SaRA".
    """
    given = _parameters(model, "select_largest")
    flat = _magnitudes(given)
    least = topk_threshold(flat, max(1, round(_as_fraction(fraction, "select_largest") * flat.size)))
    return {name: p.abs() >= float(least) for name, p in given.items()}


def select_random(model: nn.Module, fraction, seed=0) -> dict[str, torch.Tensor]:
    """Choose a share of all entries by chance, each combination as likely as any other.

    Source
    ------
    The ablation of Hu et al. 2024, "SaRA".
    """
    given, share = _parameters(model, "select_random"), _as_fraction(fraction, "select_random")
    seed = as_int(seed, function="select_random", name="seed", low=0)
    size = sum(p.numel() for p in given.values())
    chosen = torch.zeros(size, dtype=torch.bool)
    chosen[torch.randperm(size, generator=torch.Generator().manual_seed(seed))[: max(1, round(share * size))]] = True
    parts = chosen.split([p.numel() for p in given.values()])
    return {name: part.view(p.shape).clone() for (name, p), part in zip(given.items(), parts, strict=True)}


def smallest_threshold(parameters: Tensors, threshold, fraction, function: str) -> float:
    """Return the threshold that was given, or the one below which a fraction of all entries lies; check both."""
    if (threshold is None) == (fraction is None):
        got = "neither" if threshold is None else "both"
        raise ValueError(f"{function}: give one of threshold and fraction, got {got}")
    if threshold is not None:
        if isinstance(threshold, (float, np.floating)) and threshold == math.inf:
            return math.inf
        return as_number(threshold, function=function, name="threshold", low=0)
    fraction = _as_fraction(fraction, function)
    return float(quantile_threshold(_magnitudes(parameters), fraction, method="higher"))


def flat_places(mask: torch.Tensor) -> torch.Tensor:
    """Return the places of a mask's True entries in C order, rising, as int32 where that reaches, else int64."""
    found = mask.reshape(-1).nonzero().view(-1)
    return found.to(torch.int32) if mask.numel() < INT32_END else found


def places_digest(places: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Return a digest of names and their places, equal for two selections only if they are the same."""
    total = hashlib.sha256()
    for name, index in places:
        total.update(f"{name}:{len(index)};".encode())
        total.update(index.to(torch.int64).contiguous().numpy().tobytes())
    return total.hexdigest()


class _UnstructuralMap(torch.autograd.Function):
    """Writes the learnt values into the stored tensor, and keeps nothing but their places."""

    @staticmethod
    def forward(ctx, P, p_learn, index):
        ctx.save_for_backward(index)
        flat = P.view(-1)
        if not torch.equal(flat[index], p_learn):  # a second use of the same values leaves the tensor untouched
            flat[index] = p_learn
        return P.view_as(P)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[override]
        (index,) = ctx.saved_tensors
        return None, gradient.reshape(-1)[index], None


def unstructural_map(P: torch.Tensor, p_learn: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return a tensor whose chosen entries are a vector of their own.

    Parameters
    ----------
    P : contiguous, of any shape, without gradient. The values of ``p_learn`` are written into it, and the result shares
        its memory.
    p_learn : (k,) of the dtype of P.
    index : (k,) int32 or int64, flat places in C order, each once; or a bool mask of P's shape with k True entries.

    Returns
    -------
    Tensor of P's shape. Its gradient is gathered at the places; the dense one is let go at once.

    Raises
    ------
    TypeError, ValueError : dtypes or shapes that do not fit, P wants a gradient or is not contiguous, or places out of
        range.

    Source
    ------
    Hu et al. 2024, "SaRA", unstructural backpropagation. *Differs from the released code:* the values begin with their
    sign, not with their magnitude.
    """
    name = "unstructural_map"
    if P.requires_grad or not P.is_contiguous():
        raise ValueError(f"{name}: P must be contiguous and want no gradient; pass P.detach().contiguous()")
    if not P.is_floating_point() or p_learn.dtype != P.dtype:
        raise TypeError(f"{name}: p_learn must have the floating-point dtype of P, {P.dtype}, got {p_learn.dtype}")
    if index.dtype == torch.bool:
        if index.shape != P.shape:
            raise ValueError(f"{name}: a mask must have the shape of P, {tuple(P.shape)}, got {tuple(index.shape)}")
        mask = index.reshape(-1)
        if p_learn.shape != (int(mask.sum()),):
            raise ValueError(f"{name}: p_learn must be ({int(mask.sum())},), as the mask, got {tuple(p_learn.shape)}")
        return _UnstructuralMap.apply(P, p_learn, mask)
    if index.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{name}: index must be int32, int64 or bool, got {index.dtype}")
    if index.ndim != 1 or p_learn.shape != index.shape:
        raise ValueError(
            f"{name}: index and p_learn must both be (k,), got {tuple(index.shape)}, {tuple(p_learn.shape)}"
        )
    if len(index) and not (int(index.min()) >= 0 and int(index.max()) < P.numel()):
        raise ValueError(f"{name}: index must be in [0, {P.numel()}), got {int(index.min())} to {int(index.max())}")
    return _UnstructuralMap.apply(P, p_learn, index)


def _parameters(model: nn.Module, function: str) -> dict[str, torch.Tensor]:
    given = {name: p.detach() for name, p in model.named_parameters()}
    whole = [name for name, p in given.items() if not p.is_floating_point()]
    if whole or not given:
        got = f"{whole[0]!r} of {given[whole[0]].dtype}" if whole else "none"
        raise ValueError(f"{function}: model must have floating-point parameters only, got {got}")
    return given


def _magnitudes(parameters: Tensors) -> np.ndarray:
    wide = any(p.dtype == torch.float64 for p in parameters.values())
    dtype = torch.float64 if wide else torch.float32
    return torch.cat([p.detach().reshape(-1).to(dtype).abs() for p in parameters.values()]).numpy()


def _as_fraction(fraction, function: str) -> float:
    fraction = as_number(fraction, function=function, name="fraction", above=0)
    if fraction >= 1:
        raise ValueError(f"{function}: fraction must lie between 0 and 1, got {fraction}")
    return fraction
