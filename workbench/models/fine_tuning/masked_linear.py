r"""Linear layers that are pruned while they are tuned: a mask of the largest scores, made anew in every step.

.. math:: y = (M \circ W)\, x + b, \qquad M = \text{the entries of } S \text{ but the } \lfloor s\, m n \rfloor
          \text{ smallest}, \qquad \partial L / \partial S := \partial L / \partial M = G \circ W

W and S are (m, n), G is the gradient of the loss with respect to M o W, and s the sparsity. The gradient of a mask is
handed to its scores as it is, "straight through", so that a weight that went has a gradient of its score and can come
back. Methods differ in what W and S are made of, and in which part of it is trained.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kernels.check import as_number, check_choice
from kernels.masks.threshold import mask_of_largest
from workbench.models.fine_tuning.budget import cubic_share
from workbench.models.fine_tuning.lora import check_base
from workbench.models.fine_tuning.method import Applied
from workbench.models.sparse_inference.sparse_linear import replace_linear
from workbench.models.sparse_inference.statistics import linear_layers

__all__ = [
    "SELECTIONS", "MaskedLinear", "SparsityScheduler", "StraightThroughMask", "apply_masked", "binarize", "convert",
    "cubic_sparsity", "keep_mask",
]  # fmt: skip

SELECTIONS = ("kthvalue", "argsort")


def keep_mask(S: torch.Tensor, sparsity: float, method: str = "kthvalue") -> torch.Tensor:
    """Return which scores stay, without a gradient.

    Parameters
    ----------
    S, sparsity, method : as for `binarize`.

    Returns
    -------
    bool, shape of S, with exactly int(S.numel() * sparsity) entries False.
    """
    if not isinstance(S, torch.Tensor) or not S.is_floating_point():
        raise TypeError(f"binarize: S must be a floating-point tensor, got {type(S).__name__}")
    check_choice(method, SELECTIONS, function="binarize", name="method")
    kept = S.numel() - int(S.numel() * _as_sparsity(sparsity, "binarize", "sparsity"))
    scores = S.detach()
    if scores.dtype == torch.bfloat16:
        scores = scores.float()
    if method == "kthvalue":
        return torch.from_numpy(mask_of_largest(scores.contiguous().numpy(), kept, function="binarize", name="S"))
    if scores.isnan().any():
        raise ValueError("binarize: S must hold no NaN")
    order = scores.flatten().argsort(descending=True, stable=True)
    stays = torch.zeros(S.numel(), dtype=torch.bool)
    stays[order[:kept]] = True
    return stays.view(S.shape)


class StraightThroughMask(torch.autograd.Function):
    """``apply(S, sparsity, method)`` -> the mask of S in its dtype, whose gradient is handed to S as it is."""

    @staticmethod
    def forward(ctx, S, sparsity, method="kthvalue"):
        return keep_mask(S, sparsity, method).to(S.dtype)

    @staticmethod
    def backward(ctx, *gradients):
        return gradients[0], None, None


def binarize(S: torch.Tensor, sparsity: float, method: str = "kthvalue") -> torch.Tensor:
    """Return 1 where a score is among the largest and 0 elsewhere, with the gradient handed straight through.

    Parameters
    ----------
    S : floating-point tensor of any shape, without NaN.
    sparsity : share of the entries that go, in [0, 1); of N entries int(N sparsity) go, exactly.
    method : "kthvalue" selects by the kernel `kernels.masks.threshold`; "argsort" sorts, as the released code does, and
        holds 8 bytes for each entry meanwhile. Both give the same mask.

    Returns
    -------
    Tensor like S. Of equal scores those of the lower flat index stay, as in `kernels.masks.prune.prune_mask`.

    Raises
    ------
    TypeError : S is no floating-point tensor. ValueError : NaN, a sparsity outside [0, 1), or an unknown method.

    Cost
    ----
    That of the exact selection, about one pass; "argsort" that of sorting.

    Source
    ------
    Bengio et al. 2013 (straight through); Sanh et al. 2020, "Movement pruning", section 4; Li et al. 2022, "PST".
    """
    return StraightThroughMask.apply(S, sparsity, method)


class MaskedLinear(nn.Module):
    """A linear layer of which the largest scores decide which weights take part: what its kinds share.

    Parameters
    ----------
    base : the layer. Its bias is frozen, and shared.
    memory_efficient : whether the forward pass keeps its input and one bit for each weight alone, and W is built again
        in the backward pass; otherwise autograd keeps M, M o W, and W where it is no parameter. Outputs and gradients
        are the same.
    sparsity : share of the weights that go, in [0, 1); it may be set at any time.
    """

    def __init__(self, base: nn.Linear, *, memory_efficient: bool = True, sparsity: float = 0.0):
        super().__init__()
        check_base(base, type(self).__name__)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.bias = base.bias if base.bias is None else base.bias.requires_grad_(False)
        self.memory_efficient, self.sparsity = bool(memory_efficient), sparsity

    # What a kind says of itself -------------------------------------------------------------------------------------
    def parts(self) -> tuple[torch.Tensor | None, ...]:
        """Return the tensors that W and S are made of."""
        raise NotImplementedError

    def begin(self) -> torch.Tensor:
        """Return the weight before it was tuned, (m, n)."""
        raise NotImplementedError

    def weight_of(self, *parts) -> torch.Tensor:
        """Return W of such tensors, (m, n)."""
        raise NotImplementedError

    def scores_of(self, weight, *parts) -> torch.Tensor:
        """Return S of W and such tensors, (m, n)."""
        raise NotImplementedError

    def gradients_of(self, gradient, weight, mask, *parts) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of the parts from that of M o W, all of them written out."""
        raise NotImplementedError

    # What all have --------------------------------------------------------------------------------------------------
    @property
    def sparsity(self) -> float:
        """The share of the weights that go."""
        return self._sparsity

    @sparsity.setter
    def sparsity(self, share):
        self._sparsity = _as_sparsity(share, type(self).__name__, "sparsity")

    def get_extra_state(self) -> torch.Tensor:
        """Return the sparsity, so that files and checkpoints hold it."""
        return torch.tensor(self.sparsity, dtype=torch.float64)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Take the sparsity of a file or checkpoint."""
        self.sparsity = float(state)

    def scores(self) -> torch.Tensor:
        """Return S, (m, n)."""
        parts = self.parts()
        return self.scores_of(self.weight_of(*parts), *parts)

    def mask(self) -> torch.Tensor:
        """Return which weights take part now, bool (m, n)."""
        with torch.no_grad():
            return keep_mask(self.scores(), self.sparsity)

    def weight_effective(self) -> torch.Tensor:
        """Return M o W, (m, n), with its gradients."""
        parts = self.parts()
        weight = self.weight_of(*parts)
        return binarize(self.scores_of(weight, *parts), self.sparsity) * weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., n) to (..., m)."""
        if self.memory_efficient:
            return _MaskedProduct.apply(self, x, self.bias, *self.parts())
        return F.linear(x, self.weight_effective(), self.bias)

    def delta(self) -> torch.Tensor:
        """Return the change of the weight, (m, n): what went is what it was, with the other sign."""
        return self.weight_effective().detach() - self.begin().detach()

    def merge(self) -> nn.Linear:
        """Return a plain layer that gives the same, with zeros where weights went."""
        return self.export()

    @torch.no_grad()
    def export(self, form: str = "dense") -> Any:
        """Return the layer as it is used afterwards, without scores and factors.

        Parameters
        ----------
        form : "dense" or "csr".

        Returns
        -------
        A frozen torch.nn.Linear with the weight M o W, or that weight as a csr_array (m, n) of float32 or float64 in
        sorted order, which stores the m n - int(m n s) entries of the mask, also where one of them is zero.
        """
        check_choice(form, ("dense", "csr"), function=f"{type(self).__name__}.export", name="form")
        if form == "csr":
            kept, weight = self.mask().numpy(), self.weight_of(*self.parts())
            values = (weight if weight.dtype == torch.float64 else weight.float()).numpy()[kept]
            starts = np.concatenate([[0], np.cumsum(kept.sum(1))])
            return sparse.csr_array((values, np.flatnonzero(kept) % self.in_features, starts), shape=kept.shape)
        weight = self.weight_effective()
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None, dtype=weight.dtype)
        plain.weight.copy_(weight)
        if self.bias is not None:
            plain.bias.copy_(self.bias)
        return plain.requires_grad_(False)

    def extra_repr(self) -> str:
        """Say the sizes."""
        return f"in_features={self.in_features}, out_features={self.out_features}, sparsity={self.sparsity:g}"


