"""A linear layer whose outputs are combinations of few atoms of a dictionary, and files of models with such layers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import nn

from kernels.factor.codes import SparseCodes
from kernels.formats.packed_csr import PackedCSR
from kernels.formats.storage import dictionary_bits
from kernels.matmul.spmm import spmm
from workbench.models.sparse_inference.sparse_linear import replace_linear

__all__ = ["SparseDictLinear", "load_dictionaries", "save_dictionaries"]

FORMAT = "sparse-workbench dictionaries 1"
MOST_SHORT = 2**15  # atoms whose indices 16 bits hold


class SparseDictLinear(nn.Module):
    """y = S^T (D^T x) + b with a dense dictionary D and s coefficients for each output; for inference.

    Make one with `from_codes`. Layers may share a dictionary: they then hold one tensor.

    Parameters
    ----------
    dictionary : float32 (k, n), atoms as rows: the transpose of D, which the dense product reads.
    indices : int16 or int32 (m, s), the atoms of each output, rising in a row.
    values : float32 (m, s), their coefficients.
    bias : float32 (m,) or None.

    Source
    ------
    Shopkhoev et al. 2025, "CoSpaDi". *Differs from the paper:* sums and coefficients are in float32.
    """

    dictionary: torch.Tensor
    indices: torch.Tensor
    values: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, dictionary, indices, values, bias=None):
        super().__init__()
        (k, n), (m, s) = dictionary.shape, indices.shape
        if values.shape != indices.shape or not 1 <= s <= k:
            raise ValueError(
                f"SparseDictLinear: indices and values must both be (m, s) with s from 1 to {k}, got "
                f"{tuple(indices.shape)} and {tuple(values.shape)}"
            )
        if bias is not None and bias.shape != (m,):
            raise ValueError(f"SparseDictLinear: bias must be ({m},), got {tuple(bias.shape)}")
        for name, tensor in (("dictionary", dictionary), ("indices", indices), ("values", values), ("bias", bias)):
            self.register_buffer(name, tensor)
        self.in_features, self.out_features = n, m
        starts = np.arange(0, m * s + 1, s, dtype=np.int64)
        at, data = indices.numpy().astype(np.int32).reshape(-1), values.numpy().reshape(-1)
        self.packed = PackedCSR.from_csr(sparse.csr_array((data, at, starts), shape=(m, k)))

    @classmethod
    def from_codes(cls, dictionary: np.ndarray, codes: SparseCodes, bias: torch.Tensor | None = None):
        """Make the layer of one matrix.

        Parameters
        ----------
        dictionary : (n, k) float, atoms as columns.
        codes : SparseCodes of the m outputs.
        bias : (m,) or None.
        """
        return cls.sharing(dictionary, [codes], [bias])[0]

    @classmethod
    def sharing(cls, dictionary, codes, biases) -> "list[SparseDictLinear]":
        """Make the layers of several matrices that share a dictionary; arguments of `from_codes`, one for each."""
        atoms = torch.from_numpy(np.ascontiguousarray(dictionary.T, dtype=np.float32))
        made = []
        for each, bias in zip(codes, biases, strict=True):
            order = np.argsort(each.indices, axis=1)
            width = np.int16 if len(atoms) <= MOST_SHORT else np.int32
            at, values = (np.take_along_axis(x, order, 1) for x in (each.indices, each.values))
            parts = torch.from_numpy(at.astype(width)), torch.from_numpy(values.astype(np.float32))
            made.append(cls(atoms, *parts, None if bias is None else bias.detach().float().clone()))
        return made

    @property
    def s(self) -> int:
        """Coefficients of each output."""
        return self.indices.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes that the kernels read: the dictionary, shared or not, the packed coefficients and the bias."""
        held = self.dictionary.nbytes + self.packed.nbytes
        return held + (0 if self.bias is None else self.bias.nbytes)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for each token: n for every atom that an output uses, and s for each output."""
        used = len(np.unique(self.indices.numpy()))
        return used * self.in_features + self.out_features * self.s

    def stored_bits(self, *, value_bits: int = 16, layers: int = 1) -> int:
        """Return the bits of the layer, or of as many that share its dictionary; `dictionary_bits`."""
        shape, k = (self.out_features, self.in_features), len(self.dictionary)
        return dictionary_bits(shape, k, self.s, layers=layers, value_bits=value_bits)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., n) to (..., m); the result has the dtype of x, sums are in float32."""
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"SparseDictLinear: x must have {self.in_features} features, got shape {tuple(x.shape)}")
        rows = x.reshape(-1, self.in_features).float()
        out = torch.from_numpy(self.columns(rows.t().numpy())).t()
        if self.bias is not None:
            out = out + self.bias
        return out.reshape(*x.shape[:-1], self.out_features).to(x.dtype)

    def columns(self, x: np.ndarray) -> np.ndarray:
        """Map columns, float32 (n, tokens) in any order of memory, to (m, tokens), without the bias."""
        return spmm(self.packed, torch.matmul(self.dictionary, torch.from_numpy(x)).contiguous().numpy())

    def to_dense(self) -> torch.Tensor:
        """Return the weight that the layer multiplies with, float32 (m, n)."""
        coefficients = torch.zeros(self.out_features, len(self.dictionary))
        coefficients.scatter_(1, self.indices.long(), self.values)
        return coefficients @ self.dictionary

    def extra_repr(self) -> str:
        """Say the sizes."""
        k = len(self.dictionary)
        return f"in_features={self.in_features}, out_features={self.out_features}, atoms={k}, s={self.s}"


