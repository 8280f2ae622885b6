r"""SNELLA: sparse updates whose layers compete for one budget of entries, and whose entries compete for the layer's.

.. math:: \Delta W^T = K + \alpha\, \mathrm{softmax}(K / \gamma) + \beta, \qquad
          a_l \propto \overline{I}_A \overline{U}_A + \overline{I}_B \overline{U}_B

K is SNELL's kernel, inputs by outputs, and its softmax runs over the outputs. A layer's share of the budget follows the
importance of its points, magnitude times gradient, smoothed and weighed with how much it varies; the budget shrinks
along a cubic from all entries to what is wanted.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from kernels.check import as_int, as_number, check_choice
from workbench.models.fine_tuning.budget import allocate_budget, cubic_budget
from workbench.models.fine_tuning.kernel_merge import piecewise_linear_kernel
from workbench.models.fine_tuning.method import Applied, TuningMethod
from workbench.models.fine_tuning.snell import SNELLLinear
from workbench.models.sparse_inference.sparse_linear import replace_linear

__all__ = ["METRICS", "BiLevelAllocator", "ImportanceTracker", "SNELLALinear", "mix_kernel"]

METRICS = ("ipt", "mag", "w_mag")
FLATTEST = 1e-6  # of |gamma|


def mix_kernel(B, A, alphas, alpha, gamma, beta) -> torch.Tensor:
    """Return the piecewise linear kernel plus its softmax over the outputs and a constant.

    Parameters
    ----------
    B, A, alphas : as for `piecewise_linear_kernel`.
    alpha, gamma, beta : numbers or tensors: weight and temperature of the softmax, and the constant.

    Returns
    -------
    (m, n), outputs by inputs.

    Raises
    ------
    ValueError : points that do not fit, or a temperature nearer to 0 than one millionth.

    Source
    ------
    Shen et al. 2025, "SNELLA", Mix-K, and the released code.
    """
    temperature = float(gamma.detach() if isinstance(gamma, torch.Tensor) else gamma)
    if abs(temperature) < FLATTEST:
        raise ValueError(f"mix_kernel: gamma must not be nearer to 0 than {FLATTEST}, got {temperature:.1e}")
    K = piecewise_linear_kernel(B, A, alphas)
    return K + alpha * torch.softmax(K / gamma, dim=0) + beta


class SNELLALinear(SNELLLinear):
    """SNELL with the richer kernel, whose share of entries that go an allocator sets.

    Parameters
    ----------
    base, r, P, mode, how : of `SNELLLinear`.
    s_init : share of the entries that go at first.

    Source
    ------
    Shen et al. 2025, "SNELLA"; softmax weight, temperature and constant are learnt and begin at 1, 1 and 0.
    """

    def __init__(self, base: nn.Linear, r=32, s_init=0.0, P=2, mode="paper", **how):
        super().__init__(base, r=r, s=s_init, P=P, mode=mode, **how)
        numbers = {"alpha": 1.0, "gamma": 1.0, "beta": 0.0}
        for name, value in numbers.items():
            setattr(self, name, nn.Parameter(torch.tensor(value, dtype=base.weight.dtype)))

    @property
    def s(self) -> float:
        """The share of the entries that go; 1 where the budget gives this layer none."""
        return self._s

    @s.setter
    def s(self, share):
        self._s = as_number(share, function=type(self).__name__, name="s", low=0, high=1)

    def merged(self) -> torch.Tensor:
        """Return the update before the competition, (m, n)."""
        return mix_kernel(self.B, self.A, self.alphas, self.alpha, self.gamma, self.beta)

    def delta(self) -> torch.Tensor:
        """Return the update, (m, n); of a layer without entries it is 0 and gives no gradient."""
        return super().delta() if self.s < 1 else self.merged() * 0.0


class ImportanceTracker:
    """How much each layer's points matter, smoothed over steps.

    Parameters
    ----------
    beta1, beta2 : of the smoothed importance and of its smoothed variation, in (0, 1).
    metric : "ipt", magnitude times gradient; "mag", magnitude alone; "w_mag", the mean magnitude of the layer's update.

    Source
    ------
    Shen et al. 2025, "SNELLA", after Zhang et al. 2023 (AdaLoRA). *Differs from the released code:* the importance of
    one step is not kept, so two tensors are held for each set of points in place of three.
    """

    def __init__(self, beta1=0.85, beta2=0.85, metric="ipt"):
        name = "ImportanceTracker"
        for value, what in ((beta1, "beta1"), (beta2, "beta2")):
            if not 0 < as_number(value, function=name, name=what) < 1:
                raise ValueError(f"{name}: {what} must lie between 0 and 1, got {value}")
        check_choice(metric, METRICS, function=name, name="metric")
        self.beta1, self.beta2, self.metric = float(beta1), float(beta2), metric
        self._smooth: list[tuple[torch.Tensor, ...]] = []
        self._layers: list[SNELLALinear] = []

    @torch.no_grad()
    def update(self, layers: list[SNELLALinear]) -> None:
        """Take the state after a step of the optimiser, with the gradients of that step still there."""
        self._layers = list(layers)
        if self.metric == "w_mag":
            return
        points = [each for layer in layers for each in (layer.A, layer.B)]
        if not self._smooth:
            self._smooth = [(torch.zeros_like(x), torch.zeros_like(x)) for x in points]
        for x, (mean, spread) in zip(points, self._smooth, strict=True):
            now = x.abs()
            if self.metric == "ipt":
                now = torch.nan_to_num(now * (x.grad.abs() if x.grad is not None else 0.0))
            mean.mul_(self.beta1).add_(now, alpha=1 - self.beta1)
            spread.mul_(self.beta2).add_((now - mean).abs(), alpha=1 - self.beta2)

    @torch.no_grad()
    def scores(self) -> np.ndarray:
        """Return the score of each layer, float64 (L,)."""
        if self.metric == "w_mag":
            return np.array([float(layer.delta().abs().mean()) for layer in self._layers])
        means = [float((mean * spread).mean()) for mean, spread in self._smooth]
        return np.array(means).reshape(-1, 2).sum(1)

    def state_bytes(self) -> int:
        """Return the bytes of what is held from step to step."""
        return sum(each.nbytes for pair in self._smooth for each in pair)

    def state_dict(self) -> dict[str, Any]:
        """Return the smoothed tensors."""
        return {"smooth": [list(pair) for pair in self._smooth]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the smoothed tensors of `state_dict`."""
        self._smooth = [(pair[0], pair[1]) for pair in state["smooth"]]


