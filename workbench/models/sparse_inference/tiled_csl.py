"""A linear layer whose weights are loaded sparse, in Tiled-CSL, for models that write word by word."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from kernels.check import as_number, check_choice
from kernels.formats.tiled_csl import TiledCSL
from kernels.masks.magnitude import magnitude_mask
from kernels.masks.wanda import wanda_mask
from kernels.matmul.skinny_spmm import skinny_spmm
from workbench.models.sparse_inference.sparse_linear import replace_linear
from workbench.models.sparse_inference.statistics import gather_statistics, linear_layers

__all__ = ["CRITERIA", "SparseDecodeLinear", "decode_sparse", "pruning_mask"]

CRITERIA = ("magnitude", "wanda")
TILE_M, TILE_K = 128, 512  # a wide tile keeps the words of a row together, which suits a CPU


class SparseDecodeLinear(nn.Module):
    """y = W x + b with W in half precision, stored in Tiled-CSL; for inference with few tokens at a time.

    Make one with `from_linear`, or put many into a model with `decode_sparse`.

    Parameters
    ----------
    weight : TiledCSL (m, k).
    bias : float32 (m,) or None.

    Source
    ------
    Xia et al. 2023. *Differs from the paper:* activations and sums are in float32, and sides that no whole tiles fill
    are padded (`padded_shape`).
    """

    stored_as = "tiled_csl"
    bias: torch.Tensor | None

    def __init__(self, weight: TiledCSL, bias: np.ndarray | None = None):
        super().__init__()
        self.weight = weight
        self.register_buffer("bias", None if bias is None else torch.from_numpy(bias))
        self.out_features, self.in_features = weight.shape

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        sparsity: float | None = None,
        criterion: str = "magnitude",
        *,
        gram: np.ndarray | None = None,
        tile_m: int = TILE_M,
        tile_k: int = TILE_K,
        reorder: bool = False,
    ) -> "SparseDecodeLinear":
        """Store a linear layer that is pruned already, or prune it first.

        Parameters
        ----------
        linear : of any sizes and float dtype; weights are rounded to half precision.
        sparsity : share of the weights to prune, in [0, 1]; None takes the zeros that there are.
        criterion : which weights stay: "magnitude", the largest |w| of the layer; "wanda", the largest |w| ||x|| of
            every row, which needs ``gram``.
        gram : float64 (k, k), X^T X of the layer's inputs, as `gather_statistics` returns it.
        tile_m, tile_k, reorder : of `TiledCSL.encode`. The paper's are 128, 64 and True; ours are faster on a CPU.

        Raises
        ------
        ValueError : a weight that half precision cannot hold, an unknown criterion, or "wanda" without ``gram``.
        """
        weight = linear.weight.detach().float().numpy()
        if sparsity is not None:
            weight = weight * pruning_mask(weight, sparsity, criterion, gram=gram)
        bias = None if linear.bias is None else linear.bias.detach().float().numpy().copy()
        return cls(TiledCSL.encode(weight, tile_m=tile_m, tile_k=tile_k, reorder=reorder, pad=True), bias)

    @property
    def sparsity(self) -> float:
        """Share of the weights that are not stored."""
        m, k = self.weight.shape
        return 1 - self.weight.nnz / (m * k) if m * k else 0.0

    @property
    def padded_shape(self) -> tuple[int, int]:
        """Rows and columns of the whole tiles that hold the weight."""
        (m, k), (tile_m, tile_k) = self.weight.shape, (self.weight.tile_m, self.weight.tile_k)
        return -(-m // tile_m) * tile_m, -(-k // tile_k) * tile_k

    @property
    def nbytes(self) -> int:
        """Bytes that the layer holds: words, offsets, ends of rows where the kernel reads them, and the bias."""
        ends, bias = self.weight.row_ends, self.bias
        return self.weight.nbytes + (0 if ends is None else ends.nbytes) + (0 if bias is None else bias.nbytes)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., k) to (..., m); the result has the dtype of x, sums are in float32."""
        columns = x.reshape(-1, self.in_features).float().t().contiguous()
        out = torch.from_numpy(skinny_spmm(self.weight, columns.numpy())).t()
        if self.bias is not None:
            out = out + self.bias
        return out.reshape(*x.shape[:-1], self.out_features).to(x.dtype)

    def file_parts(self):
        """Return what a file keeps; `workbench.models.layer_files`."""
        weight = self.weight
        config = {"shape": weight.shape, "tile_m": weight.tile_m, "tile_k": weight.tile_k, "vector": weight.vector}
        words = {"nz": torch.from_numpy(weight.nz.view(np.int32).copy())}  # unsigned ones are rare in files
        return config, words | {"tile_offsets": torch.from_numpy(weight.tile_offsets.copy())} | dict(self.state_dict())

    @classmethod
    def from_file(cls, config, tensors, dense):
        """Make the layer of what a file kept."""
        words, bias = tensors["nz"].numpy(), tensors.get("bias")
        if words.dtype != np.int32 or (bias is not None and bias.shape != (config["shape"][0],)):
            raise ValueError(
                f"SparseDecodeLinear: words must be int32 and a bias ({config['shape'][0]},), got {words.dtype} and "
                f"{None if bias is None else tuple(bias.shape)}"
            )
        tiling = (config[part] for part in ("tile_m", "tile_k", "vector"))
        layer = cls(TiledCSL(words.view(np.uint32), tensors["tile_offsets"].numpy(), tuple(config["shape"]), *tiling))
        layer.bias = bias
        return layer

    def extra_repr(self) -> str:
        """Say the sizes."""
        return f"in_features={self.in_features}, out_features={self.out_features}, {self.sparsity:.1%} sparse"


