"""From a method, a level and a model to a point: prune every layer, judge the model, count and time what is left."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn

from widgets.figures.pruning import Axis, LayerLoss, TradeoffPoint
from workbench.explorers.pruning.method import VALUE_BITS, Compressed, Knowledge, PruningMethod, method
from workbench.explorers.pruning.source import PruningSource, source
from workbench.machines.stopwatch import Timing, measure
from workbench.models.sparse_inference.recovery import recover
from workbench.models.sparse_inference.statistics import (
    InputStatistics,
    gather_gradients,
    gather_statistics,
    linear_layers,
    relative_output_error,
)

__all__ = [
    "COSTS",
    "DENSE",
    "OUTPUT_ERROR",
    "TOKENS",
    "compress_layers",
    "dense_point",
    "evaluation_grams",
    "judged_point",
    "kept_weights",
    "loss_of",
    "prune",
    "recovered_point",
    "statistics_of",
    "times",
    "with_weights",
]

TOKENS = (1, 32, 512)
COSTS = (
    Axis(key="stored", label="bytes, stored", unit="bytes", better="lower", kind="counted"),
    Axis(key="read", label="bytes, read by the kernels", unit="bytes", better="lower", kind="counted"),
    Axis(key="multiply_adds", label="multiply-adds for each token", unit="multiply-adds", better="lower",
         kind="counted"),
    *(
        Axis(key=f"time_{t}", label=f"time, {t} token{'s' * (t > 1)}", unit="ms", better="lower", kind="measured")
        for t in TOKENS
    ),
)  # fmt: skip
OUTPUT_ERROR = Axis(
    key="output_error", label="mean relative error of the layers' outputs", unit="relative", better="lower",
    kind="measured",
)  # fmt: skip
DENSE = "dense"
GRADIENT_BATCHES = 4
Tell = Callable[[float, str], None]


def prune(
    model: nn.Module,
    key: str,
    level: str,
    *,
    statistics: Mapping[str, InputStatistics] | None = None,
    gradients: Mapping[str, np.ndarray] | None = None,
    layers: Iterable[str] | None = None,
) -> dict[str, Compressed]:
    """Prune the linear layers of a reader's own model in place.

    Parameters
    ----------
    model : any module with torch.nn.Linear layers.
    key, level : a method of the explorer and how far it prunes, such as "wanda" and "0.5", or "nm_magnitude" and "2:4".
    statistics : what `gather_statistics` returned, for methods that need the inputs.
    gradients : what `gather_gradients` returned, for methods that need them.
    layers : names; None for those that `linear_layers` chooses.

    Returns
    -------
    layer name -> Compressed, with the kept weights, the bits and the multiply-adds.

    Raises
    ------
    KeyError : no such method or layer. ValueError : a level that the method refuses, data that it needs is missing, or
        a method that prunes while the model trains.

    Examples
    --------
    ``prune(model, "wanda", "0.5", statistics=gather_statistics(model, batches))``
    """
    chosen, found = _without_training(method(key), "prune"), linear_layers(model, layers)
    given = {"weights": found, "gram": statistics or {}, "gradient": gradients or {}}[chosen.needs]
    missing = [name for name in found if name not in given]
    if missing:
        what = {"gram": "statistics=gather_statistics(model, batches)",
                "gradient": "gradients=gather_gradients(model, batches, loss)"}[chosen.needs]  # fmt: skip
        raise ValueError(f"prune: {key} needs the {chosen.needs} of layer {missing[0]!r}; pass {what}")
    known = {name: _knowledge_of(name, statistics or {}, gradients or {}) for name in found}
    made = {name: chosen.compress(_array(layer.weight), known[name], level) for name, layer in found.items()}
    _set_weights(found, made)
    return made


def compress_layers(
    of: PruningSource, by: PruningMethod, level: str, tell: Tell = lambda f, s: None
) -> dict[str, Compressed]:
    """Return what a method makes of every layer of a source's model; the model stays as it is."""
    statistics, gradients = _gathered(of, _without_training(by, "compress_layers"), tell)
    layers = linear_layers(of.load())
    made = {}
    for i, (name, layer) in enumerate(layers.items()):
        tell(i / len(layers), f"prune {name}")
        made[name] = by.compress(_array(layer.weight), _knowledge_of(name, statistics, gradients), level)
    return made


def kept_weights(of: str, by: str, level: str, layer: str) -> np.ndarray:
    """Return the weights of one layer after pruning, zero where they went: float32 (m, n)."""
    chosen, found = source(of), _without_training(method(by), "kept_weights")
    statistics, gradients = _gathered(chosen, found, lambda f, s: None)
    weight = linear_layers(chosen.load(), [layer])[layer].weight
    return found.compress(_array(weight), _knowledge_of(layer, statistics, gradients), level).weight


