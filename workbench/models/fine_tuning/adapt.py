"""One call that makes a reader's own model ready to be tuned by any method here, and what can be done with it then."""

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from scipy import sparse
from torch import nn

from workbench.models.fine_tuning.method import Applied, TuningMethod, method
from workbench.models.fine_tuning.training import Batches, Loss, Training, train
from workbench.models.sparse_inference.sparse_linear import replace_linear
from workbench.models.sparse_inference.statistics import linear_layers

__all__ = ["Tuning", "adapt", "load_tuned", "shared_copy"]

FORMAT = "sparse-workbench tuning 1"


@dataclass(kw_only=True, eq=False)
class Tuning:
    """A model that is ready to be tuned.

    Parameters
    ----------
    model : to be trained and used like the one that it came from, whose frozen weights it shares.
    by : the method.
    knobs : all settings of the method.
    applied : what the method put into the model.
    also : names of modules that are trained whole, such as the head.
    """

    model: nn.Module
    by: TuningMethod
    knobs: Mapping[str, Any]
    applied: Applied
    also: tuple[str, ...] = field(default=())

    @property
    def layers(self) -> Mapping[str, Any]:
        """The modules that the method put in, by name."""
        return self.applied.layers

    def parameters(self) -> list[nn.Parameter]:
        """Return all that is trained."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def groups(self, rate: float, also_rate: float) -> list[dict[str, Any]]:
        """Return the method's parameters and those of the modules in ``also`` as groups with rates of their own."""
        whole = {id(p) for name in self.also for p in self.model.get_submodule(name).parameters()}
        multiples = {id(p): multiple for p, multiple in self.applied.rates}
        own: dict[float, list[nn.Parameter]] = {1.0: []}
        for p in self.parameters():
            if id(p) not in whole:
                own.setdefault(multiples.get(id(p), 1.0), []).append(p)
        rest = [p for p in self.parameters() if id(p) in whole]
        found = [*((some, multiple * rate) for multiple, some in own.items()), (rest, also_rate)]
        return [{"params": some, "lr": lr} for some, lr in found if some]

    @property
    def trainable(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.parameters())

    def train(self, loss: Loss, batch_of: Batches, *, steps: int, rate: float, also_rate: float | None = None, **how):
        """Train it by `workbench.models.fine_tuning.training.train`, with what the method does after each step.

        Parameters
        ----------
        loss, batch_of, steps, rate, how : of that function.
        also_rate : rate of the modules in ``also``; ``rate`` unless given.

        Returns
        -------
        Training.
        """
        given = how.pop("parameters", None) or self.groups(rate, rate if also_rate is None else also_rate)
        state = dict(self.applied.state) | dict(how.pop("state", None) or {})
        extra, own = how.pop("after_step", None), self.applied.after_step
        self.model.train()
        try:
            found: Training = train(
                self.model, loss, batch_of, steps=steps, rate=rate, parameters=given, state=state,
                after_step=_both(own, extra), **how,
            )  # fmt: skip
        finally:
            self.model.eval()
        return found

    def merge(self) -> nn.Module:
        """Return a plain copy of the model, without anything of the method, that gives the same.

        Raises
        ------
        NotImplementedError : the method has no such form; says why.
        """
        merged = replace_linear(copy.deepcopy(self.model), {name: each.merge() for name, each in self.layers.items()})
        return merged.eval().requires_grad_(False)

    @torch.no_grad()
    def export(self) -> dict[str, sparse.csr_array]:
        """Return the change of every adapted weight, float32 (m, n), with only the entries that are not zero."""
        return {name: sparse.csr_array(each.delta().float().numpy()) for name, each in self.layers.items()}

    def save(self, path: str | Path) -> None:
        """Store what was trained, and not the frozen weights, as a safetensors file; `load_tuned` reads it back."""
        from safetensors.torch import save_file

        told = {"method": self.by.key, "knobs": dict(self.knobs), "layers": list(self.layers), "also": list(self.also)}
        tensors = {name: t.detach().contiguous().clone() for name, t in self._own_state().items()}
        save_file(tensors, str(path), metadata={"format": FORMAT, "tuning": json.dumps(told)})

    def _own_state(self) -> dict[str, torch.Tensor]:
        """Return the tensors that a file holds: what is trained, and what else the method's modules keep."""
        frozen = {name for name, p in self.model.named_parameters() if not p.requires_grad}
        inside = tuple(f"{name}." for name in self.layers)
        trained = {name for name, p in self.model.named_parameters() if p.requires_grad}
        return {
            name: x for name, x in self.model.state_dict().items()
            if name in trained or (name not in frozen and name.startswith(inside))
        }  # fmt: skip


