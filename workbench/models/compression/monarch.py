"""Monarch layers: two block-diagonal factors with a permutation between them, trained, projected and multiplied out.

Dao et al. 2022, "Monarch: Expressive Structured Matrices for Efficient and Accurate Training". Train with
`MonarchLinear` from the start; or for most of the steps, and go on densely (`reverse_sparsify`); or project a trained
model (`d2s_project`) and train it for a short while.
"""

import copy
import math
from collections.abc import Iterable

import numpy as np
import torch
from scipy import fft
from torch import nn
from torch.nn import functional as F

from kernels.check import as_int, check_choice
from kernels.transforms.monarch import monarch_dense, monarch_permutation, monarch_project, monarch_sizes
from workbench.models.bridge import block_chain
from workbench.models.sparse_inference.sparse_linear import replace_linear
from workbench.models.sparse_inference.statistics import linear_layers

__all__ = [
    "MonarchFFT",
    "MonarchLinear",
    "MonarchOrderP",
    "d2s_project",
    "monarch_conv",
    "reverse_sparsify",
]

NORMS = ("ortho", "backward", "forward")


class MonarchLinear(nn.Module):
    """A linear layer whose weight is a Monarch matrix, to stand in the place of ``torch.nn.Linear``.

    Both factors have ``nblocks`` blocks. Inputs are padded with zeros, and outputs cut off, where the blocks do not
    divide them.

    Parameters
    ----------
    in_features, out_features : of the layer.
    nblocks : blocks of each factor, at least 1. A square layer keeps a share of 2 / nblocks of its weights.
    bias : whether there is one.
    rank : of each of the nblocks^2 parts of the weight; None for as many as the smaller side of a block gives each,
        which is what the paper's layer has.

    Attributes
    ----------
    w1 : (nblocks, q, ceil(in_features / nblocks)), the factor that reads.
    w2 : (nblocks, ceil(out_features / nblocks), q), the factor that writes.
    error : relative error of the projection that it came from; None if it came from none.

    Raises
    ------
    TypeError, ValueError : a size is no int of at least 1.

    Source
    ------
    Dao et al. 2022, section 3.1; initial values as the authors' published layer: uniform in +- 1 / sqrt(fan in), with
    the width of a block as fan in, and +- 1 / sqrt(out_features) for the bias.
    """

    stored_as = "monarch"

    def __init__(self, in_features: int, out_features: int, nblocks: int = 4, bias: bool = True, *, rank=None):
        super().__init__()
        name = "MonarchLinear"
        self.in_features = as_int(in_features, function=name, name="in_features", low=1)
        self.out_features = as_int(out_features, function=name, name="out_features", low=1)
        self.nblocks = as_int(nblocks, function=name, name="nblocks", low=1)
        read, written = math.ceil(in_features / self.nblocks), math.ceil(out_features / self.nblocks)
        most = min(read, written)
        between = most if rank is None else self.nblocks * as_int(rank, function=name, name="rank", low=1, high=most)
        self.w1 = nn.Parameter(torch.empty(self.nblocks, between, read))
        self.w2 = nn.Parameter(torch.empty(self.nblocks, written, between))
        self.bias = nn.Parameter(torch.empty(self.out_features)) if bias else None
        self.error: float | None = None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        for factor in (self.w1, self.w2):
            factor.uniform_(-(factor.shape[2] ** -0.5), factor.shape[2] ** -0.5)
        if self.bias is not None:
            self.bias.uniform_(-(len(self.bias) ** -0.5), len(self.bias) ** -0.5)

    @classmethod
    def from_linear(cls, linear: nn.Linear, nblocks: int = 4, *, rank=None) -> "MonarchLinear":
        """Return the Monarch layer that is nearest to a dense one, in the Frobenius norm of the weights.

        Parameters
        ----------
        linear : left as it is. nblocks, rank : as of the class; None for the rank that the paper's layer has room for.

        Raises
        ------
        ValueError : the weights are not finite, or a part has no such rank.
        """
        nblocks = as_int(nblocks, function="MonarchLinear.from_linear", name="nblocks", low=1)
        m, n = linear.weight.shape
        read, written = math.ceil(n / nblocks), math.ceil(m / nblocks)
        most = min(read, written)
        rank = max(1, most // nblocks) if rank is None else as_int(
            rank, function="MonarchLinear.from_linear", name="rank", low=1, high=most)  # fmt: skip
        made = cls(n, m, nblocks, bias=linear.bias is not None, rank=rank).to(linear.weight.dtype)
        dense = linear.weight.detach().to(torch.promote_types(linear.weight.dtype, torch.float32))
        padded = F.pad(dense, (0, nblocks * read - n, 0, nblocks * written - m))
        w1, w2, made.error = monarch_project(padded.numpy(), nblocks, rank=rank)
        with torch.no_grad():
            made.w1.copy_(torch.from_numpy(w1))
            made.w2.copy_(torch.from_numpy(w2))
            if made.bias is not None and linear.bias is not None:
                made.bias.copy_(linear.bias)
        return made.train(linear.training)

    def file_parts(self):
        """Return what a file keeps; `workbench.models.layer_files`."""
        sizes = {"in_features": self.in_features, "out_features": self.out_features, "nblocks": self.nblocks}
        return sizes | {"error": self.error}, dict(self.state_dict())

    @classmethod
    def from_file(cls, config, tensors, dense):
        """Make the layer of what a file kept, in the precision that it kept."""
        w1, w2, bias = tensors["w1"], tensors["w2"], tensors.get("bias")
        with torch.device("meta"):  # sizes of a damaged file take no room
            made = cls(config["in_features"], config["out_features"], config["nblocks"], bias is not None)
        (k, _, read), (_, written, _) = made.w1.shape, made.w2.shape
        between = w1.shape[1]
        fits = w1.shape == (k, between, read) and w2.shape == (k, written, between) and between >= 1
        if not fits or (bias is not None and bias.shape != (made.out_features,)):
            raise ValueError(
                f"MonarchLinear: w1 must be ({k}, q, {read}), w2 ({k}, {written}, q) and a bias "
                f"({made.out_features},), got {tuple(w1.shape)}, {tuple(w2.shape)} and "
                f"{None if bias is None else tuple(bias.shape)}"
            )
        made.w1, made.w2 = nn.Parameter(w1), nn.Parameter(w2)
        made.bias = None if bias is None else nn.Parameter(bias)
        made.error = config["error"]
        return made

    @property
    def rank(self) -> float:
        """Rank that each part of the weight has room for."""
        return self.w1.shape[1] / self.nblocks

    @property
    def saving(self) -> float:
        """Weights of the factors as a share of those of the dense layer; padding counts."""
        return (self.w1.numel() + self.w2.numel()) / (self.in_features * self.out_features)

    def dense_weight(self) -> torch.Tensor:
        """Return the two factors multiplied out: (out_features, in_features), without a gradient."""
        kind = torch.promote_types(self.w1.dtype, torch.float32)
        w1, w2 = (factor.detach().to(kind).numpy() for factor in (self.w1, self.w2))
        whole = torch.from_numpy(monarch_dense(w1, w2))
        return whole[: self.out_features, : self.in_features].to(self.w1.dtype).contiguous()

    def to_linear(self) -> nn.Linear:
        """Return the dense layer that does the same; it shares the bias, and its weight is new."""
        linear = nn.Linear(self.in_features, self.out_features, bias=False, dtype=self.w1.dtype)
        linear.weight = nn.Parameter(self.dense_weight(), requires_grad=self.w1.requires_grad)
        linear.register_parameter("bias", self.bias)
        return linear.train(self.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., in_features) to (..., out_features) of the same dtype; half precision is summed in float32."""
        if x.shape[-1] != self.in_features:
            raise ValueError(f"MonarchLinear: x has {x.shape[-1]} features, the layer reads {self.in_features}")
        kind = torch.promote_types(x.dtype, torch.float32)
        padded = F.pad(x.to(kind), (0, self.nblocks * self.w1.shape[2] - self.in_features))
        y = block_chain(padded, [self.w1.to(kind), self.w2.to(kind)], [1, self.nblocks])[..., : self.out_features]
        return (y if self.bias is None else y + self.bias).to(x.dtype)

    def extra_repr(self) -> str:
        """Say the sizes, as ``torch.nn.Linear`` does."""
        return f"{self.in_features}, {self.out_features}, nblocks={self.nblocks}, bias={self.bias is not None}"


class MonarchFFT(nn.Module):
    """The discrete Fourier transform as a Monarch matrix, whose factors may learn on.

    Parameters
    ----------
    n : length, no prime.
    inverse : the inverse transform.
    norm : "ortho", "backward" or "forward", as in ``torch.fft``.
    learnable : whether the factors are parameters; if not, they are buffers.
    sizes : (a, b) with a b = n; None for `monarch_sizes`.
    dtype : of the real parts.

    Raises
    ------
    ValueError : n is prime, or an unknown norm.

    Source
    ------
    Dao et al. 2022, section 3.2 and Appendix: Cooley and Tukey's steps, found by projection. Factors are kept as pairs
    of real numbers, so that any optimiser takes them.
    """

    w1: torch.Tensor
    w2: torch.Tensor
    order: torch.Tensor

    def __init__(self, n, inverse=False, norm="ortho", learnable=True, *, sizes=None, dtype=torch.float32):
        super().__init__()
        self.n = as_int(n, function="MonarchFFT", name="n", low=1)
        check_choice(norm, NORMS, function="MonarchFFT", name="norm")
        transform = (fft.ifft if inverse else fft.fft)(np.eye(n), norm=norm, axis=0)
        a, b = monarch_sizes(self.n) if sizes is None else sizes
        order = monarch_permutation(self.n, (a, b))
        w1, w2, self.error = monarch_project(transform[:, order], (a, b))
        self.register_buffer("order", torch.from_numpy(order))
        for name, factor in (("w1", w1), ("w2", w2)):
            pairs = torch.view_as_real(torch.from_numpy(factor)).to(dtype).contiguous()
            if learnable:
                setattr(self, name, nn.Parameter(pairs))
            else:
                self.register_buffer(name, pairs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., n), real or complex, to its transform, complex (..., n)."""
        if x.shape[-1] != self.n:
            raise ValueError(f"MonarchFFT: x has {x.shape[-1]} numbers, the transform is of {self.n}")
        w1, w2 = torch.view_as_complex(self.w1), torch.view_as_complex(self.w2)
        return block_chain(x.to(w1.dtype)[..., self.order], [w1, w2], [1, w2.shape[0]])


