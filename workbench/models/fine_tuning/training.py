"""One seeded training loop for every method here: progress, cancelling, and checkpoints that a kill cannot spoil.

Batches are addressed by the number of the step, so a training that goes on from a checkpoint sees what an uninterrupted
one would have seen, and ends with the same bits.
"""

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from kernels.check import as_int, as_number, check_callable

__all__ = ["Checkpoint", "Stateful", "Training", "cosine", "falling", "steady", "train"]

Batches = Callable[[int], Any]
Loss = Callable[[nn.Module, Any], torch.Tensor]
Schedule = Callable[[float], float]
Report = Callable[[float, str], None]


class Stateful(Protocol):
    """What can be kept in a checkpoint."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any], /) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where a training keeps its state, and how often.

    Parameters
    ----------
    path : of the file; it is deleted when the training is done.
    every_s : seconds from one writing to the next; 0 for every step.
    """

    path: Path
    every_s: float = 30.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """What a training did.

    Parameters
    ----------
    losses : float32 (steps,), of each step, before it.
    seconds : wall-clock time of the steps, those before an interruption included.
    """

    losses: np.ndarray
    seconds: float


def cosine(warm: float = 0.0, last: float = 0.0) -> Schedule:
    """Return a schedule that rises over a share ``warm`` of the steps and falls along a cosine to ``last``."""

    def rate(done: float) -> float:
        if done < warm:
            return done / warm
        share = (done - warm) / max(1e-12, 1 - warm)
        return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))

    return rate


def falling(done: float) -> float:
    """Fall along a line to 0: a schedule."""
    return 1 - done


def steady(done: float) -> float:
    """Stay: a schedule."""
    return 1.0


def train(
    model: nn.Module,
    loss: Loss,
    batch_of: Batches,
    *,
    steps: int,
    rate: float,
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]] | None = None,
    weight_decay: float = 0.0,
    schedule: Schedule = steady,
    clip: float | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
    seed: int = 0,
    after_step: Callable[[int, int], object] | None = None,
    state: Mapping[str, Stateful] | None = None,
    checkpoint: Checkpoint | None = None,
    report: Report = lambda fraction, step: None,
) -> Training:
    """Train a model in place.

    Parameters
    ----------
    model : in the mode that it has, "train" or "eval".
    loss : ``loss(model, batch)`` -> scalar tensor.
    batch_of : ``batch_of(step)`` -> batch; equal steps give equal batches.
    steps, rate : training steps, from 0 on, and the highest learning rate.
    parameters : what is trained, or groups of it with their own ``lr`` as PyTorch's optimisers take them; None for all
        that ask for gradients.
    weight_decay : of the optimiser.
    schedule : share of the steps done, in [0, 1) -> share of the rate; see `cosine`, `falling` and `steady`.
    clip : the largest norm of all gradients together; None for any.
    optimizer : ``optimizer(parameters, lr=..., weight_decay=...)``.
    seed : of all that the model draws, such as dropout; PyTorch's own generator is as before afterwards.
    after_step : ``after_step(step, steps)`` after each step of the optimiser, counted from 1; gradients are there.
    state : name -> what else a checkpoint must hold, such as a method's masks.
    checkpoint : where the state is kept, so that a training that was killed goes on; None to keep nothing.
    report : ``report(fraction, step)`` after each step; it may raise to stop the training.

    Returns
    -------
    Training.

    Raises
    ------
    TypeError, ValueError : arguments out of range, nothing to train, or a checkpoint of another training.
    FloatingPointError : the loss is not finite; says at which step.

    Examples
    --------
    ``train(model, lambda m, batch: F.cross_entropy(m(batch[0]), batch[1]), batches.__getitem__, steps=100, rate=1e-3)``
    """
    name = "train"
    steps = as_int(steps, function=name, name="steps", low=0)
    rate = as_number(rate, function=name, name="rate", above=0)
    for call, what in ((loss, "loss"), (batch_of, "batch_of"), (schedule, "schedule"), (report, "report")):
        check_callable(call, function=name, name=what)
    given = list(parameters) if parameters is not None else [p for p in model.parameters() if p.requires_grad]
    if not given:
        raise ValueError("train: nothing asks for gradients; give parameters, or set requires_grad")
    made = optimizer(given, lr=rate, weight_decay=weight_decay)
    highest = [group["lr"] for group in made.param_groups]
    kept = {"model": model, "optimizer": made, **(state or {})}
    trained = [p for group in made.param_groups for p in group["params"]]
    told = {"steps": steps, "rate": rate, "seed": seed, "shapes": [tuple(p.shape) for p in trained]}
    losses, begin, earlier_s = np.zeros(steps, np.float32), 0, 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if checkpoint is not None and checkpoint.path.is_file():
            begin, earlier_s = _restore(checkpoint.path, told, kept, losses)
        start = written = time.perf_counter()
        for step in range(begin, steps):
            for group, high in zip(made.param_groups, highest, strict=True):
                group["lr"] = high * schedule(step / steps)
            made.zero_grad(set_to_none=True)
            found = loss(model, batch_of(step))
            losses[step] = found.detach()
            if not math.isfinite(losses[step]):
                raise FloatingPointError(f"train: the loss is {losses[step]} at step {step:,}; take a smaller rate")
            found.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(trained, clip)
            made.step()
            if after_step is not None:
                after_step(step + 1, steps)
            report((step + 1) / steps, f"training step {step + 1:,} of {steps:,}")
            now = time.perf_counter()
            if checkpoint is not None and step + 1 < steps and now - written >= checkpoint.every_s:
                _keep(checkpoint.path, told, kept, losses[: step + 1], earlier_s + now - start)
                written = now
        made.zero_grad(set_to_none=True)
    seconds = earlier_s + time.perf_counter() - start
    if checkpoint is not None:
        checkpoint.path.unlink(missing_ok=True)
    return Training(losses=losses, seconds=seconds)


def _keep(path: Path, told, kept, losses, seconds) -> None:
    """Write a checkpoint beside the old one and put it in its place in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "told": told,
        "losses": torch.from_numpy(losses.copy()),
        "seconds": seconds,
        "random": torch.get_rng_state(),
        "kept": {name: each.state_dict() for name, each in kept.items()},
    }
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False, suffix=".part") as file:
        try:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    os.replace(file.name, path)


def _restore(path: Path, told, kept, losses) -> tuple[int, float]:
    """Load a checkpoint; return how many steps it has behind it, and how long they took."""
    content = torch.load(path, weights_only=True)
    differ = [key for key, value in told.items() if content["told"].get(key) != value]
    if differ or set(content["kept"]) != set(kept):
        what = ", ".join(differ) or "other parts"
        raise ValueError(f"train: {path} is the checkpoint of another training ({what}); delete it to begin anew")
    for name, each in kept.items():
        each.load_state_dict(content["kept"][name])
    torch.set_rng_state(content["random"])
    done = len(content["losses"])
    losses[:done] = content["losses"].numpy()
    return done, content["seconds"]
