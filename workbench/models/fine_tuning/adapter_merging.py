"""Low-rank updates of several tasks put together, how near they are to each other, and what their tuning holds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from kernels.check import as_int, as_number, check_choice
from workbench.models.fine_tuning.flylora import FlyLoRALinear

__all__ = [
    "AdapterMemory",
    "RoutedMixture",
    "gradient_covariance",
    "memory_report",
    "merge_adapters",
    "orthogonality_bound",
    "pairwise_cosine",
]

Deltas = Mapping[str, torch.Tensor]
METHODS = ("lora", "split_lora", "flylora", "lora_fa")


def merge_adapters(adapters: Sequence[Deltas], weights: Sequence[float] | None = None) -> dict[str, torch.Tensor]:
    """Return the weighted sum of the updates of several tasks, layer by layer.

    Parameters
    ----------
    adapters : one mapping per task, name of a layer -> its change of the weight (m, n), all of the same names and
        shapes.
    weights : one finite number per task; equal shares unless given.

    Raises
    ------
    ValueError : no adapters, layers or shapes that differ, or weights that do not fit.

    Notes
    -----
    The products B A are summed. Factors averaged apart give something else unless all tasks share their A.

    Source
    ------
    Zou et al. 2025, "FlyLoRA", the section on merging.
    """
    given = _checked(adapters, "merge_adapters")
    shares = _weights(weights, len(given), "merge_adapters")
    with torch.no_grad():
        return {
            name: torch.stack([w * each[name] for w, each in zip(shares, given, strict=True)]).sum(0)
            for name in given[0]
        }


def pairwise_cosine(deltas: Sequence[Deltas]) -> torch.Tensor:
    """Return the mean over layers of the cosine between the updates of every two tasks, float64 (t, t).

    Parameters
    ----------
    deltas : as for `merge_adapters`. An update that is all zero has the cosine 0 with every one, itself included.

    Raises
    ------
    ValueError : as for `merge_adapters`.
    """
    given = _checked(deltas, "pairwise_cosine")
    total = torch.zeros(len(given), len(given), dtype=torch.float64)
    with torch.no_grad():
        for name in given[0]:
            rows = F.normalize(torch.stack([each[name].reshape(-1).double() for each in given]), dim=1)
            total += rows @ rows.T
    return total / len(given[0])


def orthogonality_bound(n: int, r: int, p: int, eps: float) -> float:
    r"""Return the bound on the chance that two independent projections overlap by eps r or more.

    .. math:: P(\|A_i A_j^T\|_2 \ge \varepsilon r) \le \min\Big(1, \frac{p^2}{n r^2 \varepsilon^2}\Big)

    Parameters
    ----------
    n, r, p : columns and rows of both, and entries of a row, of variance 1 / r^2.
    eps : above 0.

    Raises
    ------
    ValueError : out of range, such as p above n.

    Source
    ------
    Zou et al. 2025, "FlyLoRA", by Chebyshev and a union bound. It is loose: what is seen lies far below.
    """
    name = "orthogonality_bound"
    n, r = (as_int(value, function=name, name=what, low=1) for value, what in ((n, "n"), (r, "r")))
    p, eps = as_int(p, function=name, name="p", low=1, high=n), as_number(eps, function=name, name="eps", above=0)
    return min(1.0, p**2 / (n * r**2 * eps**2))


class RoutedMixture(nn.Module):
    """A base and several tasks' FlyLoRA layers beside it, whose outputs are summed with weights: routing is kept.

    Parameters
    ----------
    layers : FlyLoRALinear of one base.
    weights : as for `merge_adapters`.
    """

    def __init__(self, layers: Sequence[FlyLoRALinear], weights: Sequence[float] | None = None):
        super().__init__()
        name = "RoutedMixture"
        if not layers or not all(isinstance(each, FlyLoRALinear) for each in layers):
            raise ValueError(f"{name}: layers must be one or more FlyLoRALinear, got {len(layers)} entries")
        first = layers[0].base
        if any(each.base.weight.shape != first.weight.shape or not torch.equal(each.base.weight, first.weight)
               for each in layers):  # fmt: skip
            raise ValueError(f"{name}: layers must have the same base; adapt one model once for each task")
        self.layers: Any = nn.ModuleList(layers)
        self.weights = _weights(weights, len(layers), name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., n) to (..., m)."""
        plain = self.layers[0].base(x)
        return plain + sum(w * (each(x) - plain) for w, each in zip(self.weights, self.layers, strict=True))


