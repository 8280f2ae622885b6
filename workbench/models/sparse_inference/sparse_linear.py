"""A linear layer on the int8 kernel for constant blocks, and how layers take the place of a model's."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from kernels.check import as_ints, as_number
from kernels.formats.block_groups import BlockGroupedWeight
from kernels.masks.blocks import block_prune_mask
from kernels.matmul.quantize import fold_zero_point, quantize_activation_u8, quantize_weight_s8_per_channel
from kernels.matmul.spmm_int8 import spmm_int8

__all__ = ["SparseLinear", "replace_linear"]


class SparseLinear(nn.Module):
    """y = W x + b with W int8 in constant blocks and x quantised to bytes on the way in; for inference.

    Make one with `from_linear`.

    Parameters
    ----------
    weight : BlockGroupedWeight (m, k) of int8 whose groups have four columns.
    weight_scale : float32 (m,), the step of every row.
    bias : float32 (m,) or None.
    low, high : range of the inputs, known from calibration; both None: that of every input as it comes.

    Source
    ------
    Shen et al. 2023. *Differs from the paper:* this layer takes and gives rows of tokens, as torch does, and turns them
    around; `workbench.models.sparse_inference.encoder` keeps the kernel's layout from layer to layer.
    """

    stored_as = "block_groups"

    def __init__(self, weight, weight_scale, bias=None, low=None, high=None):
        super().__init__()
        self.weight, self.weight_scale, self.bias = weight, weight_scale, bias
        self.low, self.high = low, high
        self._folded: tuple[tuple[float, int], tuple[np.ndarray, np.ndarray]] | None = None
        self.out_features, self.in_features = weight.shape

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        *,
        sparsity: float | None = None,
        block: tuple[int, int] = (4, 1),
        low: float | None = None,
        high: float | None = None,
    ) -> "SparseLinear":
        """Quantise a linear layer whose blocks are pruned already, or prune it by magnitude first.

        Parameters
        ----------
        linear : float32, its output features a multiple of the block's rows.
        sparsity : share of the blocks to prune by magnitude; None takes the zeros that there are.
        block : (br, bc); bc must be 1, 2 or 4, and the kernel is fastest with (4, 1).
        low, high : range of the inputs, or None for a range taken at every call.

        Raises
        ------
        ValueError : the blocks do not divide the weight, or the range is none.
        """
        br, bc = as_ints(block, 2, function="SparseLinear.from_linear", name="block", low=1)
        if 4 % bc:
            raise ValueError(f"SparseLinear.from_linear: block must be 1, 2 or 4 inputs wide, got {bc}")
        if (low is None) != (high is None):
            raise ValueError("SparseLinear.from_linear: low and high must be given both or not at all")
        if low is not None and high is not None:
            low = as_number(low, function="SparseLinear.from_linear", name="low")
            high = as_number(high, function="SparseLinear.from_linear", name="high", low=low)
        weight = linear.weight.detach().float().contiguous().numpy()
        if sparsity is not None:
            weight = weight * block_prune_mask(np.abs(weight), sparsity, block=(br, bc))
        q, scale = quantize_weight_s8_per_channel(weight)
        grouped = BlockGroupedWeight.from_dense(q, block=(br, bc), group=4 // bc)
        bias = None if linear.bias is None else linear.bias.detach().float().numpy().copy()
        return cls(grouped, scale, bias, low, high)

    @property
    def sparsity(self) -> float:
        """Share of the blocks that are not stored."""
        (br, bc), (m, k) = self.weight.block, self.weight.shape
        return 1 - self.weight.nnz_blocks * br * bc / (m * k) if m * k else 0.0

    @property
    def nbytes(self) -> int:
        """Bytes that the layer holds."""
        return self.weight.nbytes + self.weight_scale.nbytes + (0 if self.bias is None else self.bias.nbytes)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., k) to (..., m), float32."""
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"SparseLinear: x must have {self.in_features} features, got shape {tuple(x.shape)}")
        if x.dtype != torch.float32:
            raise TypeError(f"SparseLinear: x must be float32, got {x.dtype}; pass x.float()")
        rows = x.reshape(-1, self.in_features)
        q, scale, zero = quantize_activation_u8(rows.t().contiguous().numpy(), low=self.low, high=self.high)
        out = self.columns(q, scale, zero)
        return torch.from_numpy(out).t().reshape(*x.shape[:-1], self.out_features)

    def columns(self, q: np.ndarray, x_scale: float, x_zero: int, **how) -> np.ndarray:
        """Map quantised columns (k, tokens) to (m, tokens).

        Parameters
        ----------
        q, x_scale, x_zero : uint8 (k, tokens) with its step and zero point.
        how : ``append``, ``post``, ``out_dtype``, ``out_scale``, ``out_zero`` of `kernels.matmul.spmm_int8.spmm_int8`.
        """
        if self._folded is None or self._folded[0] != (x_scale, x_zero):  # with a fixed range only once
            given = {"weight_scale": self.weight_scale, "bias": self.bias}
            found = fold_zero_point(self.weight, x_scale=x_scale, x_zero=x_zero, **given)
            self._folded = ((x_scale, x_zero), found)
        bias, scale = self._folded[1]
        return spmm_int8(self.weight, q, bias=bias, scale=scale, **{"out_dtype": "float32"} | how)

    def file_parts(self):
        """Return what a file keeps; `workbench.models.layer_files`."""
        weight = self.weight
        config = {"shape": weight.shape, "block": weight.block, "group": weight.group, "nnz_blocks": weight.nnz_blocks}
        arrays = {part: getattr(weight, part) for part in ("indptr", "indices", "data")}
        arrays |= {"weight_scale": self.weight_scale} | ({} if self.bias is None else {"bias": self.bias})
        tensors = {part: torch.from_numpy(array.copy()) for part, array in arrays.items()}
        return config | {"low": self.low, "high": self.high}, tensors

    @classmethod
    def from_file(cls, config, tensors, dense):
        """Make the layer of what a file kept."""
        arrays = {part: tensor.numpy() for part, tensor in tensors.items()}
        weight = BlockGroupedWeight(
            indptr=arrays["indptr"],
            indices=arrays["indices"],
            data=arrays["data"],
            shape=tuple(config["shape"]),
            block=tuple(config["block"]),
            group=config["group"],
            nnz_blocks=config["nnz_blocks"],
        )
        low, high = config["low"], config["high"]
        quantize_activation_u8(np.zeros(1, np.float32), low=low, high=high)  # refuses what is no range
        scale, bias = arrays["weight_scale"], arrays.get("bias")
        kinds = weight.data.dtype, *(each.dtype for each in (scale, bias) if each is not None)
        if kinds[0] != np.int8 or any(kind != np.float32 for kind in kinds[1:]):
            found = ", ".join(map(str, kinds))
            raise TypeError(f"SparseLinear: data must be int8, scales and bias float32, got {found}")
        sizes = [each.shape for each in (scale, bias) if each is not None]
        if sizes != [weight.shape[:1]] * len(sizes) or not (np.isfinite(scale) & (scale > 0)).all():
            raise ValueError(
                f"SparseLinear: scales and bias must be {weight.shape[0]} numbers, scales above 0, got shapes {sizes}"
            )
        return cls(weight, scale, bias, low, high)

    def extra_repr(self) -> str:
        """Say the sizes."""
        block = "x".join(map(str, self.weight.block))
        return f"in_features={self.in_features}, out_features={self.out_features}, {self.sparsity:.1%} {block} sparse"


def replace_linear(model: nn.Module, layers: Mapping[str, nn.Module]) -> nn.Module:
    """Put other modules in the place of a model's, by name, in place; return the model.

    A module that the model has under several names is replaced under all of them.
    """
    new = {id(model.get_submodule(name)): layer for name, layer in layers.items()}
    places = {name: new[id(old)] for name, old in model.named_modules(remove_duplicate=False) if id(old) in new}
    for name, layer in (places | dict(layers)).items():
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer)
    return model
