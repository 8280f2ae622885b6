"""What a method of fine-tuning tells `adapt` of itself, and the methods there are: one file each in this folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from torch import nn

from workbench.gathered import find, gathered
from workbench.models.fine_tuning.training import Stateful

__all__ = ["Applied", "TuningMethod", "method", "methods"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Applied:
    """What a method put into a model.

    Parameters
    ----------
    layers : name -> the module that stands there now. It has ``delta()``, the change of the layer's weight as a tensor
        (m, n), and ``merge()``, which returns a plain module that gives the same; where a method has no such thing, it
        raises `NotImplementedError` with a sentence that says why.
    after_step : ``after_step(step, steps)``, to be called after every step of the optimiser.
    state : name -> what else a checkpoint and a file must hold.
    rates : parameters with a rate of their own, each with the multiple of the method's rate that it is.
    """

    layers: Mapping[str, Any]
    after_step: Callable[[int, int], object] | None = None
    state: Mapping[str, Stateful] = field(default_factory=dict)
    rates: Sequence[tuple[nn.Parameter, float]] = ()


@dataclass(frozen=True, kw_only=True)
class TuningMethod:
    """One way to tune a model.

    Parameters
    ----------
    key, title : name of the file, and what readers see.
    apply : ``apply(model, layers, **knobs)`` puts its modules in the place of ``layers`` (name -> `torch.nn.Linear`) of
        a model whose parameters are all frozen, and returns `Applied`. What it trains asks for gradients afterwards.
    knobs : name -> value unless given; all that ``apply`` takes.
    source : where the method is published.
    """

    key: str
    title: str
    apply: Callable[..., Applied]
    knobs: Mapping[str, Any]
    source: str


@cache
def methods() -> dict[str, TuningMethod]:
    """Return every method by key."""
    return gathered("workbench.models.fine_tuning", "METHOD")


def method(key: str) -> TuningMethod:
    """Return the method of a key; KeyError names the nearest one."""
    found: dict[str, Any] = methods()
    return find("method of fine-tuning", key, found)
