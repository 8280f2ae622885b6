"""What training holds in memory, measured tensor by tensor: weights, gradients, optimiser, indices, and saved values.

Bytes are counted by storage, so a view costs nothing and a tensor that is saved twice counts once. Nothing is read from
the operating system, which sees an allocator's pages and not what a method asked for.
"""

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["TrainingMemory", "bytes_of", "peak_bytes", "saved_bytes", "training_memory"]


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Bytes that a training step holds.

    Parameters
    ----------
    weights : parameters and buffers of floating-point numbers, trained or not.
    indices : integer and bool buffers: places of what is trained, masks.
    gradients : of all parameters together, as the optimiser finds them.
    optimizer : its state, without the numbers of steps.
    saved : what the forward pass keeps for the backward pass, beside weights and indices.
    transient : the most that is held at any moment of a step beyond weights, indices and the optimiser's state.
    """

    weights: int
    indices: int
    gradients: int
    optimizer: int
    saved: int
    transient: int

    @property
    def peak(self) -> int:
        """The most that is held at any moment of a step."""
        return self.weights + self.indices + self.optimizer + self.transient


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    """Return the bytes of the storages behind some tensors, each storage once."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def saved_bytes(function: Callable[[], Any], exclude: Iterable[torch.Tensor] = ()) -> int:
    """Return the bytes that a computation saves for its backward pass.

    Parameters
    ----------
    function : () -> anything; called once, its result is held until the bytes are counted.
    exclude : tensors whose storages do not count, such as parameters.

    Returns
    -------
    Bytes of the unique storages that autograd was given to keep. A checkpointed part counts with what it keeps, its
    inputs; what it computes again counts when the backward pass runs, which it does not here.
    """
    left_out = {t.untyped_storage().data_ptr() for t in exclude}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in left_out:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no other storage takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    found = bytes_of(kept.values())
    del result
    return found


class _Live(TorchDispatchMode):
    """Follows the storages that operations make while the mode is on, and the most bytes that lived at once."""

    def __init__(self, known: Iterable[torch.Tensor]):
        super().__init__()
        self.known = {t.untyped_storage()._cdata for t in known}
        self.sizes: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._follow(leaf.untyped_storage())
        return result

    def _follow(self, storage):
        key = storage._cdata
        if key in self.known or key in self.sizes:
            return
        self.sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key):
        self.now -= self.sizes.pop(key, 0)


def peak_bytes(function: Callable[[], Any], known: Iterable[torch.Tensor] = ()) -> int:
    """Return the most bytes of tensors that lived at once while a computation ran, those made by it alone.

    Parameters
    ----------
    function : () -> anything, called once.
    known : tensors that were there before.
    """
    live = _Live(known)
    with live:
        result = function()
    del result
    return live.peak


def training_memory(
    model: nn.Module, loss: Callable[[], torch.Tensor], optimizer: torch.optim.Optimizer
) -> TrainingMemory:
    """Take one training step and return what it held.

    Parameters
    ----------
    model : whose parameters and buffers are weights and indices.
    loss : () -> scalar, the forward pass.
    optimizer : of what is trained; its state exists after the step, and the model has moved by it.
    """
    numbers = [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
    places = [t for t in model.buffers() if not t.is_floating_point()]
    optimizer.zero_grad(set_to_none=True)
    saved = saved_bytes(loss, [*numbers, *places])
    held: dict[str, int] = {}

    def step():
        loss().backward()
        held["gradients"] = bytes_of(p.grad for p in model.parameters() if p.grad is not None)
        optimizer.step()

    step()  # the optimiser's state is made in its first step
    state = [t for each in optimizer.state.values() for t in each.values() if isinstance(t, torch.Tensor) and t.ndim]
    optimizer.zero_grad(set_to_none=True)
    transient = peak_bytes(step, [*numbers, *places, *state])
    optimizer.zero_grad(set_to_none=True)
    return TrainingMemory(
        weights=bytes_of(numbers),
        indices=bytes_of(places),
        gradients=held["gradients"],
        optimizer=bytes_of(state),
        saved=saved,
        transient=transient,
    )