def loss_of(of: PruningSource, name: str, made: Compressed) -> LayerLoss:
    """Return what the compression of one layer costs, its outputs compared on the source's evaluation data."""
    weight = _array(linear_layers(of.load(), [name])[name].weight)
    return _loss(name, weight, made.weight, made.kept, evaluation_grams(of).get(name))


def with_weights(of: PruningSource, made: Mapping[str, Compressed]) -> nn.Module:
    """Return a copy of the source's model with the compressed weights."""
    model = copy.deepcopy(of.load())
    _set_weights(linear_layers(model), made)
    return model


def dense_point(of: PruningSource) -> TradeoffPoint:
    """Return the model before pruning; its cost in time comes from a record."""
    shapes = [tuple(layer.weight.shape) for layer in linear_layers(of.load()).values()]
    weights = sum(m * n for m, n in shapes)
    return TradeoffPoint(
        key=DENSE,
        method="before pruning",
        level="all weights",
        quality=_dense_quality(of),
        cost={"stored": weights * VALUE_BITS / 8, "read": weights * 4.0, "multiply_adds": float(weights)},
        parts={"values": weights * VALUE_BITS / 8},
    )


def judged_point(
    of: PruningSource, by: PruningMethod, level: str, tell: Tell = lambda f, s: None, *, added: bool = False
) -> TradeoffPoint:
    """Prune a copy of the source's model right away and judge it.

    Parameters
    ----------
    of, by, level : model, method and how far.
    tell : ``tell(fraction, step)``, called as the work goes on; it may raise to stop it.
    added : whether a reader asked for it on a page.
    """
    made = compress_layers(of, by, level, lambda f, step: tell(0.6 * f, step))
    return _point(of, by, level, made, with_weights(of, made), tell, added=added)


def recovered_point(
    of: PruningSource,
    by: PruningMethod,
    level: str,
    tell: Tell = lambda f, s: None,
    *,
    steps: int,
    rate: float,
    seed: int = 0,
) -> TradeoffPoint:
    """Prune a copy of the source's model, train it for a short while with its masks fixed, and judge it.

    A method that prunes while the model trains is given as many steps on the same data, pruning included. The point
    costs what it costs without training; it is judged on text that it was neither calibrated nor trained on.

    Parameters
    ----------
    of, by, level, tell : as in `judged_point`.
    steps, rate : training steps and the highest learning rate of `recover`.
    seed : draws the training data.
    """
    dense, batches = of.load(), of.training(steps, seed)
    how = {"steps": steps, "rate": rate, "loss": of.distil, "seed": seed}
    how["report"] = lambda fraction, step: tell(0.1 + 0.5 * fraction, step)
    if by.trained:
        model = by.trained(dense, batches, level, **how)
        made = {name: by.compress(_array(layer.weight), Knowledge(), level)
                for name, layer in linear_layers(model).items()}  # fmt: skip
    else:
        made = compress_layers(of, by, level, lambda fraction, step: tell(0.1 * fraction, step))
        model = recover(with_weights(of, made), dense, batches, **how)
    return _point(of, by, level, made, model, tell, stage="recovered")


def _point(of, by, level, made, model, tell, **about) -> TradeoffPoint:
    """Judge a pruned model; what it stores and multiplies is that of the matrices made, whatever their values now."""
    tell(0.6, "judge the pruned model")
    quality = of.judge(model)
    tell(0.9, "count")
    before, now = linear_layers(of.load()), linear_layers(model)
    losses = tuple(
        _loss(name, _array(before[name].weight), _array(now[name].weight), each.kept, evaluation_grams(of).get(name))
        for name, each in made.items()
    )
    packs = [each.pack for each in made.values() if each.pack]
    read = {"read": float(sum(pack()[1] for pack in packs))} if len(packs) == len(made) else {}
    return TradeoffPoint(
        key=f"{by.key}@{level}",
        method=by.title,
        level=level,
        quality=quality | {"output_error": float(np.mean([each.output_error for each in losses]))},
        cost={
            "stored": sum(sum(each.bits.values()) for each in made.values()) / 8,
            "multiply_adds": float(sum(each.multiply_adds for each in made.values())),
        }
        | read,
        parts=_bytes_by_kind(made.values()),
        layers=losses,
        **about,
    )


