r"""Linear layers of a dense basis and a row-sparse factor: frozen, or factorised anew in every step of a training.

.. math:: \hat W = F(L), \qquad \frac{\partial \ell}{\partial L} := \frac{\partial \ell}{\partial \hat W}

In the straight-through modes the layer holds what is dense, and multiplies with what becomes of it; the gradient of the
product goes through the factorisation as if that were the identity.
"""

import copy
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from kernels.check import check_choice
from workbench.models.compression.dsformer import RHO, DSBlockSpec, DSFactors, ds_factorize, spec_for_ratio
from workbench.models.sparse_inference.sparse_linear import replace_linear
from workbench.models.sparse_inference.statistics import linear_layers

__all__ = ["MODES", "DSLinear", "StraightThroughFactorizer", "dsformer"]

MODES = ("frozen", "stf", "stf_coef")
Report = Callable[[float, str], None]


class StraightThroughFactorizer(torch.autograd.Function):
    """Give an approximation in the place of a matrix, and the gradient back to the matrix as it comes.

    ``StraightThroughFactorizer.apply(latent, approximation)``; the approximation gets no gradient.

    Source
    ------
    Bengio, Leonard and Courville 2013 (straight-through estimator); Chand et al. 2023 for factorisations.
    """

    @staticmethod
    def forward(ctx, latent, approximation):
        """Return the approximation."""
        return approximation.clone()

    @staticmethod
    def backward(ctx, *gradients):
        """Return the gradient unchanged for the matrix."""
        return gradients[0], None


