"""Convolutions with weights pruned at single places, run as sparse products: pictures to columns, then CSR x dense."""

import copy
from collections.abc import Mapping

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F

from kernels.matmul.spmm import spmm
from workbench.models.compression.channel_graph import prunable_layers

__all__ = ["SparseConv2d", "columns", "run_sparse"]


class SparseConv2d(nn.Module):
    """A convolution whose weight is a CSR matrix (outputs, inputs x kernel rows x kernel columns), for inference.

    Parameters
    ----------
    layer : a convolution without groups, float32, padded with zeros by numbers; its nonzero weights are kept.

    Raises
    ------
    ValueError : groups, padding by name or by anything but zeros.

    Source
    ------
    Chellapilla et al. 2006 (a convolution as a product over unrolled pictures).
    """

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        if layer.groups != 1 or isinstance(layer.padding, str) or layer.padding_mode != "zeros":
            raise ValueError("SparseConv2d: layer must have no groups and zeros as padding, given in numbers")
        weight = layer.weight.detach().float().flatten(1).numpy()
        self.weight = sparse.csr_array(weight)
        self.kernel_size, self.stride = layer.kernel_size, layer.stride
        self.padding, self.dilation = layer.padding, layer.dilation
        self.bias = None if layer.bias is None else layer.bias.detach().float()

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, outputs, h, w) of pictures (n, inputs, rows, columns) float32."""
        unrolled, (n, h, w) = columns(x, self.kernel_size, self.stride, self.padding, self.dilation)
        found = torch.from_numpy(spmm(self.weight, unrolled)).view(-1, n, h, w).transpose(0, 1)  # (n, m, h, w)
        return found if self.bias is None else found + self.bias[:, None, None]


def columns(
    x: Tensor,
    kernel_size: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, ...] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Unroll pictures: one column for each output pixel, holding what the kernel covers there.

    Parameters
    ----------
    x : float32 (n, channels, rows, columns).
    kernel_size, stride, padding, dilation : of the convolution, for rows and columns.

    Returns
    -------
    float32 (channels x kernel rows x kernel columns, n x h x w), C-contiguous, and (n, h, w).

    Cost
    ----
    One copy.
    """
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = kernel_size, stride, padding, dilation
    padded = F.pad(x.detach().float(), (pw, pw, ph, ph)) if ph or pw else x.detach().float()
    n, c, rows, across = padded.shape
    h, w = (rows - dh * (kh - 1) - 1) // sh + 1, (across - dw * (kw - 1) - 1) // sw + 1
    a, b, i, j = padded.stride()
    shape, strides = (c, kh, kw, n, h, w), (b, dh * i, dw * j, a, sh * i, sw * j)
    return padded.as_strided(shape, strides).reshape(c * kh * kw, n * h * w).contiguous().numpy(), (n, h, w)


def run_sparse(model: nn.Module, masks: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Return a copy of a model for inference whose convolutions are sparse products; depthwise ones stay dense.

    Parameters
    ----------
    model : any module; it is left as it is.
    masks : layer name -> bool, applied first; without them the zeros are those of the weights.

    Raises
    ------
    KeyError : a mask of a layer that the model does not have.
    """
    copied = copy.deepcopy(model).eval()
    layers = prunable_layers(copied)
    for name, mask in (masks or {}).items():
        if name not in layers:
            raise KeyError(f"run_sparse: masks name a layer {name} that the model does not have")
        layers[name].weight.data.mul_(mask)
    for name, layer in layers.items():
        if isinstance(layer, nn.Conv2d) and layer.groups == 1:
            above, _, last = name.rpartition(".")
            setattr(copied.get_submodule(above), last, SparseConv2d(layer))
    return copied