class BiLevelAllocator:
    """Hands the budget of entries out among layers as training goes on.

    Parameters
    ----------
    layers : name -> layer.
    s_target, s_init : shares of all entries that go in the end and at first, in [0, 1).
    t_i, t_f, interval, total : the schedule in passes: how long the first and the last budget hold, how often it is
        shared out, and the end.
    beta1, beta2, metric : of `ImportanceTracker`.
    score_power : exponent of the scores; 1 as published. Smaller ones spread the budget.
    min_density : share of its entries that every layer keeps; 0 as published, where a layer that loses all its entries
        has no gradient any more and never comes back.
    uniform : whether all layers get the same share, for comparison.
    rounding : of `allocate_budget`.

    Source
    ------
    Shen et al. 2025, "SNELLA", and the released code. ``score_power``, ``min_density`` and ``uniform`` are ours.
    """

    def __init__(self, layers: Mapping[str, SNELLALinear], s_target, s_init=0.0, t_i=0, t_f=0, interval=1, total=100,
                 *, beta1=0.85, beta2=0.85, metric="ipt", score_power=1.0, min_density=0.0, uniform=False,
                 rounding="largest_remainder"):  # fmt: skip
        name = "BiLevelAllocator"
        for share, what in ((s_target, "s_target"), (s_init, "s_init"), (min_density, "min_density")):
            if not 0 <= as_number(share, function=name, name=what) < 1:
                raise ValueError(f"{name}: {what} must be at least 0 and below 1, got {share}")
        self.t_i, self.t_f = (as_int(x, function=name, name=what, low=0) for x, what in ((t_i, "t_i"), (t_f, "t_f")))
        self.interval = as_int(interval, function=name, name="interval", low=1)
        self.total = as_int(total, function=name, name="total", low=1)
        if self.total <= self.t_i + self.t_f:
            raise ValueError(f"{name}: t_i + t_f must be less than total={total}, got {t_i} + {t_f}")
        if min_density > 1 - s_target:
            raise ValueError(
                f"{name}: min_density must be at most {1 - s_target:g}, what all may keep, got {min_density}"
            )
        self.layers, self.uniform, self.rounding = dict(layers), bool(uniform), rounding
        self.caps = [layer.base.weight.numel() for layer in self.layers.values()]
        self.v_init, self.v_target = ((1 - s) * sum(self.caps) for s in (s_init, s_target))
        self.score_power = as_number(score_power, function=name, name="score_power", low=0)
        self.min_density, self.tracker = float(min_density), ImportanceTracker(beta1, beta2, metric)
        self.history: list[dict[str, Any]] = []

    def after_step(self) -> None:
        """Take the importance of a step; to be called after every step of the optimiser."""
        self.tracker.update(list(self.layers.values()))

    def due(self, t: int) -> bool:
        """Tell whether the budget is shared out anew at a time."""
        return t > self.t_i and (t % self.interval == 0 or t > self.total - self.t_f)

    def step(self, t: int) -> dict[str, float]:
        """Share the budget of a time out, set the layers' shares, and return them.

        Parameters
        ----------
        t : passes done, from 0 to ``total``; nothing changes where the time is not due.
        """
        if self.due(t):
            v = cubic_budget(t, self.total, self.v_init, self.v_target, self.t_i, self.t_f)
            scores = np.ones(len(self.caps)) if self.uniform else self.tracker.scores()
            if self.uniform:
                scores = np.array(self.caps, float)
            floors = np.array([math.floor(self.min_density * cap) for cap in self.caps])
            rest = [cap - floor for cap, floor in zip(self.caps, floors, strict=True)]
            given = floors + allocate_budget(scores**self.score_power, max(0, v - int(floors.sum())), rest,
                                             rounding=self.rounding)  # fmt: skip
            for layer, count, cap in zip(self.layers.values(), given, self.caps, strict=True):
                layer.s = 1 - count / cap
            total = scores.sum()
            told = {"t": t, "budget": v, "scores": (scores / total if total else scores).tolist()}
            self.history.append(told | {"entries": given.tolist()})
        return {name: layer.s for name, layer in self.layers.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        shares = [layer.s for layer in self.layers.values()]
        return {"tracker": self.tracker.state_dict(), "history": self.history, "shares": shares}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` returned."""
        self.tracker.load_state_dict(state["tracker"])
        self.history = list(state["history"])
        for layer, share in zip(self.layers.values(), state["shares"], strict=True):
            layer.s = share


def _apply(model, layers, *, s_target, s_init, passes, t_i, t_f, interval, metric, score_power, min_density, uniform,
           **knobs):  # fmt: skip
    made = {name: SNELLALinear(layer, s_init=s_init, **knobs) for name, layer in layers.items()}
    replace_linear(model, dict(made))
    allocator = BiLevelAllocator(made, s_target, s_init, t_i, t_f, interval, passes, metric=metric,
                                 score_power=score_power, min_density=min_density, uniform=uniform)  # fmt: skip

    def after_step(step, steps):
        allocator.after_step()
        before, now = ((step - 1) * passes // steps, step * passes // steps)
        if now > before:
            allocator.step(now)

    return Applied(layers=made, after_step=after_step, state={"allocator": allocator})


METHOD = TuningMethod(
    key="snella", title="SNELLA", apply=_apply,
    knobs={"r": 32, "s_target": 0.9, "s_init": 0.0, "passes": 20, "t_i": 0, "t_f": 0, "interval": 1, "P": 2,
           "mode": "paper", "metric": "ipt", "score_power": 1.0, "min_density": 0.0, "uniform": False, "dropout": 0.0,
           "drop_path": 0.0, "checkpoint": True},
    source="Shen et al. 2025, arXiv 2510.24037",
)  # fmt: skip
