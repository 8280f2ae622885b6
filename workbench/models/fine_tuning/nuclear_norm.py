r"""The nuclear norm of the chosen entries of a weight, which training may be asked to keep small.

.. math:: \|P \odot M\|_* = \sum_i \sigma_i, \qquad
          \frac{\partial}{\partial P} = (U V^T) \odot M \quad\text{for}\quad P \odot M = U \Sigma V^T

Where M has empty rows, many singular values are 0 and their vectors arbitrary: only the others enter the gradient.
"""

from collections.abc import Mapping

import torch

from kernels.check import as_int, as_number

__all__ = ["eligible", "nuclear_gradient", "nuclear_norm", "rank_penalty"]

SIDE = 64  # a matrix takes part if its shorter side is longer than this


class _NuclearNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, P, mask):
        norm, gradient = _norm_and_gradient(P, mask)
        ctx.save_for_backward(gradient)
        return norm

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[override]
        (direction,) = ctx.saved_tensors
        return gradient * direction, None


def nuclear_norm(P: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the sum of the singular values of a matrix whose other entries count as 0.

    Parameters
    ----------
    P : (m, n), floating-point and finite.
    mask : bool (m, n).

    Returns
    -------
    Scalar, with a gradient at the chosen entries only.

    Raises
    ------
    ValueError : shapes that do not fit, or no matrix. TypeError : mask is not bool.

    Source
    ------
    Hu et al. 2024, "SaRA": of the weight itself, not of its change.
    """
    _check(P, mask, "nuclear_norm")
    return _NuclearNorm.apply(P, mask)


def nuclear_gradient(P: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the gradient of `nuclear_norm`, (m, n), zero at entries that are not chosen."""
    _check(P, mask, "nuclear_gradient")
    return _norm_and_gradient(P.detach(), mask)[1]


def eligible(masks: Mapping[str, torch.Tensor], side: int = SIDE) -> list[str]:
    """Return the names of matrices with a chosen entry whose shorter side is longer than ``side``."""
    return [n for n, mask in masks.items() if mask.ndim == 2 and min(mask.shape) > side and bool(mask.any())]


def rank_penalty(weights: Mapping[str, torch.Tensor], masks: Mapping[str, torch.Tensor], factor, *, draw=None,
                 side=SIDE) -> torch.Tensor:  # fmt: skip
    """Return the weighed nuclear norm of one matrix, drawn anew at every call.

    Parameters
    ----------
    weights, masks : name -> tensor, and bool tensor of its shape.
    factor : at least 0.
    draw : torch.Generator that draws the matrix; PyTorch's own unless given.
    side : only matrices whose shorter side is longer take part.

    Returns
    -------
    Scalar to be added to the loss; 0 where no matrix takes part.

    Raises
    ------
    ValueError : factor below 0, or what `nuclear_norm` refuses.

    Source
    ------
    Hu et al. 2024, "SaRA", and the released code, which takes one matrix with sides over 64 in each step.
    """
    factor = as_number(factor, function="rank_penalty", name="factor", low=0)
    names = eligible(masks, as_int(side, function="rank_penalty", name="side", low=0))
    if not names or not factor:
        return next(iter(weights.values())).new_zeros(())
    name = names[int(torch.randint(len(names), (), generator=draw))]
    return factor * nuclear_norm(weights[name], masks[name])


def _norm_and_gradient(P, mask):
    U, sizes, Vh = torch.linalg.svd(P * mask, full_matrices=False)
    least = sizes.amax() * max(P.shape) * torch.finfo(P.dtype).eps if sizes.numel() else 0.0
    there = sizes > least
    return sizes.sum(), (U[:, there] @ Vh[there]) * mask


def _check(P, mask, function):
    if P.ndim != 2 or P.shape != mask.shape:
        raise ValueError(f"{function}: P and mask must be (m, n), got {tuple(P.shape)} and {tuple(mask.shape)}")
    if mask.dtype != torch.bool:
        raise TypeError(f"{function}: mask must be bool, got {mask.dtype}; pass mask != 0")
