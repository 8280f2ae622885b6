"""PreCropping: a pruner says how much of every layer to keep; whole channels are cropped to it before any training.

Layer l with the groups of channels a and b (`channel_graph`) keeps, of its alpha_l weights, the share r_a r_b when the
groups keep the shares r_a and r_b of their channels. A pruner at initialisation wants the density p_l. So the factors
are found from the densities, rounded to channels, and scaled until the net fits the budget.
"""

import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from scipy.optimize import lsq_linear, minimize
from torch import Tensor, nn

from kernels.check import as_number, check_choice
from workbench.models.compression.channel_graph import ChannelGraph, Spec, channel_groups

__all__ = ["preconfig", "precrop", "synexp_density", "synexp_widths", "uniform_widths", "water_level"]

KINDS = ("params", "flops")
MODES = ("tied", "inner")
EVENNESS = 0.1  # see `precrop`
WIDEST = 20.0  # logarithm of the largest shift that is tried
HALVINGS = 80  # of an interval of shifts

Widths = dict[str, int]


def synexp_density(alphas: Sequence[float] | np.ndarray, budget: float) -> np.ndarray:
    """Return the densities that maximise the expected synaptic flow of a chain of layers.

    The expectation of SynFlow's objective over random weights and masks is proportional to the product of all p_l. Its
    maximum under sum alpha_l p_l <= budget and 0 < p_l <= 1 is p_l = min(1, level / alpha_l): every layer keeps the
    same number of weights, the water level, unless it has fewer.

    Parameters
    ----------
    alphas : positive numbers (layers,): weights of each layer, or its multiply-adds for a budget of those.
    budget : > 0, in the same unit; at or above the sum everything stays.

    Returns
    -------
    float64 (layers,), with sum alpha p = min(budget, sum alpha).

    Raises
    ------
    ValueError : no layer, a size or budget that is not positive and finite.

    Cost
    ----
    One sort.

    Source
    ------
    Cai et al. 2022, arXiv 2203.02549 version 2 (SynExp); the closed form is water-filling.
    """
    size = np.asarray(alphas, np.float64)
    budget = as_number(budget, function="synexp_density", name="budget", low=0)
    if size.ndim != 1 or not size.size or not np.all((size > 0) & np.isfinite(size)):
        raise ValueError(f"synexp_density: alphas must be positive and finite, one for each layer, got {alphas}")
    if budget == 0:
        raise ValueError("synexp_density: budget must be above 0, got 0")
    return np.minimum(1.0, water_level(size, budget) / size)


def water_level(size: np.ndarray, budget: float) -> float:
    """Return the level at which sum min(size, level) is the budget; the largest size if the budget is above the sum."""
    rising = np.sort(size)
    full = np.concatenate([[0.0], np.cumsum(rising)])  # what the layers below take
    for i, largest in enumerate(rising):
        level = (budget - full[i]) / (len(rising) - i)
        if level <= largest:
            return float(level)
    return float(rising[-1])


def precrop(
    model: nn.Module | Spec | ChannelGraph,
    densities: Mapping[str, float],
    budget: float | None = None,
    *,
    mode: str = "tied",
    budget_kind: str = "params",
    example: Tensor | None = None,
    evenness: float = EVENNESS,
) -> Widths:
    """Return how many channels every group keeps, so that layers have about these densities, within a budget.

    "tied" solves for the logarithms u <= 0 of all factors: the least squares of u_a + u_b - log p over the layers. This
    alone leaves some of the u undetermined or ill determined: on a chain of equal densities p, factors p, 1, p, 1
    fit as exactly as sqrt(p) everywhere. So ``evenness`` times the squares of (each u - its even part of log p) are
    added; the part is a half where both ends of the layer are free. Then all u are shifted alike, up to 0, to the
    largest shift at which the rounded channels, at least one a group, fit the budget. What is left of it pays for one
    channel more in groups that were rounded down, those first from which this took most.

    "inner" crops only channels inside residual blocks: the groups that are no residual stream. Those that share a layer
    get one factor, with which the layers that they touch have their densities' sum of weights; the shift is as above.

    Parameters
    ----------
    model : a spec, a graph, or a module with an ``example`` of its input, see `channel_groups`.
    densities : layer name -> share in [0, 1]. A layer that would keep nothing is taken to keep one weight, with a
        warning.
    budget : weights ("params") or multiply-adds for one example ("flops"); by default what the densities come to.
    mode : "tied" or "inner".
    budget_kind : "params" or "flops".
    evenness : > 0, how much even factors count beside the densities.

    Returns
    -------
    Group name -> channels, for every group that may be cropped.

    Raises
    ------
    KeyError : layers of the model without a density, or densities of layers that the model does not have.
    ValueError : a density outside [0, 1], or a budget that is infeasible: below one channel in every group that the
        mode may crop.

    Cost
    ----
    A dense least-squares problem with one unknown a group.

    Source
    ------
    Cai et al. 2022, arXiv 2203.02549. *Differs from the paper:* its solver could not be read; the objective, the even
    part and the rounding are ours.
    """
    return _solved("precrop", model, densities, budget, mode, budget_kind, example, evenness, cap=1.0)


