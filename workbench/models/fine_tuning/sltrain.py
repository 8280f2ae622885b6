r"""SLTrain: a weight that is a low-rank product plus a sparse matrix whose places are drawn once, before any data."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from scipy import sparse
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kernels.check import as_int, as_number, as_rng, check_choice
from workbench.models import bridge
from workbench.models.sparse_inference.sparse_linear import replace_linear

__all__ = ["LowRankLinear", "SLTrainLinear", "apply_sltrain", "random_support", "sparse_lowrank_linear"]

BACKWARDS = ("dense", "sddmm")
INDEX_DTYPES = {"auto": None, "int32": torch.int32, "int64": torch.int64}


def random_support(m: int, n: int, delta: float, seed=None, *, index_dtype: str = "auto") -> torch.Tensor:
    """Draw int(delta m n) places of an (m, n) matrix uniformly, each at most once.

    Parameters
    ----------
    m, n : rows and columns, from 1 on.
    delta : density, above 0 and below 1.
    seed : int, sequence of ints or NumPy generator.
    index_dtype : "int32", "int64", or "auto" for int32 where m n <= 2^31 - 1.

    Returns
    -------
    (nnz,) flat row-major places, strictly rising.

    Raises
    ------
    ValueError : a value is out of range, no place is left, or the places do not fit int32.

    Source
    ------
    Han et al. 2024, "SLTrain", arXiv 2406.02214, Section 3.
    """
    m, n = (as_int(size, function="random_support", name=name, low=1) for name, size in (("m", m), ("n", n)))
    delta = as_number(delta, function="random_support", name="delta", above=0)
    check_choice(index_dtype, INDEX_DTYPES, function="random_support", name="index_dtype")
    if delta >= 1:
        raise ValueError(f"random_support: delta must be below 1, got {delta}; use a dense torch.nn.Linear")
    nnz, small = int(delta * m * n), m * n <= 2**31 - 1
    if nnz == 0:
        raise ValueError(
            f"random_support: delta = {delta} keeps no entry of {m} x {n}; pass at least {1 / (m * n):.3g}"
        )
    if index_dtype == "int32" and not small:
        raise ValueError(f"random_support: {m} x {n} places do not fit int32; pass index_dtype='int64'")
    rng = np.random.default_rng(seed) if isinstance(seed, list | tuple) else as_rng(seed, function="random_support")
    places = torch.from_numpy(np.sort(rng.choice(m * n, nnz, replace=False, shuffle=False)).astype(np.int64))
    return places.to(INDEX_DTYPES[index_dtype] or (torch.int32 if small else torch.int64))


def sparse_lowrank_linear(x, B, A, v, I, scale, bias=None, backward: str = "dense") -> torch.Tensor:
    r"""Compute y = x (scale B A + S)^T + bias, where S holds v at the places I; neither form keeps the weight.

    With g the gradient of y: dx = g W, dB = scale g^T (x A^T), dA = scale (g B)^T x, dv_j = g[:, i_j] . x[:, k_j].

    Parameters
    ----------
    x : (..., n) float.
    B, A : (m, r) and (r, n) of the same dtype.
    v, I : (nnz,) values, and int32 or int64 flat row-major places, strictly rising.
    scale : number, or a tensor without dimensions, which then gets a gradient; multiplies B A only.
    bias : None or (m,).
    backward : "dense" rebuilds W forward and backward and forms dW for a moment; "sddmm" never forms an (m, n) matrix,
        and takes float32 and float64 on the CPU.

    Returns
    -------
    (..., m) of the dtype of x. Beyond its arguments, nothing is kept for the backward pass.

    Raises
    ------
    TypeError : another dtype. ValueError : shapes do not fit, or I is not strictly rising within 0 .. m n - 1.

    Source
    ------
    Han et al. 2024, arXiv 2406.02214, Section 3.3. *Differs from the paper:* no scaled copy of A is kept.
    """
    check_choice(backward, BACKWARDS, function="sparse_lowrank_linear", name="backward")
    _check_parts(B, A, v, I, "sparse_lowrank_linear")
    if x.ndim == 0 or x.shape[-1] != A.shape[1]:
        raise ValueError(f"sparse_lowrank_linear: x must be (..., {A.shape[1]}) as A has columns, got {tuple(x.shape)}")
    if x.dtype != A.dtype:
        raise TypeError(f"sparse_lowrank_linear: x is {x.dtype}, A is {A.dtype}; they must be equal")
    if bias is not None and bias.shape != (B.shape[0],):
        raise ValueError(f"sparse_lowrank_linear: bias must be ({B.shape[0]},), got {tuple(bias.shape)}")
    return _SparseLowRank.apply(x, B, A, v, I, scale, bias, backward)


class _SparseLowRank(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, B, A, v, I, scale, bias, backward):
        ctx.backward_form, ctx.scale = backward, None if isinstance(scale, torch.Tensor) else scale
        ctx.save_for_backward(x, B, A, v, I, *([scale] if isinstance(scale, torch.Tensor) else []))
        if backward == "dense":
            return F.linear(x, _weight(B, A, v, I, scale), bias)
        rows, flat = _pattern(I, B.shape[0], A.shape[1]), x.reshape(-1, x.shape[-1])
        y = (flat @ A.T) @ B.T * scale + bridge.spmm(*rows, v, flat.T.contiguous()).T  # (t, m)
        return (y if bias is None else y + bias).reshape(*x.shape[:-1], B.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, B, A, v, I, *kept = ctx.saved_tensors
        scale, needs = kept[0] if kept else ctx.scale, ctx.needs_input_grad
        g, flat = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])  # (t, m), (t, n)
        inner, outer = flat @ A.T, g @ B  # (t, r) both
        if ctx.backward_form == "dense":
            dx = g @ _weight(B, A, v, I, scale) if needs[0] else None
            dv = (g.T @ flat).view(-1).index_select(0, I) if needs[3] else None
        else:
            rows = _pattern(I, B.shape[0], A.shape[1])
            turned = g.T.contiguous()  # (m, t)
            dx = outer @ A * scale + _transposed(rows, v, turned, A.shape[1]).T if needs[0] else None
            dv = bridge.sddmm(*rows, turned, flat.T.contiguous()) if needs[3] else None
        return (
            None if dx is None else dx.reshape(x.shape),
            g.T @ inner * scale if needs[1] else None,
            outer.T @ flat * scale if needs[2] else None,
            dv, None,
            (inner * outer).sum() if needs[5] else None,
            g.sum(0) if needs[6] else None,
            None,
        )  # fmt: skip


class SLTrainLinear(nn.Module):
    r"""y = (s B A + S) x + b with s = alpha / r, where only the values of S are learned and never their places.

    Parameters
    ----------
    in_features, out_features : n and m.
    r : rank, from 1 to min(m, n).
    delta : density of S, above 0 and below 1.
    alpha : scale of the low-rank part; r unless given.
    bias : whether there is one.
    seed : of the places; drawn from PyTorch's generator, like A and the values, unless given.
    index_dtype : "int32", "int64", or "auto" for the smaller one that fits.
    trainable_scale : multiply s with tanh of a number that starts at 1 and is trained.
    backward : of `sparse_lowrank_linear`.
    dtype : of all weights.
    support : places instead of random ones, flat, row-major, strictly rising.

    Raises
    ------
    ValueError : a value is out of range, or places are not strictly rising within 0 .. m n - 1.

    Source
    ------
    Han et al. 2024, "SLTrain", arXiv 2406.02214, Section 3.
    """

    def __init__(
        self, in_features: int, out_features: int, r: int, delta: float = 0.03, alpha: float | None = None,
        bias: bool = True, seed=None, index_dtype: str = "auto", trainable_scale: bool = False,
        backward: str = "dense", dtype: torch.dtype | None = None, support: torch.Tensor | None = None,
    ):  # fmt: skip
        super().__init__()
        n, m = (as_int(size, function="SLTrainLinear", name=name, low=1)
                for name, size in (("in_features", in_features), ("out_features", out_features)))  # fmt: skip
        r = as_int(r, function="SLTrainLinear", name="r", low=1, high=min(m, n))
        check_choice(backward, BACKWARDS, function="SLTrainLinear", name="backward")
        self.scale = (r if alpha is None else as_number(alpha, function="SLTrainLinear", name="alpha", above=0)) / r
        self.in_features, self.out_features, self.backward_form = n, m, backward
        if support is None:
            drawn = int(torch.randint(2**62, ())) if seed is None else seed
            support = random_support(m, n, delta, drawn, index_dtype=index_dtype)
        bound = 1 / math.sqrt(n)
        self.A = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(r, n, dtype=dtype), a=math.sqrt(5)))
        self.B = nn.Parameter(torch.zeros(m, r, dtype=dtype))
        self.v = nn.Parameter(torch.empty(len(support), dtype=dtype).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(m, dtype=dtype).uniform_(-(m**-0.5), m**-0.5)) if bias else None
        self.scaling = nn.Parameter(torch.ones((), dtype=dtype)) if trainable_scale else None
        self.I: torch.Tensor
        self.register_buffer("I", support)
        _check_parts(self.B, self.A, self.v, support, "SLTrainLinear")

    @classmethod
    def from_linear(cls, layer: nn.Linear, r: int, **how) -> "SLTrainLinear":
        """Return a layer of the sizes and dtype of another one, to be trained from the start; its bias is copied."""
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"SLTrainLinear: layer must be a torch.nn.Linear, got {type(layer).__name__}")
        given = {"bias": layer.bias is not None, "dtype": layer.weight.dtype} | how
        made = cls(layer.in_features, layer.out_features, r, **given)
        if made.bias is not None and layer.bias is not None:
            made.bias.data.copy_(layer.bias)
        return made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., n) to (..., m)."""
        return sparse_lowrank_linear(x, self.B, self.A, self.v, self.I, self._scale(), self.bias, self.backward_form)

    def _scale(self):
        return self.scale if self.scaling is None else self.scale * torch.tanh(self.scaling)

    def low_rank(self) -> torch.Tensor:
        """Return s B A, (m, n)."""
        return self._scale() * (self.B @ self.A)

    @torch.no_grad()
    def weight_dense(self) -> torch.Tensor:
        """Return the whole weight, (m, n)."""
        return _weight(self.B, self.A, self.v, self.I, self._scale())

    @torch.no_grad()
    def sparse_csr(self) -> sparse.csr_array:
        """Return S, (m, n), as a copy."""
        starts, columns = _pattern(self.I, self.out_features, self.in_features)
        parts = (self.v.numpy().copy(), columns.numpy(), starts.numpy())
        return sparse.csr_array(parts, shape=(self.out_features, self.in_features))

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """Return a plain layer that gives the same."""
        dtype = self.A.dtype
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None, dtype=dtype)
        plain.weight.copy_(self.weight_dense())
        if self.bias is not None:
            plain.bias.copy_(self.bias)
        return plain