def times(
    of: PruningSource, chosen: Sequence[tuple[PruningMethod, str]], tokens: Sequence[int] = TOKENS, *, rounds: int = 7
) -> dict[int, dict[tuple[str, str], Timing]]:
    """Time the products of all pruned layers with activations of so many tokens, the dense ones beside them.

    Every product is compared with that of the method's weights first.

    Returns
    -------
    tokens -> (method key, level) -> Timing of one pass through all layers; (`DENSE`, "") is the dense product of torch.

    Raises
    ------
    ValueError : a kernel's product differs from that of its weights by more than 1e-4 of the largest element, or no
        kernel multiplies with what a method stores.
    """
    dense = {name: layer.weight.detach() for name, layer in linear_layers(of.load()).items()}
    packed = {(by.key, level): _packed(by, compress_layers(of, by, level)) for by, level in chosen}
    return {count: _timed(dense, packed, count, rounds) for count in tokens}


def _packed(by, made):
    if not all(each.pack for each in made.values()):
        raise ValueError(f"times: no kernel multiplies with what {by.key} stores, so it has no time; leave it out")
    return [(each.pack()[0], each.weight) for each in made.values()]


def _timed(dense, packed, tokens, rounds):
    rng = np.random.default_rng(0)
    inputs = {width: rng.standard_normal((width, tokens)).astype(np.float32)
              for width in {weight.shape[1] for weight in dense.values()}}  # fmt: skip
    given = {width: torch.from_numpy(x) for width, x in inputs.items()}
    multiplied = [(partial(torch.matmul, weight), given[weight.shape[1]]) for weight in dense.values()]
    runs: dict[tuple[str, str], Callable[[], Any]] = {(DENSE, ""): partial(_one_pass, multiplied)}
    for (key, level), layers in packed.items():
        for product, weight in layers:
            x = inputs[weight.shape[1]]
            want = weight @ x
            worst = np.abs(product(x) - want).max() / max(np.abs(want).max(), 1e-30)
            if not worst <= 1e-4:
                raise ValueError(f"times: the kernel of {key} at {level} is off by {worst:.1e} of its weights")
        runs[key, level] = partial(_one_pass, [(product, inputs[weight.shape[1]]) for product, weight in layers])
    return measure(runs, rounds=rounds)


def _one_pass(products):
    """Multiply one layer after the other; no result is kept, since fresh memory for each would be timed as well."""
    for product, x in products:
        product(x)


# What is known of a model -------------------------------------------------------------------------------------------
def _gathered(of, by, tell):
    """Return the statistics and gradients that a method needs, each gathered once for a model."""
    if by.needs == "gram":
        tell(0.0, "run the model on calibration text")
        return statistics_of(of), {}
    if by.needs == "gradient":
        tell(0.0, "gradients of the model's loss")
        return {}, _gradients(of)
    return {}, {}


@lru_cache(maxsize=2)
def statistics_of(of: PruningSource) -> dict[str, InputStatistics]:
    """Return the inputs of every layer of a source's model on its calibration data, gathered once."""
    return gather_statistics(of.load(), of.calibration())


@lru_cache(maxsize=2)
def _gradients(of: PruningSource):
    return gather_gradients(of.load(), of.calibration()[:GRADIENT_BATCHES], of.loss)


@lru_cache(maxsize=2)
def evaluation_grams(of: PruningSource) -> dict[str, np.ndarray]:
    """Return X^T X of every layer's inputs on text that nothing was calibrated on: name -> float64 (n, n)."""
    return {name: found.gram for name, found in gather_statistics(of.load(), of.evaluation()).items()}


@cache
def _dense_quality(of: PruningSource):
    return of.judge(of.load()) | {"output_error": 0.0}


def _knowledge_of(name, statistics, gradients) -> Knowledge:
    known = statistics.get(name)
    return Knowledge(
        gram=known.gram if known else None, tokens=known.tokens if known else 0, gradient=gradients.get(name)
    )


def _without_training(by: PruningMethod, function) -> PruningMethod:
    if by.trained:
        raise ValueError(
            f"{function}: {by.key} chooses what stays while the model trains, so nothing is known before; take "
            "prune_while_distilling for a model of your own, and the records for trained points"
        )
    return by


# Parts --------------------------------------------------------------------------------------------------------------
def _array(weight) -> np.ndarray:
    return weight.detach().numpy()


@torch.no_grad()
def _set_weights(layers, made):
    for name, each in made.items():
        layers[name].weight.copy_(torch.from_numpy(np.ascontiguousarray(each.weight)))


def _loss(name, weight, now, kept, gram) -> LayerLoss:
    size = np.linalg.norm(weight)
    return LayerLoss(
        name=name,
        density=float((now != 0 if kept is None else kept).mean()),
        weight_error=float(np.linalg.norm(weight - now) / size) if size else 0.0,
        output_error=relative_output_error(weight, now, gram) if gram is not None else float("nan"),
    )


def _bytes_by_kind(made):
    found: dict[str, float] = {}
    for each in made:
        for kind, bits in each.bits.items():
            found[kind] = found.get(kind, 0.0) + bits / 8
    return found
