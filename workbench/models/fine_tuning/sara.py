r"""SaRA: the weights closest to zero, which a pre-trained model does not use, learn what is new.

.. math:: M_l = (|P_l| < \theta), \qquad L = L_{\text{task}} + \lambda \|P_l \odot M_l\|_*, \qquad
          \eta = 10^{-3} e^{-350\,\theta}

One threshold for all parameters. Gradients and the state of AdamW exist for the chosen entries alone: as soon as a
parameter's gradient is there, its chosen entries are gathered and the rest is let go. After a while those entries that
are still below the threshold are chosen anew, with a fresh state, and the others keep what they have learnt.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import nn

from kernels.check import as_int, as_number, check_choice
from kernels.optim.selected_adamw import selected_adamw
from workbench.models.fine_tuning.method import Applied, TuningMethod
from workbench.models.fine_tuning.nuclear_norm import eligible, nuclear_gradient
from workbench.models.fine_tuning.sara_linear import SaRALinear
from workbench.models.fine_tuning.selection import (
    flat_places,
    places_digest,
    select_smallest,
    smallest_threshold,
)
from workbench.models.fine_tuning.training import Batches, Loss, Training, train
from workbench.models.fine_tuning.weight_changes import change_matrix
from workbench.models.sparse_inference.sparse_linear import replace_linear

__all__ = ["STORAGES", "SaRA", "auto_lr", "load_sara", "vlhi"]

STORAGES = ("index", "mask")
FORMAT = "sparse-workbench sara 1"


class SaRA:
    """An optimiser of the entries of a model that are closest to zero.

    It trains the given model in place, with any training loop: ``loss.backward()``, ``step()``, ``zero_grad()``. To
    keep the model that you have, give ``copy.deepcopy(model)``. The parameters stay where they are, so any module will
    do; those without a chosen entry want no gradient any more. The hooks that gather gradients go with `close`.

    Parameters
    ----------
    model : float32 or float64 parameters in main memory.
    threshold, fraction : one of both; see `select_smallest`.
    lr : the rate, or "auto" for `auto_lr` of the threshold; ``param_groups`` has it, for schedules.
    lambda_rank : weight of the nuclear norm of one matrix, drawn in every step.
    progressive_iter : after how many steps the entries that are still idle are chosen anew; None for never. The step at
        which that happens moves no weight.
    weight_decay, betas, eps : of AdamW; decay acts on chosen entries only.
    clip : the longest that the gradient of all chosen entries may be; None for no bound.
    storage : "index" keeps places (4 bytes for each chosen entry), "mask" a bool for every entry.
    selection : name -> bool tensor, in place of threshold and fraction, for comparison with other choices.
    seed : of the matrices that are drawn.

    Raises
    ------
    ValueError : both or neither of threshold and fraction, a value out of range, parameters of integers, or nothing to
        train. TypeError : parameters of another kind.

    Source
    ------
    Hu et al. 2024, "SaRA", arXiv 2409.06633. *Differs from the released code:* entries begin with their own sign, and
    the nuclear norm acts on what is trained.
    """

    def __init__(self, model: nn.Module, threshold=None, fraction=None, lr: Any = "auto", lambda_rank=0.0,
                 progressive_iter: int | None = None, weight_decay=1e-2, betas=(0.9, 0.999), *, eps=1e-8,
                 clip: float | None = None, storage="index", selection: Mapping[str, torch.Tensor] | None = None,
                 seed=0):  # fmt: skip
        name = "SaRA"
        check_choice(storage, STORAGES, function=name, name="storage")
        self.lambda_rank = as_number(lambda_rank, function=name, name="lambda_rank", low=0)
        self.clip = None if clip is None else as_number(clip, function=name, name="clip", above=0)
        if progressive_iter is not None:
            progressive_iter = as_int(progressive_iter, function=name, name="progressive_iter", low=1)
        self.progressive_iter, self.storage, self.eps, self.betas = progressive_iter, storage, eps, tuple(betas)
        self.threshold, masks = _chosen(model, threshold, fraction, selection)
        if lr == "auto":
            if self.threshold is None:
                raise ValueError("SaRA: lr must be a number where a selection is given, which has no threshold")
            lr = auto_lr(self.threshold)
        lr = as_number(lr, function=name, name="lr", low=0)
        decay = as_number(weight_decay, function=name, name="weight_decay", low=0)
        self.model, self.steps, self.switched = model, 0, False
        self.parameters: dict[str, nn.Parameter] = {}
        self._first: dict[str, torch.Tensor] = {}  # what was chosen at first, as it is stored
        for label, p in model.named_parameters():
            if masks[label].any():
                _check_parameter(label, p)
                p.requires_grad_(True)
                self.parameters[label] = p
                self._first[label] = masks[label].clone() if storage == "mask" else flat_places(masks[label])
            else:
                p.requires_grad_(False)
        if not self.parameters:
            raise ValueError(f"SaRA: nothing to train: no entry is below {self.threshold}; take a larger threshold")
        self.param_groups = [{"params": list(self.parameters.values()), "lr": lr, "weight_decay": decay}]
        self._begin = {n: _take(p.detach(), self._first[n]).clone() for n, p in self.parameters.items()}
        self._draw = torch.Generator().manual_seed(as_int(seed, function=name, name="seed", low=0))
        self._start(self._first)
        self._hooks = [
            p.register_post_accumulate_grad_hook(lambda p, n=n: self._gather(n, p)) for n, p in self.parameters.items()
        ]

    def _start(self, chosen) -> None:
        """Choose the entries that are trained from now on, with a fresh state."""
        self._now, self._updates = dict(chosen), 0
        self.gradients: dict[str, torch.Tensor] = {}
        sizes = {n: _count(c) for n, c in self._now.items()}
        self._moments = {n: tuple(self.parameters[n].new_zeros(k) for _ in range(2)) for n, k in sizes.items()}

    def _gather(self, name, p) -> None:
        """Keep the gradients of the chosen entries, and let the others go."""
        found = _take(p.grad, self._now[name])
        self.gradients[name] = found if name not in self.gradients else self.gradients[name] + found
        p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move the chosen entries, or choose anew where it is time for that."""
        self.steps += 1
        if not self.switched and self.progressive_iter is not None and self.steps == self.progressive_iter + 1:
            self.reselect()
            return
        if self.lambda_rank:
            self._add_penalty()
        if self.clip is not None:
            length = float(torch.stack([g.norm() for g in self.gradients.values()] or [torch.zeros(())]).norm())
            if length > self.clip:
                for g in self.gradients.values():
                    g.mul_(self.clip / (length + 1e-6))
        self._updates += 1
        (group,) = self.param_groups
        for name, gradient in self.gradients.items():
            p, index = self.parameters[name], _places(self._now[name])
            first, second = self._moments[name]
            selected_adamw(
                p.detach().numpy(), gradient.numpy(), index.numpy(), first.numpy(), second.numpy(),
                step=self._updates, rate=group["lr"], beta1=self.betas[0], beta2=self.betas[1], eps=self.eps,
                weight_decay=group["weight_decay"],
            )  # fmt: skip
            torch.autograd.graph.increment_version(p)

    def _add_penalty(self) -> None:
        masks = {n: self.masks(n) for n, p in self.parameters.items() if p.ndim == 2 and _count(self._now[n])}
        names = eligible(masks)
        if names:
            name = names[int(torch.randint(len(names), (), generator=self._draw))]
            slope = nuclear_gradient(self.parameters[name], masks[name])
            pull = self.lambda_rank * _take(slope, self._now[name])
            self.gradients[name] = self.gradients[name] + pull if name in self.gradients else pull

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        self.gradients.clear()

    def masks(self, name: str) -> torch.Tensor:
        """Return where a parameter is trained at present, bool of its shape."""
        return _as_mask(self._now[name], self.parameters[name].shape)

    @torch.no_grad()
    def reselect(self) -> int:
        """Choose anew: of the entries that are trained those below the threshold; return how many there are.

        No weight moves. The state of AdamW begins anew, and gradients are forgotten.

        Raises
        ------
        ValueError : the entries were not chosen by a threshold.
        """
        theta = self._theta("reselect")
        masks = {n: self.masks(n) & (p.detach().abs() < theta) for n, p in self.parameters.items()}
        self._start({n: m if self.storage == "mask" else flat_places(m) for n, m in masks.items()})
        self.switched = True
        return self.n_trainable

    @property
    def n_trainable(self) -> int:
        """How many entries are trained at present."""
        return sum(map(_count, self._now.values()))

    @torch.no_grad()
    def still_idle_fraction(self) -> float:
        """Return the share of the entries chosen at first whose magnitude is below the threshold now."""
        theta = self._theta("still_idle_fraction")
        idle = sum(int((_take(p.detach(), self._first[n]).abs() < theta).sum()) for n, p in self.parameters.items())
        return idle / sum(map(_count, self._first.values()))

    def _theta(self, function) -> float:
        if self.threshold is None:
            raise ValueError(f"SaRA.{function}: a selection has no threshold; give threshold or fraction")
        return self.threshold

    def train(self, loss: Loss, batch_of: Batches, *, steps: int, **how: Any) -> Training:
        """Train the model by `workbench.models.fine_tuning.training.train` with this optimiser; without checkpoints."""
        (group,) = self.param_groups
        for knob in ("checkpoint", "clip", "optimizer", "parameters", "rate", "weight_decay"):
            if knob in how:
                raise TypeError(f"SaRA.train: {knob} cannot be given here; the optimiser has its own")
        made: Any = self
        self.model.train()
        try:
            return train(self.model, loss, batch_of, steps=steps, rate=group["lr"], parameters=group["params"],
                         optimizer=lambda *_, **__: made, **how)  # fmt: skip
        finally:
            self.model.eval()

    def close(self) -> None:
        """Take the hooks away; the model is a plain one then, with its parameters frozen."""
        for hook in self._hooks:
            hook.remove()
        for p in self.parameters.values():
            p.requires_grad_(False)

    # What was learnt --------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def delta(self) -> dict[str, sparse.csr_array]:
        """Return the change of every parameter at the entries chosen at first, float64; see `apply_delta`."""
        changes = {}
        for name, p in self.parameters.items():
            change = _take(p.detach(), self._first[name]).double() - self._begin[name].double()
            changes[name] = change_matrix(p.shape, _places(self._first[name]).numpy(), change.numpy())
        return changes

    @torch.no_grad()
    def state_dict(self) -> dict[str, Any]:
        """Return the threshold, and name -> values of the entries chosen at first, (k,)."""
        values = {n: _take(p.detach(), self._first[n]).clone() for n, p in self.parameters.items()}
        return {"threshold": self.threshold, "places": places_digest(self._all_places()), "values": values}

    def _all_places(self):
        return [(n, _places(self._first[n])) for n in self.parameters]

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        """Take the values of `state_dict`.

        Raises
        ------
        ValueError : they belong to other entries; the model is not the one that they were learnt with.
        """
        _check_state(state, self._all_places())
        for name, p in self.parameters.items():
            _put(p, _places(self._first[name]), state["values"][name])

    def save(self, path: str | Path) -> None:
        """Store the threshold and the k values, and no places, as a safetensors file; `load_sara` reads it back."""
        from safetensors.torch import save_file

        state = self.state_dict()
        told = {"threshold": self._theta("save").hex(), "places": state["places"]}
        save_file(state["values"], str(path), metadata={"format": FORMAT, "sara": json.dumps(told)})

    def memory(self) -> dict[str, int]:
        """Return the bytes that are held: as `memory_report` counts them, after a backward pass."""
        held = {
            "weights": [*self.model.parameters(), *self._begin.values()],
            "gradients": [*self.gradients.values()],
            "optimizer": [x for pair in self._moments.values() for x in pair],
            "indices": [*{id(c): c for c in (*self._now.values(), *self._first.values())}.values()],
        }
        return {name: sum(x.nbytes for x in tensors) for name, tensors in held.items()}