def preconfig(
    model: nn.Module | Spec | ChannelGraph,
    densities: Mapping[str, float],
    budget: float | None = None,
    *,
    cap: float | None = None,
    budget_kind: str = "params",
    example: Tensor | None = None,
    evenness: float = EVENNESS,
) -> Widths:
    """Return widths as `precrop` in its mode "tied" does, but groups may become wider than they were.

    Parameters
    ----------
    cap : largest factor of a group, at least 1; None for no bound. With 1 the result is that of `precrop`.
    model, densities, budget, budget_kind, example, evenness : as for `precrop`.

    Returns
    -------
    Group name -> channels.

    Raises
    ------
    KeyError, ValueError : as `precrop`; a cap below 1.

    Source
    ------
    Cai et al. 2022, arXiv 2203.02549 (PreConfig).
    """
    if cap is not None:
        cap = as_number(cap, function="preconfig", name="cap", low=1)
    top = np.inf if cap is None else cap
    return _solved("preconfig", model, densities, budget, "tied", budget_kind, example, evenness, cap=top)


def synexp_widths(
    model: nn.Module | Spec | ChannelGraph,
    budget: float,
    *,
    budget_kind: str = "params",
    example: Tensor | None = None,
) -> Widths:
    """Return the widths of the largest expected synaptic flow within a budget, without scoring any weight.

    With u the logarithms of the groups' factors, maximises sum over layers of (u_a + u_b) subject to
    sum alpha_l exp(u_a + u_b) <= budget and u <= 0: a geometric programme, which is convex. The rounding to channels is
    that of `precrop`.

    Parameters
    ----------
    model, budget, budget_kind, example : as for `precrop`.

    Returns
    -------
    Group name -> channels.

    Raises
    ------
    ValueError : an infeasible budget.

    Source
    ------
    Cai et al. 2022, arXiv 2203.02549 version 2 (PreCrop-Params and PreCrop-FLOPs).
    """
    graph = channel_groups(model, example)
    check_choice(budget_kind, KINDS, function="synexp_widths", name="budget_kind")
    budget = _budget(graph, budget, budget_kind, graph.free, "synexp_widths")
    ends = _ends(graph)
    cost = np.array([layer.cost(graph.widths, budget_kind) for layer in graph.layers], np.float64)
    if budget >= cost.sum():
        return {name: graph.widths[name] for name in graph.free}
    fixed = cost[~ends.any(axis=1)].sum()
    share = max(budget - fixed, 1.0) / cost.sum()
    found = minimize(
        lambda u: -(ends @ u).sum(),
        np.full(ends.shape[1], np.log(share)),
        jac=lambda u: -ends.sum(axis=0),
        bounds=[(None, 0.0)] * ends.shape[1],
        constraints={
            "type": "ineq",
            "fun": lambda u: 1 - (cost * np.exp(ends @ u)).sum() / budget,
            "jac": lambda u: -(cost * np.exp(ends @ u)) @ ends / budget,
        },
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-10},
    )
    return _fitted(graph, graph.free, found.x, budget, budget_kind, 0.0)


def uniform_widths(
    model: nn.Module | Spec | ChannelGraph, budget: float, *, budget_kind: str = "params", example: Tensor | None = None
) -> Widths:
    """Return the largest widths within a budget of which every group keeps the same share: the plain thin net.

    Parameters
    ----------
    model, budget, budget_kind, example : as for `precrop`.

    Returns
    -------
    Group name -> channels.

    Raises
    ------
    ValueError : an infeasible budget.
    """
    graph = channel_groups(model, example)
    check_choice(budget_kind, KINDS, function="uniform_widths", name="budget_kind")
    budget = _budget(graph, budget, budget_kind, graph.free, "uniform_widths")
    return _fitted(graph, graph.free, np.zeros(len(graph.free)), budget, budget_kind, 0.0)


def _solved(function, model, densities, budget, mode, budget_kind, example, evenness, *, cap):
    graph = channel_groups(model, example)
    check_choice(mode, MODES, function=function, name="mode")
    check_choice(budget_kind, KINDS, function=function, name="budget_kind")
    evenness = as_number(evenness, function=function, name="evenness", low=1e-9)
    shares = _shares(graph, densities, function)
    cost = {layer.name: layer.cost(graph.widths, budget_kind) for layer in graph.layers}
    names = graph.free if mode == "tied" else _inside(graph)
    wanted = sum(cost[name] * share for name, share in shares.items()) if budget is None else budget
    if not names:
        raise ValueError(f"{function}: the model has no group of channels that the mode {mode!r} may crop")
    budget = _budget(graph, wanted, budget_kind, names, function)
    top = float(np.log(cap))
    u = _tied(graph, shares, evenness, top) if mode == "tied" else _inner(graph, shares, names)
    return _fitted(graph, names, u, budget, budget_kind, top)


