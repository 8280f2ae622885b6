"""A linear layer on the int8 kernel for constant blocks, and models made of such layers as files."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from kernels.check import as_ints, as_number
from kernels.formats.block_groups import BlockGroupedWeight
from kernels.masks.blocks import block_prune_mask
from kernels.matmul.quantize import fold_zero_point, quantize_activation_u8, quantize_weight_s8_per_channel
from kernels.matmul.spmm_int8 import spmm_int8

__all__ = ["SparseLinear", "load_sparse", "replace_linear", "save_sparse"]

FORMAT = "sparse-workbench block-groups 1"


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

    def extra_repr(self) -> str:
        """Say the sizes."""
        block = "x".join(map(str, self.weight.block))
        return f"in_features={self.in_features}, out_features={self.out_features}, {self.sparsity:.1%} {block} sparse"


def replace_linear(model: nn.Module, layers: Mapping[str, nn.Module]) -> nn.Module:
    """Put other modules in the place of a model's, by name, in place; return the model."""
    for name, layer in layers.items():
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer)
    return model


def save_sparse(model: nn.Module, path: str | Path) -> None:
    """Store a model with `SparseLinear` layers as a safetensors file; `load_sparse` reads it back, bit by bit.

    Raises
    ------
    ValueError : the model has no such layer.
    """
    from safetensors.torch import save_file

    tensors, layers = dict(model.state_dict()), {}
    for name, layer in model.named_modules():
        if isinstance(layer, SparseLinear):
            weight = layer.weight
            parts = {"indptr": weight.indptr, "indices": weight.indices, "data": weight.data}
            parts |= {"weight_scale": layer.weight_scale} | ({} if layer.bias is None else {"bias": layer.bias})
            tensors |= {f"{name}.{part}": torch.from_numpy(array.copy()) for part, array in parts.items()}
            layers[name] = {
                "shape": weight.shape,
                "block": weight.block,
                "group": weight.group,
                "nnz_blocks": weight.nnz_blocks,
                "low": layer.low,
                "high": layer.high,
            }
    if not layers:
        raise ValueError("save_sparse: the model has no SparseLinear layer; make them with compress(model, ...)")
    save_file(
        {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()},
        str(path),
        metadata={"format": FORMAT, "layers": json.dumps(layers)},
    )


def load_sparse(model: nn.Module, path: str | Path) -> nn.Module:
    """Fill a dense model of the same architecture with what `save_sparse` stored, in place; return the model.

    Raises
    ------
    FileNotFoundError : no such file.
    ValueError : the file is no such model, or one of another architecture.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).exists():
        raise FileNotFoundError(f"load_sparse: no file {path}; write one with save_sparse(model, path)")
    try:
        with safe_open(str(path), framework="pt") as stored:
            about = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"load_sparse: {path} is no file of save_sparse: {error}") from None
    if about.get("format") != FORMAT:
        raise ValueError(f"load_sparse: {path} is no file of save_sparse; its format is {about.get('format')!r}")
    layers = {name: _restored(name, facts, tensors) for name, facts in json.loads(about["layers"]).items()}
    try:
        for name, layer in layers.items():
            _check_place(model.get_submodule(name), name, layer)
        replace_linear(model, layers)
        model.load_state_dict({name: x for name, x in tensors.items() if not name.startswith(tuple(
            f"{layer}." for layer in layers))})  # fmt: skip
    except (AttributeError, RuntimeError) as error:
        raise ValueError(f"load_sparse: {path} is of another architecture: {error}") from None
    return model


def _check_place(given, name, layer):
    sides = [getattr(given, side, None) for side in ("out_features", "in_features")]
    if sides != [layer.out_features, layer.in_features]:
        wanted = f"{layer.out_features} x {layer.in_features}"
        raise RuntimeError(f"layer {name!r} of the file is {wanted}, the model's is {type(given).__name__} {sides}")


def _restored(name, facts, tensors) -> SparseLinear:
    try:
        parts = {part: tensors[f"{name}.{part}"].numpy() for part in ("indptr", "indices", "data", "weight_scale")}
        bias = tensors.get(f"{name}.bias")
        weight = BlockGroupedWeight(
            indptr=parts["indptr"],
            indices=parts["indices"],
            data=parts["data"],
            shape=tuple(facts["shape"]),
            block=tuple(facts["block"]),
            group=facts["group"],
            nnz_blocks=facts["nnz_blocks"],
        )
    except KeyError as error:
        raise ValueError(f"load_sparse: the file lacks {error} of layer {name!r}") from None
    return SparseLinear(
        weight, parts["weight_scale"], None if bias is None else bias.numpy(), facts["low"], facts["high"]
    )