def save_dictionaries(model: nn.Module, path: str | Path) -> None:
    """Store a model with `SparseDictLinear` layers as a safetensors file; `load_dictionaries` reads it back.

    A dictionary that layers share is stored once.

    Raises
    ------
    ValueError : the model has no such layer.
    """
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = dict(model.state_dict())
    layers: dict[str, int] = {}
    numbers: dict[int, int] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, SparseDictLinear):
            layers[name] = numbers.setdefault(id(layer.dictionary), len(numbers))
            tensors[_shared(layers[name])] = tensors.pop(f"{name}.dictionary")
    if not layers:
        raise ValueError(
            "save_dictionaries: the model has no SparseDictLinear layer; make them with cospadi(model, ..)"
        )
    held = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    save_file(held, str(path), metadata={"format": FORMAT, "layers": json.dumps(layers)})


def load_dictionaries(model: nn.Module, path: str | Path) -> nn.Module:
    """Fill a dense model of the same architecture with what `save_dictionaries` stored, in place; return the model.

    Raises
    ------
    FileNotFoundError : no such file.
    ValueError : the file is no such model, or one of another architecture.
    """
    tensors, layers = _read(path)
    dictionaries = {number: tensors.pop(_shared(number)) for number in set(layers.values())}
    made: dict[str, Any] = {}
    try:
        for name, number in layers.items():
            parts = (tensors.pop(f"{name}.{part}") for part in ("indices", "values"))
            made[name] = SparseDictLinear(dictionaries[number], *parts, tensors.pop(f"{name}.bias", None))
            given = model.get_submodule(name)
            sides = [getattr(given, side, None) for side in ("out_features", "in_features")]
            if sides != [made[name].out_features, made[name].in_features]:
                wanted = f"{made[name].out_features} x {made[name].in_features}"
                raise RuntimeError(f"layer {name!r} of the file is {wanted}, the model's is {sides}")
        replace_linear(model, made)
        missing, unknown = model.load_state_dict(tensors, strict=False)
        left = [name for name in missing if not name.startswith(tuple(f"{layer}." for layer in made))]
        if left or unknown:
            raise RuntimeError(f"its tensors do not fit, such as {[*left, *unknown][0]!r}")
    except (AttributeError, RuntimeError) as error:
        raise ValueError(f"load_dictionaries: {path} is of another architecture: {error}") from None
    except KeyError as error:
        raise ValueError(f"load_dictionaries: {path} lacks {error}") from None
    return model


def _shared(number):
    return f"dictionary.{number}"


def _read(path):
    """Return the tensors of a file, and which dictionary each layer has."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).exists():
        raise FileNotFoundError(f"load_dictionaries: no file {path}; write one with save_dictionaries(model, path)")
    try:
        with safe_open(str(path), framework="pt") as stored:
            about = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"load_dictionaries: {path} is no file of save_dictionaries: {error}") from None
    if about.get("format") != FORMAT:
        raise ValueError(f"load_dictionaries: {path} is no file of save_dictionaries; its format is "
                         f"{about.get('format')!r}")  # fmt: skip
    return tensors, json.loads(about["layers"])
