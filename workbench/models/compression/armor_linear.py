"""A linear layer of ARMOR's factors, and a reader's own model made of such layers."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from kernels.check import as_int
from kernels.formats.nm_packed import NMPacked
from kernels.matmul.wrapped_nm_spmm import wrapped_nm_spmm
from workbench.models.compression.armor import ArmorFactors, armor_factorize, sanitize_hessian_diag
from workbench.models.sparse_inference.sparse_linear import replace_linear
from workbench.models.sparse_inference.statistics import InputStatistics, gather_statistics, linear_layers

__all__ = ["ArmorLinear", "armor", "hessian_diag"]

Report = Callable[[float, str], None]


class ArmorLinear(nn.Module):
    """y = A (S o M) B x + b on one kernel, which writes nothing in between; for inference.

    Make one with `from_factors`.

    Parameters
    ----------
    left, right : float32 (blocks, side, side), the blocks of A and B.
    values, positions : float32 and uint8, the core as `NMPacked` holds it.
    n, m : its pattern.
    bias : float32 (rows,) or None.

    Raises
    ------
    TypeError, ValueError : a dtype or a shape is another one, or the positions are no pattern of n among m.

    Source
    ------
    Liu et al. 2025, "ARMOR". *Differs from the paper:* float32.
    """

    stored_as = "armor"
    left: torch.Tensor
    right: torch.Tensor
    values: torch.Tensor
    positions: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, left, right, values, positions, n, m, bias=None):
        super().__init__()
        n = as_int(n, function="ArmorLinear", name="n", low=1)
        shape = (len(values), values.shape[1] // n * m)
        self.core = NMPacked(values.numpy(), positions.numpy(), n, m, shape)
        for name, tensor, side in (("left", left, shape[0]), ("right", right, shape[1])):
            sizes = tuple(tensor.shape)
            if len(sizes) != 3 or sizes[1] != sizes[2] or sizes[0] * sizes[1] != side:
                raise ValueError(
                    f"ArmorLinear: {name} must be (blocks, side, side) with blocks * side = {side}, got {sizes}"
                )
        floats = [x.dtype for x in (left, right, bias) if x is not None]
        if any(dtype != torch.float32 for dtype in floats):
            raise TypeError(f"ArmorLinear: left, right and bias must be float32, got {', '.join(map(str, floats))}")
        for name, tensor in (("left", left), ("right", right), ("values", values), ("positions", positions)):
            self.register_buffer(name, tensor)
        if bias is not None and bias.shape != (shape[0],):
            raise ValueError(f"ArmorLinear: bias must be ({shape[0]},), got {tuple(bias.shape)}")
        self.register_buffer("bias", bias)
        self.out_features, self.in_features = shape

    @classmethod
    def from_factors(cls, factors: ArmorFactors, bias: torch.Tensor | None = None) -> "ArmorLinear":
        """Make a layer of what `armor_factorize` returned."""
        core = factors.core
        left, right, values, positions = (
            torch.from_numpy(np.array(each)) for each in (factors.left, factors.right, core.values, core.positions)
        )
        bias = None if bias is None else bias.detach().float().clone()
        return cls(left, right, values, positions, core.n, core.m, bias)

    @property
    def nbytes(self) -> int:
        """Bytes that the kernel reads, and the bias."""
        held = self.left.nbytes + self.right.nbytes + self.core.nbytes
        return held + (0 if self.bias is None else self.bias.nbytes)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for each token."""
        return self.left.numel() + self.right.numel() + self.values.numel()

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., columns) to (..., rows); the result has the dtype of x, sums are in float32."""
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"ArmorLinear: x must have {self.in_features} features, got shape {tuple(x.shape)}")
        rows = x.reshape(-1, self.in_features).float()
        out = torch.from_numpy(self.columns(rows.t().contiguous().numpy())).t()
        if self.bias is not None:
            out = out + self.bias
        return out.reshape(*x.shape[:-1], self.out_features).to(x.dtype)

    def columns(self, x: np.ndarray) -> np.ndarray:
        """Map columns, float32 (columns, tokens) and contiguous, to (rows, tokens), without the bias."""
        return wrapped_nm_spmm(self.core, x, left=self.left.numpy(), right=self.right.numpy())

    def file_parts(self):
        """Return what a file keeps; `workbench.models.layer_files`."""
        return {"n": self.core.n, "m": self.core.m}, dict(self.state_dict())

    @classmethod
    def from_file(cls, config, tensors, dense):
        """Make the layer of what a file kept."""
        left, right, values, positions = (tensors[part] for part in ("left", "right", "values", "positions"))
        return cls(left, right, values, positions, config["n"], config["m"], tensors.get("bias"))

    def _apply(self, fn, recurse=True):
        """Stay in float32 and in the memory of the CPU, which is what the kernel reads."""
        return self

    def extra_repr(self) -> str:
        """Say the sizes."""
        sides = f"{self.left.shape[1]}, {self.right.shape[1]}"
        return f"in_features={self.in_features}, out_features={self.out_features}, core={self.core.n}:{self.core.m}, " \
               f"blocks={sides}"  # fmt: skip


def hessian_diag(known: InputStatistics) -> np.ndarray:
    """Return 2 / tokens times the sum of the squares of each input, usable as it is: float64 (n,).

    Parameters
    ----------
    known : of one layer, as `gather_statistics` returns it.

    Source
    ------
    The released code of Liu et al. 2025.
    """
    return sanitize_hessian_diag(2 * np.diagonal(known.gram) / max(known.tokens, 1))


def armor(
    model: nn.Module,
    batches: Iterable[Any],
    block: int = 32,
    n: int = 2,
    m: int = 4,
    *,
    iters: int = 300,
    lr: float = 1e-3,
    layers: Iterable[str] | None = None,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    seed: int = 0,
    report: Report = lambda fraction, step: None,
) -> nn.Module:
    """Return a copy of a model whose linear layers are 2:4 cores between block-diagonal matrices.

    Parameters
    ----------
    model : any module with torch.nn.Linear layers; left as it is.
    batches : calibration data, what ``model(batch)`` takes.
    block, n, m, iters, lr, seed : of `armor_factorize`, the same for every layer.
    layers : names; None for those that `linear_layers` chooses.
    forward : ``forward(model, batch)`` in place of ``model(batch)``.
    report : ``report(fraction, step)`` as the work goes on; it may raise to stop it.

    Returns
    -------
    nn.Module to put in the model's place, for inference. `workbench.models.layer_files` keeps it in a file.

    Raises
    ------
    KeyError : a name that is no linear layer. ValueError : a block or a pattern that does not divide a layer, or a
        layer that saw no input.

    Examples
    --------
    ``small = armor(model, batches, block=16)``
    """
    found = linear_layers(model, layers)
    report(0.0, "run the model on calibration data")
    known = gather_statistics(model, batches, layers=found, forward=forward)
    made: dict[str, nn.Module] = {}
    for i, (name, layer) in enumerate(found.items()):

        def tell(step, loss, i=i, name=name):
            report(0.1 + 0.9 * (i + step / max(iters, 1)) / len(found), f"factorise {name}: relative loss {loss:.4f}")

        weight = layer.weight.detach().float().numpy()
        factors = armor_factorize(weight, hessian_diag(known[name]), block, n, m, iters=iters, lr=lr, seed=seed,
                                  callback=tell)  # fmt: skip
        made[name] = ArmorLinear.from_factors(factors, layer.bias)
    return replace_linear(copy.deepcopy(model).eval(), made)