class DSLinear(nn.Module):
    """y = S (D x) + b, block by block; see `workbench.models.compression.dsformer`.

    Parameters
    ----------
    factors : DSFactors; taken in float32.
    bias : float32 (m,) or None.
    mode : "frozen" trains D and the coefficients with the places fixed; "stf" trains a dense matrix, of which every
        `refactor` makes new factors; "stf_coef" trains D and dense coefficients, of which the s largest of each row
        count, while all of them get the gradient.
    latent : float32 (m, n), the dense matrix that "stf" starts from; None for the product of the factors.

    Raises
    ------
    ValueError : unknown mode, or shapes do not fit.

    Source
    ------
    Chand et al. 2023. *Differs from the paper:* of the straight-through factorizer we know the name and the abstract;
    the warm start of each factorisation is a reconstruction, and "stf_coef" is ours.
    """

    stored_as = "dense_sparse"
    D: torch.Tensor
    idx: torch.Tensor
    val: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, factors: DSFactors, bias: torch.Tensor | None = None, mode: str = "frozen", latent=None):
        super().__init__()
        check_choice(mode, MODES, function="DSLinear", name="mode")
        self.out_features, self.in_features = shape = factors.shape
        for what, x, wanted in (("bias", bias, shape[:1]), ("latent", latent, shape)):
            if x is not None and tuple(x.shape) != wanted:
                raise ValueError(f"DSLinear: {what} must be {wanted}, got {tuple(x.shape)}")
        self.spec, self.mode = factors.spec, mode
        self.bias = None if bias is None else nn.Parameter(bias.detach().float().clone())
        self.latent: nn.Parameter | None = None
        self.packed: DSFactors | None = None
        self.register_buffer("idx", torch.from_numpy(factors.idx.copy()))
        D, val = (torch.from_numpy(x.astype(np.float32)) for x in (factors.D, factors.val))
        if mode == "stf":
            self.register_buffer("D", D)
            self.register_buffer("val", val)
            start = torch.from_numpy(factors.to_dense()) if latent is None else latent.detach()
            self.latent = nn.Parameter(start.float().clone())
        else:
            self.D = nn.Parameter(D)
            self.val = nn.Parameter(val if mode == "frozen" else self._spread(val))

    @staticmethod
    def replace(model: nn.Module, ratio: float = 2.0, **how) -> nn.Module:
        """Put such layers in the place of a model's linear layers, in place; return the model.

        Parameters
        ----------
        model : any module with torch.nn.Linear layers. A refusal leaves it as it was.
        ratio, how : of `dsformer`, which leaves the model as it is and returns a copy.

        Raises
        ------
        KeyError, ValueError : as `dsformer`.

        Examples
        --------
        ``DSLinear.replace(model, 2.0, mode="stf")``
        """
        return replace_linear(model, _made(model, ratio, **how))

    def factors(self) -> DSFactors:
        """Return the factors as arrays that later training leaves alone."""
        with torch.no_grad():
            idx, val = self._chosen()
            kind = torch.promote_types(self.D.dtype, torch.float32)
            D, val = (x.detach().to(kind).numpy().copy() for x in (self.D, val))
        sides = self.out_features, self.in_features
        return DSFactors(D=D, idx=idx.numpy().copy(), val=val, history=np.zeros(0), sides=sides)

    def weight_now(self) -> torch.Tensor:
        """Return the matrix that the layer multiplies with, (m, n), with its gradients."""
        if self.mode == "stf":
            return StraightThroughFactorizer.apply(self.latent, self._product(self._spread(self.val)))
        if self.mode == "frozen":
            return self._product(self._spread(self.val))
        kept = torch.where(self.places(), self.val.detach(), 0.0)
        return self._product(StraightThroughFactorizer.apply(self.val, kept))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., n) to (..., m): on kernels once `finalize` was called, else with gradients."""
        if self.packed is None:
            return F.linear(x, self.weight_now(), self.bias)
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"DSLinear: x must have {self.in_features} features, got shape {tuple(x.shape)}")
        rows = x.detach().reshape(-1, self.in_features).float()
        out = torch.from_numpy(self.packed.columns(rows.t().numpy())).t()
        if self.bias is not None:
            out = out + self.bias.detach()
        return out.reshape(*x.shape[:-1], self.out_features).to(x.dtype)

    @torch.no_grad()
    def refactor(self, *, sweeps: int = 1, power_iters: int = 3) -> float:
        """Factorise the dense matrix of mode "stf" anew, from the bases that there are; return the churn.

        The churn is the share of all places in S that the row did not have before. In the other modes the places do
        not come from a factorisation: ValueError.
        """
        if self.latent is None:
            raise ValueError(f"DSLinear.refactor: needs mode 'stf', the layer is in {self.mode!r}")
        size = self.D.norm(dim=3, keepdim=True)
        start = torch.where(size > 0, self.D / size, 1 / np.sqrt(self.spec.block_cols)).numpy()
        found = ds_factorize(self.latent, self.spec, sweeps=sweeps, power_iters=power_iters, D0=start, pad=True)
        before = self.places()
        for mine, new in ((self.D, found.D), (self.idx, found.idx), (self.val, found.val)):
            mine.copy_(torch.from_numpy(new))
        both = (before & self.places()).sum().item()
        return 1 - both / self.idx.numel()

    def freeze(self) -> "DSLinear":
        """Return a layer of mode "frozen" with the factors of now."""
        return DSLinear(self.factors(), self.bias)

    def finalize(self) -> "DSLinear":
        """Return a layer of mode "frozen" for inference: its products run on kernels, without gradients."""
        layer = self.freeze().eval().requires_grad_(False)
        layer.packed = layer.factors()
        return layer

    def to_dense(self) -> torch.Tensor:
        """Return the matrix that the layer multiplies with, float32 (m, n), without gradients."""
        return torch.from_numpy(self.factors().to_dense())

    @torch.no_grad()
    def places(self) -> torch.Tensor:
        """Return which coefficients count, bool (P, Q, b_r, r)."""
        idx, _ = self._chosen()
        return torch.zeros(*idx.shape[:3], self.spec.atoms, dtype=torch.bool).scatter(3, idx.long(), True)

    def _chosen(self):
        """Return the places and the coefficients that count."""
        if self.mode != "stf_coef":
            return self.idx, self.val
        at = self.val.abs().topk(self.spec.nnz_per_row, dim=3).indices.sort(dim=3).values
        return at.to(self.idx.dtype), self.val.gather(3, at)

    def _spread(self, val):
        """Put coefficients (P, Q, b_r, s) where they belong: (P, Q, b_r, r)."""
        whole = val.new_zeros(*self.idx.shape[:3], self.spec.atoms)
        return whole.scatter(3, self.idx.long(), val)

    def _product(self, whole):
        product = torch.matmul(whole, self.D)  # (P, Q, b_r, b_c)
        p, q, rows, cols = product.shape
        return product.transpose(1, 2).reshape(p * rows, q * cols)[: self.out_features, : self.in_features]

    def file_parts(self):
        """Return what a file keeps; `workbench.models.layer_files`."""
        config = {"mode": self.mode, "finalized": self.packed is not None}
        tensors = dict(self.state_dict())
        if self.packed is not None:  # what the kernels read, whatever became of the parameters
            tensors |= {part: torch.from_numpy(getattr(self.packed, part)) for part in ("D", "idx", "val")}
        return config | {"sides": [self.out_features, self.in_features]}, tensors

    @classmethod
    def from_file(cls, config, tensors, dense):
        """Make the layer of what a file kept, in its mode."""
        mode, D, idx, val = config["mode"], tensors["D"], tensors["idx"], tensors["val"]
        if idx.dtype not in (torch.uint8, torch.int16) or not (D.is_floating_point() and val.is_floating_point()):
            found = f"{idx.dtype}, {D.dtype}, {val.dtype}"
            raise TypeError(f"DSLinear: idx must be uint8 or int16, D and val floats, got {found}")
        chosen = val.new_zeros(idx.shape) if mode == "stf_coef" else val  # there val has every coefficient
        arrays = {"D": D.float().numpy(), "idx": idx.numpy(), "val": chosen.float().numpy()}
        factors = DSFactors(**arrays, history=np.zeros(0), sides=tuple(config["sides"]))
        layer = cls(factors, tensors.get("bias"), mode, tensors.get("latent"))
        layer.load_state_dict(tensors, assign=True)  # in the precision that the file kept
        return layer.finalize() if config["finalized"] else layer

    def extra_repr(self) -> str:
        """Say the sizes."""
        of = self.spec
        return (f"in_features={self.in_features}, out_features={self.out_features}, block={of.block_rows} x "
                f"{of.block_cols}, atoms={of.atoms}, s={of.nnz_per_row}, mode={self.mode}")  # fmt: skip


def dsformer(
    model: nn.Module,
    ratio: float = 2.0,
    *,
    mode: str | None = None,
    spec: DSBlockSpec | None = None,
    block_cols: int = 32,
    count: str = "values",
    rho: float = RHO,
    pad: bool = False,
    layers: Iterable[str] | None = None,
    sweeps: int = 6,
    seed: int = 0,
    report: Report = lambda fraction, step: None,
) -> nn.Module:
    """Return a copy of a model whose linear layers are products of dense bases and row-sparse factors.

    Parameters
    ----------
    model : any module with torch.nn.Linear layers; left as it is.
    ratio, block_cols, count, rho : of `spec_for_ratio`, for every layer by itself.
    mode : None for layers for inference; "frozen", "stf" or "stf_coef" for layers to train, `DSLinear`. How to train
        them is in `workbench.models.compression.ds_training`.
    spec : sizes of all layers, in place of a ratio.
    pad : fill layers up with zeros where blocks do not divide them; what is stored of them counts.
    layers : names; None for those that `linear_layers` chooses.
    sweeps, seed : of `ds_factorize`.
    report : ``report(fraction, step)`` as the work goes on; it may raise to stop it.

    Returns
    -------
    nn.Module to put in the model's place. `workbench.models.layer_files` keeps it in a file.

    Raises
    ------
    KeyError : a name that is no linear layer. ValueError : numbers out of range, or blocks that do not divide a layer.

    Examples
    --------
    ``small = dsformer(model, 2.0)``
    """
    how = {"mode": mode, "spec": spec, "block_cols": block_cols, "count": count, "rho": rho, "pad": pad}
    how |= {"layers": layers, "sweeps": sweeps, "seed": seed, "report": report}
    copied = DSLinear.replace(copy.deepcopy(model), ratio, **how)
    return copied.eval() if mode is None else copied


def _made(model, ratio=2.0, *, mode=None, spec=None, block_cols=32, count="values", rho=RHO, pad=False, layers=None,
          sweeps=6, seed=0, report: Report = lambda fraction, step: None) -> dict[str, nn.Module]:  # fmt: skip
    """Return the new layers of a model by name; arguments of `dsformer`."""
    if mode is not None:
        check_choice(mode, MODES, function="dsformer", name="mode")
    found = linear_layers(model, layers)
    sizes = {}
    for name, layer in found.items():
        shape = tuple(layer.weight.shape)
        sizes[name] = spec or spec_for_ratio(shape, ratio, block_cols, count, rho=rho, pad=pad)
        sizes[name].block(shape, pad=pad)
    made: dict[str, nn.Module] = {}
    for i, (name, layer) in enumerate(found.items()):
        report(i / len(found), f"factorise layer {name}")
        weight = layer.weight.detach().float()
        factors = ds_factorize(weight, sizes[name], sweeps=sweeps, seed=seed, pad=pad)
        new = DSLinear(factors, layer.bias, mode or "frozen", weight)
        made[name] = new.finalize() if mode is None else new
    return made
