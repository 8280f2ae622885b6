"""A linear layer whose outputs are combinations of few atoms of a dictionary."""

import numpy as np
import torch
from scipy import sparse
from torch import nn

from kernels.factor.codes import SparseCodes
from kernels.formats.bitmap_rows import BitmapRows
from kernels.formats.packed_csr import PackedCSR
from kernels.formats.storage import dictionary_bits
from kernels.matmul.bitmap_spmm import bitmap_spmm
from kernels.matmul.spmm import spmm

__all__ = ["SparseDictLinear"]

MOST_SHORT = 2**15  # atoms whose indices 16 bits hold
FEW = 8  # tokens, up to which the bitmap is faster than packed CSR


class SparseDictLinear(nn.Module):
    """y = S^T (D^T x) + b with a dense dictionary D and s coefficients for each output; for inference.

    Make one with `from_codes`. Layers may share a dictionary: they then hold one tensor.

    Parameters
    ----------
    dictionary : float32 (k, n), atoms as rows: the transpose of D, which the dense product reads.
    indices : int16 or int32 (m, s), the atoms of each output, rising in a row.
    values : float32 (m, s), their coefficients.
    bias : float32 (m,) or None.

    Raises
    ------
    TypeError, ValueError : a dtype or a shape is another one, or an index is no atom or stands twice in a row.

    Source
    ------
    Makhov et al. 2025, "CoSpaDi". *Differs from the paper:* sums and coefficients are in float32.
    """

    stored_as = "dictionary"
    dictionary: torch.Tensor
    indices: torch.Tensor
    values: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, dictionary, indices, values, bias=None):
        super().__init__()
        floats = [x for x in (dictionary, values, bias) if x is not None]
        if any(x.dtype != torch.float32 for x in floats) or indices.dtype not in (torch.int16, torch.int32):
            raise TypeError(
                f"SparseDictLinear: dictionary, values and bias must be float32 and indices int16 or int32, got "
                f"{', '.join(str(x.dtype) for x in floats)} and {indices.dtype}"
            )
        if dictionary.ndim != 2 or indices.ndim != 2:
            raise ValueError(
                f"SparseDictLinear: dictionary must be (k, n) and indices (m, s), got {tuple(dictionary.shape)} and "
                f"{tuple(indices.shape)}"
            )
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
        coefficients = sparse.csr_array((data, at, starts), shape=(m, k))
        self.packed, self.bitmap = PackedCSR.from_csr(coefficients), BitmapRows.from_csr(coefficients)

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
        """Bytes that a product with many tokens reads: the dictionary, packed coefficients and the bias.

        One with few tokens reads the coefficients as a bitmap, which is smaller; the layer holds both.
        """
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
        products = torch.matmul(self.dictionary, torch.from_numpy(x))  # (k, tokens)
        if x.shape[1] <= FEW:
            return bitmap_spmm(self.bitmap, products.t().contiguous().numpy()).T
        return spmm(self.packed, products.contiguous().numpy())

    def file_parts(self):
        """Return what a file keeps; `workbench.models.layer_files`."""
        return {}, dict(self.state_dict())

    @classmethod
    def from_file(cls, config, tensors, dense):
        """Make the layer of what a file kept; layers that shared a dictionary are given one tensor."""
        return cls(tensors["dictionary"], tensors["indices"], tensors["values"], tensors.get("bias"))

    def _apply(self, fn, recurse=True):
        """Stay in float32 and in the memory of the CPU, which is what the kernels read."""
        return self

    def to_dense(self) -> torch.Tensor:
        """Return the weight that the layer multiplies with, float32 (m, n)."""
        coefficients = torch.zeros(self.out_features, len(self.dictionary))
        coefficients.scatter_(1, self.indices.long(), self.values)
        return coefficients @ self.dictionary

    def extra_repr(self) -> str:
        """Say the sizes."""
        k = len(self.dictionary)
        return f"in_features={self.in_features}, out_features={self.out_features}, atoms={k}, s={self.s}"