@torch.no_grad()
def load_sara(model: nn.Module, path: str | Path) -> nn.Module:
    """Put what `SaRA.save` stored into a model, in place.

    Parameters
    ----------
    model : with the weights from which the training began, to the last bit: they say where the values belong.
    path : of the file.

    Returns
    -------
    The model.

    Raises
    ------
    ValueError : not such a file, or one of another model; nothing has been changed then.

    Source
    ------
    Hu et al. 2024, "SaRA", on storage. *Differs from the released code:* a digest of the places is stored too, so that
    a model with as many entries in other places is refused.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as stored:
            about = stored.metadata() or {}
            values = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"load_sara: {path} is no safetensors file: {error}") from None
    if about.get("format") != FORMAT:
        raise ValueError(f"load_sara: {path} holds no values of SaRA; make one with SaRA.save")
    told = json.loads(about["sara"])
    masks = select_smallest(model, threshold=float.fromhex(told["threshold"]))
    places = {name: flat_places(mask) for name, mask in masks.items() if mask.any()}
    _check_state({"values": values, "places": told["places"]}, list(places.items()))
    there = dict(model.named_parameters())
    for name, index in places.items():
        _put(there[name], index, values[name])
    return model


def auto_lr(theta) -> float:
    """Return the rate that belongs to a threshold, 0.001 exp(-350 theta).

    Raises
    ------
    ValueError : theta is below 0 or not finite.

    Source
    ------
    Hu et al. 2024, "SaRA", found for Stable Diffusion.
    """
    return 1e-3 * math.exp(-350 * as_number(theta, function="auto_lr", name="theta", low=0))


def vlhi(fid, clip) -> np.ndarray:
    """Return the sum of two scores that go from 0, the worst of those compared, to 1, the best.

    Parameters
    ----------
    fid : (methods,), smaller is better.
    clip : (methods,), larger is better.

    Returns
    -------
    float64 (methods,), from 0 to 2.

    Raises
    ------
    ValueError : fewer than two methods, lengths that differ, or all alike in one of the two.

    Source
    ------
    Hu et al. 2024, "SaRA", visual-linguistic harmony index.
    """
    fid, clip = (np.asarray(x, np.float64) for x in (fid, clip))
    if fid.ndim != 1 or fid.shape != clip.shape or len(fid) < 2 or not np.isfinite([fid, clip]).all():
        raise ValueError(
            f"vlhi: fid and clip must be finite, (methods,) and two at least, got {fid.shape}, {clip.shape}"
        )
    if not np.ptp(fid) or not np.ptp(clip):
        raise ValueError("vlhi: fid and clip must each differ between methods; with equal ones the index has no scale")
    return (fid.max() - fid) / np.ptp(fid) + (clip - clip.min()) / np.ptp(clip)


def _chosen(model, threshold, fraction, selection):
    """Return the threshold, None for a selection, and the masks of all parameters."""
    if selection is None:
        given = {name: p.detach() for name, p in model.named_parameters()}
        theta = smallest_threshold(given, threshold, fraction, "SaRA")
        return theta, select_smallest(model, theta)
    shapes = {name: p.shape for name, p in model.named_parameters()}
    if threshold is not None or fraction is not None:
        raise ValueError("SaRA: give a selection, or one of threshold and fraction, not both")
    if {n: m.shape for n, m in selection.items()} != shapes or any(m.dtype != torch.bool for m in selection.values()):
        raise ValueError("SaRA: selection must have a bool tensor of the shape of every parameter, by its name")
    return None, dict(selection)


def _check_parameter(name, p) -> None:
    if p.dtype not in (torch.float32, torch.float64) or p.device.type != "cpu" or not p.is_contiguous():
        raise TypeError(
            f"SaRA: {name} must be contiguous float32 or float64 in main memory, got {p.dtype} on {p.device}; "
            "call model.float().cpu(), or p.data = p.data.contiguous()"
        )


def _count(chosen) -> int:
    return int(chosen.sum()) if chosen.dtype == torch.bool else len(chosen)


def _places(chosen) -> torch.Tensor:
    return flat_places(chosen) if chosen.dtype == torch.bool else chosen


def _as_mask(chosen, shape) -> torch.Tensor:
    if chosen.dtype == torch.bool:
        return chosen
    flat = torch.zeros(math.prod(shape), dtype=torch.bool)
    flat[chosen] = True
    return flat.view(shape)


def _take(x, chosen) -> torch.Tensor:
    return x.reshape(-1)[chosen.reshape(-1)]


def _put(p, index, values) -> None:
    p.detach().view(-1)[index] = values.to(p.dtype)


def _check_state(state, places) -> None:
    counts = {name: len(index) for name, index in places}
    found = {name: len(values) for name, values in state["values"].items()}
    if counts != found:
        name = next(n for n in (*counts, *found) if counts.get(n, 0) != found.get(n, 0))
        raise ValueError(
            f"load: {found.get(name, 0)} values for {name}, which has {counts.get(name, 0)} entries below the "
            "threshold; load onto the weights from which the training began"
        )
    if state["places"] != places_digest(places):
        raise ValueError("load: the values belong to other places; load onto the weights from which the training began")


def _apply(model, layers, *, threshold, fraction):
    given = {f"{name}.{n}": p.detach() for name, layer in layers.items() for n, p in layer.named_parameters()}
    theta = smallest_threshold(given, threshold, None if threshold is not None else fraction, "SaRALinear")
    made = {name: SaRALinear(layer, theta) for name, layer in layers.items()}
    if not any(p.requires_grad for layer in made.values() for p in layer.parameters()):
        raise ValueError(f"SaRALinear: nothing to train: no entry is below {theta}; take a larger threshold")
    replace_linear(model, dict(made))
    return Applied(layers=made)


METHOD = TuningMethod(
    key="sara", title="SaRA", apply=_apply, knobs={"threshold": None, "fraction": 0.1},
    source="Hu et al. 2024, arXiv 2409.06633",
)  # fmt: skip