def decode_sparse(
    model: nn.Module,
    sparsity: float | None = 0.8,
    criterion: str = "magnitude",
    *,
    batches: Iterable[Any] | None = None,
    layers: Iterable[str] | None = None,
) -> nn.Module:
    """Return a copy of a model whose linear layers are pruned and load their weights sparse.

    Parameters
    ----------
    model : any module with torch.nn.Linear layers; left as it is.
    sparsity : share of the weights of every layer that go, in [0, 1]; None takes the zeros that there are.
    criterion : "magnitude", or "wanda", which needs ``batches``.
    batches : calibration data, what ``model(batch)`` takes.
    layers : names; None for those that `linear_layers` chooses.

    Returns
    -------
    nn.Module to put in the model's place, for inference. `workbench.models.layer_files` keeps it in a file.

    Raises
    ------
    ValueError : "wanda" without batches, a number out of range, or a weight that half precision cannot hold.
    KeyError : a name that is no linear layer.

    Examples
    --------
    ``fast = decode_sparse(model, 0.8)``

    Source
    ------
    Xia et al. 2023; Wanda is that of Sun et al. 2023.
    """
    check_choice(criterion, CRITERIA, function="decode_sparse", name="criterion")
    found = linear_layers(model, layers)
    grams: Mapping[str, np.ndarray] = {}
    if criterion == "wanda" and sparsity is not None:
        if batches is None:
            raise ValueError("decode_sparse: criterion 'wanda' needs calibration data; pass batches=")
        grams = {name: each.gram for name, each in gather_statistics(model, batches, layers=found).items()}
    made: Mapping[str, nn.Module] = {
        name: SparseDecodeLinear.from_linear(layer, sparsity, criterion, gram=grams.get(name))
        for name, layer in found.items()
    }
    return replace_linear(copy.deepcopy(model).eval(), made)


def pruning_mask(weight, sparsity, criterion="magnitude", *, gram=None) -> np.ndarray:
    """Return which weights stay, bool (m, k); arguments of `SparseDecodeLinear.from_linear`."""
    sparsity = as_number(sparsity, function="pruning_mask", name="sparsity", low=0, high=1)
    check_choice(criterion, CRITERIA, function="pruning_mask", name="criterion")
    if criterion == "magnitude":
        return magnitude_mask(weight, sparsity)
    if gram is None:
        raise ValueError("pruning_mask: criterion 'wanda' needs gram, X^T X of the layer's inputs")
    return wanda_mask(weight, np.diag(gram).copy(), sparsity)