class _MaskedProduct(torch.autograd.Function):
    """(M o W) x + b of a layer, which keeps the input and the bits of M, and builds W again for the backward pass."""

    @staticmethod
    def forward(ctx, layer, x, bias, *parts):
        weight = layer.weight_of(*parts)
        mask = keep_mask(layer.scores_of(weight, *parts), layer.sparsity)
        ctx.layer = layer
        ctx.save_for_backward(x, torch.from_numpy(np.packbits(mask.numpy())), *parts)
        return F.linear(x, mask * weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        (given,), (x, bits, *parts) = gradients, ctx.saved_tensors
        weight = ctx.layer.weight_of(*parts)
        unpacked = np.unpackbits(bits.numpy(), count=weight.numel()).view(bool)
        mask = torch.from_numpy(unpacked).view(weight.shape)
        rows = given.reshape(-1, weight.shape[0])
        to_x = given @ (mask * weight) if ctx.needs_input_grad[1] else None
        to_bias = rows.sum(0) if ctx.needs_input_grad[2] else None
        found: tuple[torch.Tensor | None, ...] = (None,) * len(parts)
        if any(ctx.needs_input_grad[3:]):
            found = ctx.layer.gradients_of(rows.T @ x.reshape(-1, weight.shape[1]), weight, mask, *parts)
        return None, to_x, to_bias, *found


# The growth of the sparsity -------------------------------------------------------------------------------------------
def cubic_sparsity(t: float, T: float, iw: float = 0.1, fw: float = 0.3, s0: float = 0.0, sf: float = 0.9) -> float:
    """Return the sparsity after a step: along a cubic, fast at first.

    Parameters
    ----------
    t, T : steps done, from 0 to T, and the end.
    iw, fw : shares of all steps for which the first and the last sparsity hold; together less than 1.
    s0, sf : first and last sparsity, in [0, 1).

    Raises
    ------
    TypeError, ValueError : t outside [0, T], or shares out of range.

    Source
    ------
    Li et al. 2022, "PST", and its released code; Zhu and Gupta 2017, Eq. 1.
    """
    name = "cubic_sparsity"
    iw, fw = (as_number(x, function=name, name=what, low=0) for x, what in ((iw, "iw"), (fw, "fw")))
    if iw + fw >= 1:
        raise ValueError(f"{name}: iw + fw must be less than 1, got {iw:g} + {fw:g}")
    s0, sf = _as_sparsity(s0, name, "s0"), _as_sparsity(sf, name, "sf")
    T = as_number(T, function=name, name="T", above=0)
    t = as_number(t, function=name, name="t", low=0, high=T)
    return cubic_share(t, T, s0, sf, t_i=iw * T, t_f=fw * T)


class SparsityScheduler:
    """Sets the sparsity of all masked layers of a model, the same for each, as training goes on.

    Parameters
    ----------
    model : with layers of `MaskedLinear`; their sparsity is set to ``s0``.
    sf, iw, fw, s0 : of `cubic_sparsity`.

    Raises
    ------
    ValueError : a model without such a layer, or shares out of range.
    """

    def __init__(self, model: nn.Module, sf: float = 0.9, *, iw: float = 0.1, fw: float = 0.3, s0: float = 0.0):
        self.layers = [each for each in model.modules() if isinstance(each, MaskedLinear)]
        if not self.layers:
            raise ValueError("SparsityScheduler: model must have a masked layer; put some in with convert")
        self.how = {"iw": iw, "fw": fw, "s0": s0, "sf": sf}
        self.step(0, 1)

    def step(self, t: int, T: int) -> float:
        """Set the sparsity after step t of T, to be called after every step of the optimiser, and return it."""
        sparsity = cubic_sparsity(t, T, **self.how)
        for layer in self.layers:
            layer.sparsity = sparsity
        return sparsity


def convert(model: nn.Module, kind: type[MaskedLinear], targets: Iterable[str] | None = None, **settings: Any):
    """Put masked layers in the place of a model's linear layers, in place, and freeze all that is not theirs.

    `workbench.models.fine_tuning.adapt.adapt` does this on a copy that shares the frozen weights, with a head that is
    trained beside them, schedule and training; this is for training loops of one's own.

    Parameters
    ----------
    model : any module; unfreeze its head afterwards, if it is to be trained.
    kind : PSTLinear, MagnitudeLinear or MovementLinear.
    targets : names of the layers; None for those inside numbered blocks, see `linear_layers`.
    settings : of the kind.

    Returns
    -------
    dict, name -> layer.

    Raises
    ------
    KeyError : a name that is no linear layer. TypeError, ValueError : as the kind.
    """
    made = {name: kind(layer, **settings) for name, layer in linear_layers(model, targets).items()}
    trained = [p for layer in made.values() for p in layer.parameters() if p.requires_grad]
    replace_linear(model, made).requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    return made


def apply_masked(
    model: nn.Module, layers: Mapping[str, nn.Linear], kind: type[MaskedLinear], *, sf, iw, fw, s0, **settings
) -> Applied:
    """Put masked layers into a model for `adapt`, with the growth of their sparsity."""
    made = convert(model, kind, layers, sparsity=s0, **settings)
    return Applied(layers=made, after_step=SparsityScheduler(model, sf, iw=iw, fw=fw, s0=s0).step)


def _as_sparsity(share, function: str, name: str) -> float:
    share = as_number(share, function=function, name=name, low=0)
    if share >= 1:
        raise ValueError(f"{function}: {name} must be a share of weights that go, at least 0 and below 1, got {share}")
    return share