class LowRankLinear(nn.Module):
    """y = B A x + b, what pre-training loses to: both factors start at random, else nothing would ever be learned.

    Parameters
    ----------
    in_features, out_features, r, bias, dtype : as those of `SLTrainLinear`.
    """

    def __init__(self, in_features: int, out_features: int, r: int, bias: bool = True, dtype=None):
        super().__init__()
        r = as_int(r, function="LowRankLinear", name="r", low=1, high=min(in_features, out_features))
        self.A = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(r, in_features, dtype=dtype), a=math.sqrt(5)))
        self.B = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(out_features, r, dtype=dtype), a=math.sqrt(5)))
        self.bias = nn.Parameter(torch.zeros(out_features, dtype=dtype)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., n) to (..., m)."""
        return F.linear(F.linear(x, self.A), self.B, self.bias)


def apply_sltrain(model: nn.Module, targets: Iterable[str] = ("attn", "mlp"), *, r: int, seed: int = 0, **how):
    """Put `SLTrainLinear` in the place of linear layers of a model that is to be trained from the start, in place.

    Parameters
    ----------
    model : any module.
    targets : a layer is taken if its name contains one of these.
    seed : of the places; those of different layers are independent.
    r, how : of `SLTrainLinear`.

    Returns
    -------
    name -> the module that stands there now.

    Raises
    ------
    ValueError : no linear layer has such a name.

    Examples
    --------
    ``apply_sltrain(model, r=8, delta=0.03, alpha=16)``
    """
    targets = tuple(targets)
    found = {
        name: layer for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and any(part in name for part in targets)
    }  # fmt: skip
    if not found:
        raise ValueError(f"apply_sltrain: no torch.nn.Linear has a name with one of {targets}; pass other targets")
    seed = as_int(seed, function="apply_sltrain", name="seed", low=0)
    made: dict[str, nn.Module] = {
        name: SLTrainLinear.from_linear(layer, r, seed=(seed, place), **how)
        for place, (name, layer) in enumerate(found.items())
    }
    replace_linear(model, made)
    return made


def _weight(B, A, v, I, scale):
    """Return the dense weight, (m, n)."""
    weight = (B @ A).mul_(scale)
    weight.view(-1).index_add_(0, I, v)  # adds, for the product is there as well
    return weight


def _pattern(I, m, n):
    """Return row starts and columns of flat places, int64."""
    rows = torch.bincount(I // n, minlength=m)
    return F.pad(rows.cumsum(0), (1, 0)), (I % n).long()


def _transposed(rows, v, dense, n):
    return torch.ops.sparse_workbench.spmm_transposed(*rows, v, dense, n)


def _check_parts(B, A, v, I, function):
    """Raise TypeError or ValueError unless the parts of a weight fit each other."""
    if B.ndim != 2 or A.ndim != 2 or B.shape[1] != A.shape[0]:
        raise ValueError(f"{function}: B and A must be (m, r) and (r, n), got {tuple(B.shape)} and {tuple(A.shape)}")
    if not A.is_floating_point() or not A.dtype == B.dtype == v.dtype:
        raise TypeError(f"{function}: B, A and v must have one float dtype, got {B.dtype}, {A.dtype} and {v.dtype}")
    if I.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{function}: I must be int32 or int64, got {I.dtype}; pass I.long()")
    if v.ndim != 1 or v.shape != I.shape or len(I) == 0:
        raise ValueError(f"{function}: v and I must be (nnz,), nnz > 0, got {tuple(v.shape)} and {tuple(I.shape)}")
    if int(I[0]) < 0 or int(I[-1]) >= B.shape[0] * A.shape[1] or bool((I[1:] <= I[:-1]).any()):
        size = B.shape[0] * A.shape[1]
        raise ValueError(f"{function}: I must rise strictly within 0 .. {size - 1}; sort it and drop what is double")
