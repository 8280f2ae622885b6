"""How far one layer sees, asked of the layers themselves: pixels that move one output, keys, and multiply-adds."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from workbench.models.attention.favit import FaSA, WindowAttention
from workbench.paper import row

MAPS = {"tiny": (28, 4), "small": (56, 8), "full": (56, 8)}  # side of the map, and stride: the first stage's at 224
SIDES = {"tiny": (28, 56), "small": (56, 112), "full": (56, 112, 224)}
DIM = 64


@dataclass(frozen=True)
class Layer:
    """A layer, or one group of it, as a function of (1, side * side, 64) tokens, and the keys that a query meets."""

    name: str
    attend: Callable[[torch.Tensor], torch.Tensor]
    keys: int


def reach(size, seed, report):
    """Count the pixels that move one output pixel, by gradients, and the multiply-adds of layers on growing maps."""
    side, stride = MAPS[size]
    rows = [row("pixels of the map", side * side, "pixels", "counted", attention="", side=side)]
    layers = layers_of(side, stride, seed)
    for number, layer in enumerate(layers):
        report(number / (len(layers) + 1), layer.name)
        labels = {"attention": layer.name, "side": side}
        moving = moving_pixels(layer.attend, side, seed)
        rows.append(row("pixels that move one output", moving, "pixels", "counted", **labels))
        rows.append(row("keys per query", layer.keys, "keys", "counted", **labels))
    report(len(layers) / (len(layers) + 1), "multiply-adds")
    for each in SIDES[size]:
        for quantity, found in (("of the products", products(each, stride)), ("of a layer", of_layer(each, stride))):
            for name, count in found.items():
                labels = {"attention": name, "side": each, "channels": DIM, "stride": stride}
                rows.append(row(f"multiply-adds {quantity}", count, "multiply-adds", "counted", **labels))
    return rows


def layers_of(side, stride, seed=1) -> list[Layer]:
    """Return windows, shifted windows, FaSA as released and each of its groups, and full attention; float64, untrained.

    A group's output is its channels before the projection that mixes the groups.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fasa, apart = FaSA(DIM, 1, stride).double().eval(), FaSA(DIM, 1, stride).double().eval()
        windows = {
            "windows": WindowAttention(DIM, 1),
            "windows, shifted": WindowAttention(DIM, 1, shift=True),
            "full attention": WindowAttention(DIM, 1, window=side),
        }
    apart.add_module("out", nn.Identity())
    keys = {name: weights.shape[-1] for name, weights in _maps(side, stride).items()}

    def group(place):
        return lambda x: apart(x, side, side).split(apart.split, -1)[place]

    found = [Layer(name, _on_map(layer.double().eval(), side), layer.window**2) for name, layer in windows.items()]
    found += [Layer(f"FaSA, {name}", group(place), count) for place, (name, count) in enumerate(keys.items())]
    return [*found, Layer("FaSA, all groups", _on_map(fasa, side), sum(keys.values()))]


def _on_map(layer, side):
    return lambda x: layer(x, side, side)


def _maps(side, stride) -> dict:
    """Attention weights of every group of a FaSA layer, without storage: their shapes are what is wanted."""
    layer = FaSA(DIM, 1, stride).to("meta")
    maps = layer(torch.empty(1, side * side, DIM, device="meta"), side, side, return_maps=True)[1]
    return {each.name: each.weights for each in maps}


def moving_pixels(attend, side, seed=1) -> int:
    """Count the input pixels with a gradient on one output pixel near the middle."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(1, side * side, DIM, generator=draw, dtype=torch.float64).requires_grad_()
    query = (side // 2) * side + side // 2 + 1
    (moves,) = torch.autograd.grad(attend(x)[0, query].square().sum(), x)
    return int((moves[0].abs().sum(-1) > 0).sum())


def products(side, stride) -> dict[str, int]:
    """Count the multiply-adds of queries with keys and of weights with values, from the shapes of the weights."""
    n, channels = side * side, FaSA(DIM, 1, stride).split
    groups = [2 * weights.numel() * c for weights, c in zip(_maps(side, stride).values(), channels, strict=True)]
    return {
        "FaSA, window groups": sum(groups[1:]),
        "FaSA, global": groups[0],
        "FaSA, all groups": sum(groups),
        "windows": 2 * n * 49 * DIM,
        "full attention": 2 * n * n * DIM,
    }


def of_layer(side, stride) -> dict[str, int]:
    """Count the multiply-adds of matrix products and convolutions as torch runs a layer: half of its operations."""
    layers = {
        "FaSA, all groups": lambda x: FaSA(DIM, 1, stride).to("meta")(x, side, side, return_maps=True),
        "windows": lambda x: WindowAttention(DIM, 1).to("meta")(x, side, side),
        "full attention": lambda x: WindowAttention(DIM, 1, window=side).to("meta")(x, side, side),
    }
    found = {}
    for name, run in layers.items():
        with FlopCounterMode(display=False) as counter:
            run(torch.empty(1, side * side, DIM, device="meta"))
        found[name] = counter.get_total_flops() // 2
    return found
