"""Convolutions with weights pruned at single places, run as sparse products: pictures to columns, then CSR x dense."""

import copy
from collections.abc import Mapping
from math import prod

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F

from kernels.check import as_ints, is_canonical
from kernels.matmul.spmm import spmm
from workbench.models.compression.channel_graph import prunable_layers

__all__ = ["SparseConv2d", "columns", "run_sparse"]


class SparseConv2d(nn.Module):
    """A convolution whose weight is a CSR matrix (outputs, inputs x kernel rows x kernel columns), for inference.

    Make one with `from_conv`.

    Parameters
    ----------
    weight : csr_array float32, indices of a row strictly rising.
    bias : (outputs,) floats or None.
    kernel_size, stride, padding, dilation : of the convolution, two numbers each.

    Raises
    ------
    TypeError, ValueError : weight is no such matrix or is malformed, or shapes do not fit.

    Source
    ------
    Chellapilla et al. 2006 (a convolution as a product over unrolled pictures).
    """

    stored_as = "sparse_convolution"
    groups, padding_mode = 1, "zeros"
    bias: Tensor | None
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def __init__(self, weight, bias, kernel_size, stride, padding, dilation):
        super().__init__()
        name = "SparseConv2d"
        self.weight, rising = is_canonical(weight, function=name, name="weight", dtypes=(np.float32,))
        if not rising:
            raise ValueError(f"{name}: weight must have rising indices in each row; call weight.sum_duplicates()")
        lows = {"kernel_size": 1, "stride": 1, "padding": 0, "dilation": 1}
        given = dict(zip(lows, (kernel_size, stride, padding, dilation), strict=True))
        for what, low in lows.items():
            setattr(self, what, as_ints(given[what], 2, function=name, name=what, low=low, high=2**20))
        self.out_channels, wide = self.weight.shape
        self.in_channels, rest = divmod(wide, prod(self.kernel_size))
        if rest or (bias is not None and (bias.shape != (self.out_channels,) or not bias.is_floating_point())):
            raise ValueError(
                f"{name}: weight must be (outputs, inputs x {prod(self.kernel_size)}) and bias floats (outputs,), got "
                f"{self.weight.shape} and {None if bias is None else (tuple(bias.shape), bias.dtype)}"
            )
        self.register_buffer("bias", bias)

    @classmethod
    def from_conv(cls, layer: nn.Conv2d) -> "SparseConv2d":
        """Make one of a convolution without groups, padded with zeros by numbers; its nonzero weights are kept.

        Raises
        ------
        ValueError : groups, padding by name or by anything but zeros.
        """
        if layer.groups != cls.groups or isinstance(layer.padding, str) or layer.padding_mode != cls.padding_mode:
            raise ValueError("SparseConv2d.from_conv: layer must have no groups and zeros as padding, given in numbers")
        weight = sparse.csr_array(layer.weight.detach().float().flatten(1).numpy())
        bias = None if layer.bias is None else layer.bias.detach().float().clone()
        return cls(weight, bias, layer.kernel_size, layer.stride, layer.padding, layer.dilation)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, outputs, h, w) of pictures (n, inputs, rows, columns) float32."""
        unrolled, (n, h, w) = columns(x, self.kernel_size, self.stride, self.padding, self.dilation)
        found = torch.from_numpy(spmm(self.weight, unrolled)).view(-1, n, h, w).transpose(0, 1)  # (n, m, h, w)
        return found if self.bias is None else found + self.bias[:, None, None]

    def file_parts(self):
        """Return what a file keeps; `workbench.models.layer_files`."""
        config = {what: getattr(self, what) for what in ("kernel_size", "stride", "padding", "dilation")}
        arrays = {"starts": self.weight.indptr, "columns": self.weight.indices, "values": self.weight.data}
        tensors = {part: torch.from_numpy(array.copy()) for part, array in arrays.items()}
        return config | {"width": self.weight.shape[1]}, tensors | dict(self.state_dict())

    @classmethod
    def from_file(cls, config, tensors, dense):
        """Make the layer of what a file kept."""
        starts, at, values = (tensors[part].numpy() for part in ("starts", "columns", "values"))
        weight = sparse.csr_array((values, at, starts), shape=(len(starts) - 1, config["width"]))
        settings = (tuple(config[what]) for what in ("kernel_size", "stride", "padding", "dilation"))
        return cls(weight, tensors.get("bias"), *settings)


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
            setattr(copied.get_submodule(above), last, SparseConv2d.from_conv(layer))
    return copied