def adapt(
    model: nn.Module,
    method_key: str,
    *,
    targets: Iterable[str] | None = None,
    also: Iterable[str] = (),
    seed: int = 0,
    **knobs: Any,
) -> Tuning:
    """Make a model ready to be tuned by a method.

    Parameters
    ----------
    model : any module with torch.nn.Linear layers; left as it is, and its weights are shared, not copied, unless the
        method changes them.
    method_key : "full", "linear_probe", "lora", or one of the papers' methods; `methods` lists them.
    targets : names of the linear layers; None for those inside numbered blocks, or all but those in ``also``.
    also : names of modules that are trained whole beside them, such as a new head.
    seed : of all that the method draws at first; PyTorch's own generator is as before afterwards.
    knobs : of the method; see the class or function that its file names.

    Returns
    -------
    Tuning; train ``tuning.model`` with any loop, or call ``tuning.train``.

    Raises
    ------
    KeyError : no such method, or a name that is no linear layer. AttributeError : no such module in ``also``.
    TypeError, ValueError : a knob that the method does not have, a value out of range, or a layer in both.

    Examples
    --------
    ``tuning = adapt(model, "lora", also=["head"], r=8)``
    """
    by = method(method_key)
    strange = sorted(set(knobs) - set(by.knobs))
    if strange:
        raise TypeError(f"adapt: {by.key} has no knob {strange[0]!r}; it has {', '.join(by.knobs) or 'none'}")
    chosen = dict(by.knobs) | knobs
    copied, names = shared_copy(model), tuple(also)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        applied = by.apply(copied, _targets(copied, targets, names), **chosen)
    for name in names:
        whole = copied.get_submodule(name)
        _own_weights(whole)
        whole.requires_grad_(True)
    return Tuning(model=copied.eval(), by=by, knobs=chosen, applied=applied, also=names)


def load_tuned(model: nn.Module, path: str | Path) -> Tuning:
    """Return a model with what `Tuning.save` stored.

    Parameters
    ----------
    model : the one that was adapted, before it was tuned.
    path : of the file.

    Raises
    ------
    ValueError : not such a file, or one of another model.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as stored:
            about = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"load_tuned: {path} is no safetensors file: {error}") from None
    if about.get("format") != FORMAT:
        raise ValueError(f"load_tuned: {path} does not hold a tuned model; make one with Tuning.save")
    told = json.loads(about["tuning"])
    tuning = adapt(model, told["method"], targets=told["layers"], also=told["also"], **told["knobs"])
    wanted = tuning._own_state()
    if {k: v.shape for k, v in wanted.items()} != {k: v.shape for k, v in tensors.items()}:
        differ = sorted(set(wanted) ^ set(tensors)) or [k for k in wanted if wanted[k].shape != tensors[k].shape]
        raise ValueError(f"load_tuned: {path} was made for another model: {differ[0]} does not fit")
    tuning.model.load_state_dict(tensors, strict=False)
    return tuning


def _targets(model, targets, whole) -> dict[str, nn.Linear]:
    """Return the layers that a method takes; none of them inside a module that is trained whole."""
    found = linear_layers(model, targets)
    inside = [name for name in found if any(name == each or name.startswith(f"{each}.") for each in whole)]
    if targets is not None and inside:
        raise ValueError(f"adapt: {inside[0]!r} cannot stand in targets and in also; leave it out of one of them")
    return {name: layer for name, layer in found.items() if name not in inside}


def shared_copy(model: nn.Module) -> nn.Module:
    """Return a copy whose parameters are frozen and share their memory with those of the model."""
    shared: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, shared)


def _own_weights(module: nn.Module) -> None:
    """Give a module memory of its own, so that training it does not change the model that it came from."""
    for each in module.modules():
        for name, parameter in list(each.named_parameters(recurse=False)):
            setattr(each, name, nn.Parameter(parameter.detach().clone()))


def _both(first, second):
    if first is None or second is None:
        return first or second

    def call(step, steps):
        first(step, steps)
        second(step, steps)

    return call
