r"""Linear layers of a dense basis and a row-sparse factor: frozen, or factorised anew in every step of a training.

.. math:: \hat W = F(L), \qquad \frac{\partial \ell}{\partial L} := \frac{\partial \ell}{\partial \hat W}

In the straight-through modes the layer holds what is dense, and multiplies with what becomes of it; the gradient of the
product goes through the factorisation as if that were the identity.
"""

import copy
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from kernels.check import check_choice
from workbench.models.compression.dsformer import RHO, DSBlockSpec, DSFactors, ds_factorize, spec_for_ratio
from workbench.models.sparse_inference.sparse_linear import replace_linear
from workbench.models.sparse_inference.statistics import linear_layers

__all__ = ["MODES", "DSLinear", "StraightThroughFactorizer", "dsformer", "load_dsformer", "save_dsformer"]

FORMAT = "sparse-workbench dense-sparse layers 1"
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

    def factors(self) -> DSFactors:
        """Return the factors as arrays that later training leaves alone."""
        with torch.no_grad():
            idx, val = self._chosen()
        D = self.D.detach().numpy().copy()
        return DSFactors(D=D, idx=idx.numpy().copy(), val=val.detach().numpy().copy(), history=np.zeros(0))

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
        found = ds_factorize(self.latent, self.spec, sweeps=sweeps, power_iters=power_iters, D0=start)
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
        return product.transpose(1, 2).reshape(self.out_features, self.in_features)

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
    layers : names; None for those that `linear_layers` chooses.
    sweeps, seed : of `ds_factorize`.
    report : ``report(fraction, step)`` as the work goes on; it may raise to stop it.

    Returns
    -------
    nn.Module to put in the model's place. `save_dsformer` and `load_dsformer` keep it in a file.

    Raises
    ------
    KeyError : a name that is no linear layer. ValueError : numbers out of range, or blocks that do not divide a layer.

    Examples
    --------
    ``small = dsformer(model, 2.0)``
    """
    if mode is not None:
        check_choice(mode, MODES, function="dsformer", name="mode")
    found = linear_layers(model, layers)
    sizes = {}
    for name, layer in found.items():
        sizes[name] = spec or spec_for_ratio(tuple(layer.weight.shape), ratio, block_cols, count, rho=rho)
        sizes[name].block(layer.weight.shape)
    made: dict[str, nn.Module] = {}
    for i, (name, layer) in enumerate(found.items()):
        report(i / len(found), f"factorise layer {name}")
        weight = layer.weight.detach().float()
        new = DSLinear(
            ds_factorize(weight, sizes[name], sweeps=sweeps, seed=seed), layer.bias, mode or "frozen", weight
        )
        made[name] = new.finalize() if mode is None else new
    copied = replace_linear(copy.deepcopy(model), made)
    return copied.eval() if mode is None else copied


def save_dsformer(model: nn.Module, path: str | Path) -> None:
    """Store a model with `DSLinear` layers, for inference, as a safetensors file; `load_dsformer` reads it back.

    Raises
    ------
    ValueError : the model has no such layer.
    """
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = dict(model.state_dict())
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, DSLinear)}
    if not layers:
        raise ValueError("save_dsformer: the model has no DSLinear layer; make them with dsformer(model, ..)")
    for name, layer in layers.items():
        factors = layer.factors()
        tensors.pop(f"{name}.latent", None)
        parts = {part: torch.from_numpy(getattr(factors, part)) for part in ("D", "idx", "val")}
        tensors |= {f"{name}.{part}": tensor for part, tensor in parts.items()}
    held = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    save_file(held, str(path), metadata={"format": FORMAT, "layers": json.dumps(list(layers))})


def load_dsformer(model: nn.Module, path: str | Path) -> nn.Module:
    """Fill a dense model of the same architecture with what `save_dsformer` stored, in place; return the model.

    Raises
    ------
    FileNotFoundError : no such file.
    ValueError : the file is no such model, or one of another architecture.
    """
    tensors, layers = _read(path)
    made: dict[str, Any] = {}
    try:
        for name in layers:
            D, idx, val = (tensors.pop(f"{name}.{part}").numpy() for part in ("D", "idx", "val"))
            factors = DSFactors(D=D, idx=idx, val=val, history=np.zeros(0))
            made[name] = DSLinear(factors, tensors.pop(f"{name}.bias", None)).finalize()
            given = model.get_submodule(name)
            sides = getattr(given, "out_features", None), getattr(given, "in_features", None)
            if sides != factors.shape:
                raise RuntimeError(f"layer {name!r} of the file is {factors.shape}, the model's is {sides}")
        replace_linear(model, made)
        missing, unknown = model.load_state_dict(tensors, strict=False)
        left = [name for name in missing if not name.startswith(tuple(f"{layer}." for layer in made))]
        if left or unknown:
            raise RuntimeError(f"its tensors do not fit, such as {[*left, *unknown][0]!r}")
    except (AttributeError, RuntimeError) as error:
        raise ValueError(f"load_dsformer: {path} is of another architecture: {error}") from None
    except KeyError as error:
        raise ValueError(f"load_dsformer: {path} lacks {error}") from None
    return model


def _read(path):
    """Return the tensors of a file, and the names of its layers."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).exists():
        raise FileNotFoundError(f"load_dsformer: no file {path}; write one with save_dsformer(model, path)")
    try:
        with safe_open(str(path), framework="pt") as stored:
            about = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"load_dsformer: {path} is no file of save_dsformer: {error}") from None
    if about.get("format") != FORMAT:
        raise ValueError(f"load_dsformer: {path} is no file of save_dsformer; its format is {about.get('format')!r}")
    return tensors, json.loads(about["layers"])