def _shares(graph, densities, function):
    known, given = [layer.name for layer in graph.layers], dict(densities)
    for what, names in (
        ("the graph has no layer", [name for name in given if name not in known]),
        ("densities lacks", [name for name in known if name not in given]),
    ):
        if names:
            raise KeyError(f"{function}: {what} {', '.join(names)}; give the density of each of {', '.join(known)}")
    sizes, shares, empty = graph.sizes(), {}, []
    for name in known:
        share = as_number(given[name], function=function, name=f"the density of {name}", low=0, high=1)
        if share * sizes[name] < 1:
            empty += [name] if share == 0 else []
            share = 1 / sizes[name]
        shares[name] = share
    if empty:
        warnings.warn(f"{function}: {', '.join(empty)} would keep no weight; one channel stays", stacklevel=4)
    return shares


def _budget(graph, budget, kind, names, function):
    budget = as_number(budget, function=function, name="budget", low=0)
    least = graph.count(graph.widths | dict.fromkeys(names, 1), kind)
    if budget < least:
        unit = "weights" if kind == "params" else "multiply-adds"
        raise ValueError(
            f"{function}: a budget of {budget:,.0f} {unit} is infeasible; one channel in each of the {len(names)} "
            f"groups that may be cropped takes {least:,}"
        )
    return budget


def _ends(graph):
    """Return how often each free group is an end of each layer: float64 (layers, free groups)."""
    place = {name: i for i, name in enumerate(graph.free)}
    found = np.zeros((len(graph.layers), len(place)))
    for row, layer in zip(found, graph.layers, strict=True):
        for end in layer.ends():
            if end in place:
                row[place[end]] += 1
    return found


def _tied(graph, shares, evenness, top):
    ends = _ends(graph)
    wanted = np.log([shares[layer.name] for layer in graph.layers])
    places = np.argwhere(ends)
    even = np.zeros((len(places), ends.shape[1]))
    even[np.arange(len(places)), places[:, 1]] = np.sqrt(evenness)
    parts = np.sqrt(evenness) * wanted[places[:, 0]] / ends.sum(axis=1)[places[:, 0]]
    a, b = np.vstack([ends, even]), np.concatenate([wanted, parts])
    return lsq_linear(a, b, bounds=(-np.inf, top), method="bvls").x


def _inside(graph):
    """Return the groups that are neither fixed nor a residual stream."""
    return tuple(group.name for group in graph.groups if not group.fixed and not group.added)


def _inner(graph, shares, names):
    """Return one log-factor for each set of groups that share layers."""
    sets = {name: {name} for name in names}
    for layer in graph.layers:
        ends = [end for end in layer.ends() if end in sets]
        for first, second in pairwise(ends):
            joined = sets[first] | sets[second]
            sets |= dict.fromkeys(joined, joined)
    sizes, found = graph.sizes(), {}
    for joined in {id(each): each for each in sets.values()}.values():
        touched = [(sum(end in joined for end in layer.ends()), layer.name) for layer in graph.layers]
        touched = [(count, name) for count, name in touched if count]
        wanted = sum(shares[name] * sizes[name] for _, name in touched)
        low, high = -WIDEST, 0.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            size = sum(sizes[name] * np.exp(count * middle) for count, name in touched)
            low, high = (middle, high) if size <= wanted else (low, middle)
        found |= dict.fromkeys(joined, low if wanted < sum(sizes[name] for _, name in touched) else 0.0)
    return np.array([found[name] for name in names])


def _fitted(graph, names, u, budget, kind, top):
    """Return the channels at the largest common shift of all log-factors that fits the budget, then filled up."""

    def wished(shift):
        factors = np.exp(np.minimum(np.asarray(u) + shift, top))
        return {name: graph.widths[name] * float(f) for name, f in zip(names, factors, strict=True)}

    def widths(shift):
        return {name: max(1, round(wish)) for name, wish in wished(shift).items()}

    def count(found):
        return graph.count(graph.widths | found, kind)

    def fits(shift):
        return count(widths(shift)) <= budget

    low, high = -WIDEST - float(max(np.max(u), 0.0)), WIDEST
    if fits(high):
        return widths(high)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    found, wish = widths(low), wished(low)
    for name in sorted(names, key=lambda name: found[name] / wish[name]):  # those first that lost most by rounding
        more = found | {name: found[name] + 1}
        if found[name] < wish[name] and more[name] <= graph.widths[name] * np.exp(top) and count(more) <= budget:
            found = more
    return found