@torch.no_grad()
def gradient_covariance(layer: FlyLoRALinear, loader: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    r"""Return how the gradients of the columns of B vary together over tokens.

    .. math:: C_{ij} = \operatorname{E}\langle G_i, G_j\rangle
              - \langle\operatorname{E} G_i, \operatorname{E} G_j\rangle, \qquad G_i = \tfrac{\alpha}{r}\, y'_i\, g

    Parameters
    ----------
    layer : whose routing is used as it is.
    loader : pairs of inputs (..., n) and gradients of the loss by the layer's outputs (..., m).

    Returns
    -------
    float64 (r, r). With ranks chosen at random, entries beside the diagonal shrink by about k (k - 1) / (r (r - 1))
    against k = r.

    Raises
    ------
    ValueError : no tokens, or shapes that do not fit.

    Source
    ------
    Zou et al. 2025, "FlyLoRA", the theory of decoupling.
    """
    m, tokens = len(layer.B), 0
    second = torch.zeros(layer.r, layer.r, dtype=torch.float64)
    first = torch.zeros(m, layer.r, dtype=torch.float64)
    for x, g in loader:
        if g.shape != (*x.shape[:-1], m):
            raise ValueError(
                f"gradient_covariance: gradients must be {(*x.shape[:-1], m)} for inputs {tuple(x.shape)}, got "
                f"{tuple(g.shape)}"
            )
        values, index = layer.route(x)
        g = g.reshape(-1, m).double()
        chosen = torch.zeros(len(values), layer.r, dtype=torch.float64).scatter_(
            1, index, layer.scale * values.double()
        )
        second += chosen.T @ (g.square().sum(1, keepdim=True) * chosen)
        first += g.T @ chosen
        tokens += len(values)
    if not tokens:
        raise ValueError("gradient_covariance: loader must give at least one token, got none")
    mean = first / tokens
    return second / tokens - mean.T @ mean


@dataclass(frozen=True, kw_only=True)
class AdapterMemory:
    """Bytes of one tuned layer in mixed precision of 16 bits.

    Parameters
    ----------
    parameters : how many numbers are trained (or, of those, used by a token).
    weights, gradients, optimizer, activations : bytes; the optimiser holds a copy and two moments in 32 bits.
    """

    parameters: int
    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All bytes together."""
        return self.weights + self.gradients + self.optimizer + self.activations


def memory_report(method: str, *, m: int, n: int, tokens: int, r: int, k: int | None = None, experts: int = 1,
                  view: str = "allocated", sparse_A: bool = False) -> AdapterMemory:  # fmt: skip
    """Return what tuning one layer holds, by formula.

    Parameters
    ----------
    method : "lora", "split_lora", "flylora" or "lora_fa".
    m, n, tokens : size of the weight (m, n), and tokens of a batch.
    r, k : all ranks together, and those that a token uses; r unless given.
    experts : of Split-LoRA, each with a row of the router.
    view : "activated" counts the parameters that one token uses, as the paper's table; "allocated" counts what an
        optimiser holds, and the places of the chosen ranks, of 1 byte up to 256 ranks and 4 beyond.
    sparse_A : whether FlyLoRA's A is counted as values and column indices (of 2 bytes up to 65,536 columns, else 4).

    Raises
    ------
    TypeError, ValueError : out of range, such as k above r.

    Source
    ------
    Zou et al. 2025, "FlyLoRA", the table of memory in the appendix, for m = n there.
    """
    name = "memory_report"
    check_choice(method, METHODS, function=name, name="method")
    check_choice(view, ("activated", "allocated"), function=name, name="view")
    m, n, tokens, r, experts = (
        as_int(value, function=name, name=what, low=1)
        for value, what in ((m, "m"), (n, "n"), (tokens, "tokens"), (r, "r"), (experts, "experts"))
    )
    k = r if k is None else as_int(k, function=name, name="k", low=1, high=r)
    if method in ("lora", "lora_fa"):
        k = r
    allocated, router = view == "allocated", n * experts if method == "split_lora" else 0
    used = r if allocated else k
    trained = used * (m if method in ("flylora", "lora_fa") else m + n) + router
    first = 2 * r * n
    if method == "flylora" and sparse_A:
        first = r * (n * k // r) * (2 + (2 if n <= 1 << 16 else 4))
    kept = {"lora": n + r, "split_lora": n + k + experts, "flylora": k, "lora_fa": r}[method]
    places = tokens * k * (1 if r <= 256 else 4) if method == "flylora" and allocated else 0
    return AdapterMemory(
        parameters=trained,
        weights=2 * (m * n + m * r + router) + first,
        gradients=2 * trained,
        optimizer=12 * trained,
        activations=2 * tokens * kept + places,
    )


def _checked(adapters, function) -> list[Deltas]:
    given = list(adapters)
    if not given or not given[0]:
        raise ValueError(f"{function}: at least one adapter with a layer is wanted, got none")
    shapes = {name: tuple(delta.shape) for name, delta in given[0].items()}
    for place, each in enumerate(given):
        found = {name: tuple(delta.shape) for name, delta in each.items()}
        if found != shapes:
            differ = sorted(set(shapes) ^ set(found)) or [name for name in shapes if shapes[name] != found[name]]
            raise ValueError(f"{function}: adapter {place} does not fit the first one: {differ[0]} differs")
    return given


def _weights(weights, count, function) -> list[float]:
    if weights is None:
        return [1 / count] * count
    found = [as_number(w, function=function, name="weights") for w in weights]
    if len(found) != count:
        raise ValueError(f"{function}: weights must be one for each of {count} adapters, got {len(found)}")
    return found
