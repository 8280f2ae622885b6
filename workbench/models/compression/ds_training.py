"""Training of models with dense-sparse layers: the factors alone, or the choice of their places by the task's loss."""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from kernels.check import as_int, as_number, check_choice
from workbench.models.compression.ds_linear import MODES, DSLinear, dsformer
from workbench.models.compression.dsformer import DSBlockSpec
from workbench.models.sparse_inference.sparse_linear import replace_linear

__all__ = ["Finetuned", "ds_layers", "finetune", "stf_finetune"]

LAST_SWEEPS = 6
Loss = Callable[[nn.Module, Any], torch.Tensor]
Report = Callable[[float, str], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Finetuned:
    """What a training left.

    Parameters
    ----------
    model : with `DSLinear` layers of mode "frozen"; call `finalised` for inference on kernels.
    before_polish : state of the same model after the last factorisation, before only its values were trained.
    losses : float32 (steps,), of each step.
    churn : float64, share of the places of all layers that changed, at each factorisation or step that may move them.
    """

    model: nn.Module
    before_polish: Mapping[str, torch.Tensor]
    losses: np.ndarray
    churn: np.ndarray

    def finalised(self) -> nn.Module:
        """Return the model for inference; its layers share nothing with those that were trained."""
        made = {name: layer.finalize() for name, layer in ds_layers(self.model).items()}
        return replace_linear(copy.deepcopy(self.model), dict(made)).eval()


def ds_layers(model: nn.Module) -> dict[str, DSLinear]:
    """Return the dense-sparse layers of a model, by name."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, DSLinear)}


def stf_finetune(
    model: nn.Module,
    layers: Iterable[str] | None,
    loss_fn: Loss,
    loader: Iterable[Any],
    spec: DSBlockSpec | Mapping[str, DSBlockSpec],
    *,
    epochs: int,
    lr: float,
    refactor_every: int = 1,
    polish_frac: float = 0.4,
    mode: str = "stf",
    pad: bool = False,
    sweeps: int = 6,
    seed: int = 0,
    report: Report = lambda fraction, step: None,
) -> Finetuned:
    """Train a copy of a dense model whose layers are factorised again in every step, straight through.

    Parameters
    ----------
    model : dense; left as it is.
    layers : names; None for those that `linear_layers` chooses.
    loss_fn : ``loss_fn(copy, batch)`` -> scalar tensor.
    loader : batches, gone through once an epoch; a list, or whatever starts anew each time.
    spec : sizes, of all layers or by name.
    epochs, lr : passes, at least 1, and the rate of AdamW, without weight decay.
    refactor_every : steps from one factorisation to the next.
    polish_frac : share of the steps, in [0, 1), in which the places are fixed and only D and the coefficients learn.
    mode : "stf"; "stf_coef" or "frozen" for the other ways of `DSLinear` with the same training.
    pad : of `dsformer`, for layers that blocks do not divide.
    sweeps : of the first factorisation; later ones start from the last bases and take one.
    seed : of the first factorisation.
    report : ``report(fraction, step)`` as the work goes on; it may raise to stop it.

    Returns
    -------
    Finetuned.

    Raises
    ------
    KeyError : a name that is no linear layer. ValueError : numbers out of range, no batch, or sizes that do not fit.

    Examples
    --------
    ``stf_finetune(model, None, loss, batches, DSBlockSpec(atoms=12, nnz_per_row=2), epochs=5, lr=1e-3).model``

    Source
    ------
    Chand et al. 2023, "DSFormer"; a reconstruction, as `workbench.models.compression.dsformer` says.
    """
    check_choice(mode, MODES, function="stf_finetune", name="mode")
    made = {"mode": mode, "pad": pad, "sweeps": sweeps, "seed": seed}
    if isinstance(spec, DSBlockSpec):
        pupil = dsformer(model, spec=spec, layers=layers, **made)
    else:
        pupil = model
        for name, each in spec.items():
            pupil = dsformer(pupil, spec=each, layers=[name], **made)
    how = {"epochs": epochs, "lr": lr, "refactor_every": refactor_every, "polish_frac": polish_frac, "report": report}
    return finetune(pupil, loss_fn, loader, **how)


def finetune(
    model: nn.Module,
    loss_fn: Loss,
    loader: Iterable[Any],
    *,
    epochs: int,
    lr: float,
    refactor_every: int = 1,
    polish_frac: float = 0.4,
    report: Report = lambda fraction, step: None,
) -> Finetuned:
    """Train a model with `DSLinear` layers in place; arguments and result of `stf_finetune`."""
    name = "finetune"
    batches = list(loader)
    if not batches:
        raise ValueError(f"{name}: loader gives no batch; it must give at least one a pass")
    epochs = as_int(epochs, function=name, name="epochs", low=1)
    lr = as_number(lr, function=name, name="lr", above=0)
    refactor_every = as_int(refactor_every, function=name, name="refactor_every", low=1)
    polish_frac = as_number(polish_frac, function=name, name="polish_frac", low=0)
    if polish_frac >= 1:
        raise ValueError(f"{name}: polish_frac must be below 1, the share of all steps, got {polish_frac}")
    found = ds_layers(model)
    if not found:
        raise ValueError(f"{name}: the model has no DSLinear layer; make them with dsformer(model, mode='stf')")
    steps = epochs * len(batches)
    free = any(layer.mode != "frozen" for layer in found.values())
    searching = steps - round(polish_frac * steps) if free else steps
    losses, churn = [], []
    optimiser = _optimiser(model, lr)
    model.train()
    before: dict[str, torch.Tensor] = {}
    for step in range(steps):
        report(step / steps, f"training step {step + 1:,} of {steps:,}")
        if step == searching:
            model, before = _settle(model)
            optimiser = _optimiser(model.train(), lr)
        elif step < searching and step and step % refactor_every == 0:
            moved = {n: layer.refactor() for n, layer in ds_layers(model).items() if layer.mode == "stf"}
            if moved:
                sizes = {n: ds_layers(model)[n].idx.numel() for n in moved}
                churn.append(sum(moved[n] * sizes[n] for n in moved) / sum(sizes.values()))
        places = _places(model) if step < searching else {}
        optimiser.zero_grad()
        loss = loss_fn(model, batches[step % len(batches)])
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        if places:
            after = _places(model)
            changed = sum(int((places[n] & ~after[n]).sum()) for n in places)
            churn.append(changed / sum(int(x.sum()) for x in places.values()))
    if searching == steps:
        model, before = _settle(model)
    return Finetuned(model=model.eval(), before_polish=before, losses=np.array(losses, np.float32),
                     churn=np.array(churn))  # fmt: skip


def _optimiser(model, lr):
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, weight_decay=0.0)


def _places(model):
    """Return which coefficients count, of the layers whose places move with their coefficients."""
    found = ds_layers(model).items()
    return {name: layer.places() for name, layer in found if layer.mode == "stf_coef"}


def _settle(model):
    """Fix the places of all layers, after a last search; return the model and its state."""
    made = {}
    for name, layer in ds_layers(model).items():
        if layer.mode == "stf":
            layer.refactor(sweeps=LAST_SWEEPS)
        made[name] = layer.freeze()
    model = replace_linear(model, dict(made))
    return model, {name: x.detach().clone() for name, x in model.state_dict().items()}