class MonarchOrderP(nn.Module):
    """A square linear map of order p: an m x m matrix along each axis of a tensor (m, m, .., m), n = m^p.

    Order 2 has two factors with sqrt(n) blocks; m = 2 is a butterfly matrix. Weights are p n^(1 + 1/p) numbers.

    Parameters
    ----------
    n : width, a p-th power. p : order, at least 1.

    Raises
    ------
    ValueError : n is no p-th power.

    Source
    ------
    Dao et al. 2022, Appendix (higher orders); by axes, as `kernels.transforms.monarch.monarch_order_p_multiply`.
    """

    def __init__(self, n: int, p: int):
        super().__init__()
        self.n = as_int(n, function="MonarchOrderP", name="n", low=1)
        self.p = as_int(p, function="MonarchOrderP", name="p", low=1, high=40)
        m = round(self.n ** (1 / self.p))
        if m**self.p != self.n:
            raise ValueError(
                f"MonarchOrderP: n is {n}, which is no power of {p}; the nearest are {m**p} and {(m + 1) ** p}"
            )
        self.m = m
        self.weights = nn.Parameter(torch.empty(self.p, self.n // m, m, m).uniform_(-(m**-0.5), m**-0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., n) to (..., n)."""
        if x.shape[-1] != self.n:
            raise ValueError(f"MonarchOrderP: x has {x.shape[-1]} numbers, the map reads {self.n}")
        return block_chain(x, list(self.weights), [self.m**t for t in range(self.p)])


def monarch_conv(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Convolve circularly by two Fourier transforms, both Monarch matrices.

    Parameters
    ----------
    x : (..., n), real or complex; n is no prime. kernel : (n,) or anything that broadcasts to x.

    Returns
    -------
    (..., n): number i is the sum over j of kernel[j] x[(i - j) mod n]; real if both are.

    Raises
    ------
    ValueError : n is prime, or the lengths differ.

    Source
    ------
    Dao et al. 2022, section 3.2: a convolution is a product of Monarch matrices, not one of them.
    """
    n = x.shape[-1]
    if kernel.shape[-1] != n:
        raise ValueError(f"monarch_conv: kernel has {kernel.shape[-1]} numbers, x has {n}; pad the shorter with zeros")
    wide = torch.promote_types(x.dtype, kernel.dtype)
    kind = torch.float64 if wide in (torch.float64, torch.complex128) else torch.float32
    there, back = (MonarchFFT(n, inverse, "backward", learnable=False, dtype=kind) for inverse in (False, True))
    y = back(there(x) * there(kernel))
    return y if wide.is_complex else y.real


def reverse_sparsify(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> list[str]:
    """Multiply out every `MonarchLinear` of a model in place, so that training goes on densely.

    The outputs stay what they were. In the optimiser the new weights take the place of the factors, in the same group
    and without any state; biases and all other parameters keep theirs.

    Parameters
    ----------
    model : its Monarch layers become ``torch.nn.Linear``.
    optimizer : the one that trains it, or None.

    Returns
    -------
    The names of the layers.

    Raises
    ------
    ValueError : the model has no Monarch layer.

    Source
    ------
    Dao et al. 2022, section 3.3 (sparse-to-dense, "reverse sparsification").
    """
    found = {name: layer for name, layer in model.named_modules() if isinstance(layer, MonarchLinear)}
    if not found:
        raise ValueError("reverse_sparsify: the model has no MonarchLinear layer; it is dense already")
    if "" in found:
        raise ValueError("reverse_sparsify: the model is itself a MonarchLinear layer; use its to_linear()")
    dense = {name: layer.to_linear() for name, layer in found.items()}
    replace_linear(model, dense)
    if optimizer is not None:
        taken = {id(layer.w1): dense[name].weight for name, layer in found.items()}
        gone = {id(layer.w2) for layer in found.values()}
        for group in optimizer.param_groups:
            for p in group["params"]:
                if id(p) in gone or id(p) in taken:
                    optimizer.state.pop(p, None)
            group["params"] = [taken.get(id(p), p) for p in group["params"] if id(p) not in gone]
    return list(found)


def d2s_project(model: nn.Module, nblocks: int = 4, *, layers: Iterable[str] | None = None, rank=None) -> nn.Module:
    """Return a copy of a trained model whose linear layers are the nearest Monarch layers.

    Parameters
    ----------
    model : any module with ``torch.nn.Linear`` layers; left as it is.
    nblocks, rank : as of `MonarchLinear.from_linear`.
    layers : names; None for those that `workbench.models.sparse_inference.statistics.linear_layers` chooses.

    Returns
    -------
    nn.Module to put in the model's place; each new layer has the relative ``error`` of its projection. Train it for a
    short while, for instance with `workbench.models.compression.monarch_training.recover_monarch`.

    Raises
    ------
    KeyError : no such layer. ValueError : the model has no linear layer, or sizes out of range.

    Examples
    --------
    ``small = d2s_project(model, nblocks=4)``

    Source
    ------
    Dao et al. 2022, section 3.4 (dense-to-sparse).
    """
    copied = copy.deepcopy(model)
    if isinstance(copied, nn.Linear):
        return MonarchLinear.from_linear(copied, nblocks, rank=rank)
    found = linear_layers(copied, layers)
    return replace_linear(
        copied, {name: MonarchLinear.from_linear(layer, nblocks, rank=rank) for name, layer in found.items()}
    )
