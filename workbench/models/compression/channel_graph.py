"""Which layers of a convolutional net share their channels, found by tracing it with ``torch.fx``.

A *group* is a set of channels that go together: the output of a layer, whatever reads it, and everything that is added
to it. Cropping a group crops all of these at once, so that shapes still fit.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from workbench.models.compression.crop_networks import MobileSpec, ResNetSpec

__all__ = ["ChannelGraph", "ChannelGroup", "GraphLayer", "channel_groups", "prunable_layers"]

Spec = ResNetSpec | MobileSpec
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
PASSING = (
    nn.Identity, nn.Dropout, nn.Dropout2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU,
    nn.Mish, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh,
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample, nn.ZeroPad2d,
)  # fmt: skip
JOINING = {"add", "iadd", "sub", "isub", "mul", "imul", "add_", "mul_", "sub_", "maximum", "minimum"}
KEEPING = {
    "relu", "relu_", "relu6", "leaky_relu", "elu", "gelu", "silu", "mish", "sigmoid", "tanh", "hardswish",
    "hardsigmoid", "hardtanh", "softplus", "dropout", "dropout2d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d",
    "adaptive_max_pool2d", "interpolate", "neg", "abs", "clamp", "contiguous", "clone", "truediv", "div",
    "boolean_dispatch", "softmax", "log_softmax",
}  # fmt: skip
FLATTENING = {"flatten", "reshape", "view"}
CURE = "crop a part of the model that can be followed, or write its forward with layers, activations, pooling and sums"


@dataclass(frozen=True, kw_only=True)
class ChannelGroup:
    """Channels that are cropped together.

    Parameters
    ----------
    name : the first layer that writes them; "input" for those of the model's input.
    channels : how many there are before cropping.
    fixed : the model's input or output, which keep their size.
    added : whether they are a residual stream, that is, several layers' outputs are added (or multiplied) to them.
    """

    name: str
    channels: int
    fixed: bool
    added: bool


@dataclass(frozen=True, kw_only=True)
class GraphLayer:
    """One layer with weights, between the group that it reads and the one that it writes.

    Parameters
    ----------
    name : in the model.
    source : name of the group that is read; None for a depthwise convolution, whose weights grow with one group only.
    target : name of the group that is written.
    area : weights for each pair of channels: kernel rows times columns, and for a linear layer the pixels of a channel.
    pixels : outputs of one channel for one example.
    kind : "convolution", "depthwise" or "linear".
    """

    name: str
    source: str | None
    target: str
    area: int
    pixels: int
    kind: str

    def ends(self) -> tuple[str, ...]:
        """Return the groups whose sizes are multiplied in its count of weights."""
        return (self.target,) if self.source is None else (self.source, self.target)

    def weights(self, widths: Mapping[str, int]) -> int:
        """Return the weights that it has at these widths of groups."""
        return self.area * prod(widths[end] for end in self.ends())

    def cost(self, widths: Mapping[str, int], kind: str) -> int:
        """Return its weights ("params"), or its multiply-adds for one example ("flops")."""
        return self.weights(widths) * (self.pixels if kind == "flops" else 1)


@dataclass(frozen=True, kw_only=True)
class ChannelGraph:
    """The groups of a model, and its layers between them.

    Parameters
    ----------
    groups, layers : in the order in which the model computes them.
    norms : name of a BatchNorm layer -> (its group, entries for each channel).
    """

    groups: tuple[ChannelGroup, ...]
    layers: tuple[GraphLayer, ...]
    norms: Mapping[str, tuple[str, int]]

    @cached_property
    def widths(self) -> dict[str, int]:
        """The channels of every group before cropping."""
        return {group.name: group.channels for group in self.groups}

    @cached_property
    def free(self) -> tuple[str, ...]:
        """The groups that may be cropped."""
        return tuple(group.name for group in self.groups if not group.fixed)

    def sizes(self) -> dict[str, int]:
        """Return the weights of every layer before cropping."""
        return {layer.name: layer.weights(self.widths) for layer in self.layers}

    def count(self, widths: Mapping[str, int], kind: str = "params") -> int:
        """Return all weights ("params"), or multiply-adds for one example ("flops"), at these widths of groups."""
        return sum(layer.cost(widths, kind) for layer in self.layers)


def prunable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers whose weights pruning counts, by name: convolutions and linear layers."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))}


def channel_groups(model: nn.Module | Spec | ChannelGraph, example: Tensor | None = None) -> ChannelGraph:
    """Trace which layers share channels.

    Parameters
    ----------
    model : a `ResNetSpec` or `MobileSpec`, or any module of Conv2d, Linear and BatchNorm layers with activations,
        pooling, flattening and residual sums. Convolutions in groups must be depthwise with as many outputs as inputs.
    example : for a module, an input (n, channels, rows, columns) such as it takes.

    Returns
    -------
    ChannelGraph. Inputs of the model, and what it returns, are fixed groups.

    Raises
    ------
    TypeError : no example for a module; the module has control flow that cannot be traced, or a step through which
        channels cannot be followed. The message names it.
    KeyError : layers with weights that the trace did not meet; they are listed.
    """
    if isinstance(model, ChannelGraph):
        return model
    if isinstance(model, (ResNetSpec, MobileSpec)):
        return _of_spec(model)
    if not isinstance(model, nn.Module):
        raise TypeError(f"channel_groups: model must be a module or a spec, got {type(model).__name__}")
    if example is None:
        raise TypeError("channel_groups: a module needs an example of its input; pass example=x")
    copied = copy.deepcopy(model).eval()
    try:
        traced = fx.symbolic_trace(copied)
    except Exception as error:
        raise TypeError(
            f"channel_groups: {type(model).__name__} cannot be traced by torch.fx ({type(error).__name__}: {error}); "
            "its forward must not depend on values"
        ) from error
    floats = next((p.dtype for p in copied.parameters() if p.is_floating_point()), example.dtype)
    with torch.no_grad():
        ShapeProp(traced).propagate(example.to(floats))
    walk = _Walk(traced)
    missed = [name for name in prunable_layers(model) if name not in walk.seen]
    if missed:
        raise KeyError(f"channel_groups: layers that the model's forward does not reach: {', '.join(missed)}")
    return walk.graph()


@lru_cache(maxsize=32)
def _of_spec(spec):
    return channel_groups(spec.build(), torch.zeros(1, *spec.image))


@dataclass(frozen=True)
class _Flow:
    """What a tensor carries: which group lies along its axis 1, and how many entries a channel has there."""

    group: int
    repeat: int = 1


class _Walk:
    """Goes through a traced model once; groups are numbers that later turn out to be the same (union-find)."""

    def __init__(self, traced):
        self.modules = dict(traced.named_modules())
        self.parent: list[int] = []
        self.about: list[dict[str, Any]] = []
        self.seen: dict[str, dict[str, Any]] = {}
        self.norms: dict[str, tuple[int, int]] = {}
        self.flows: dict[fx.Node, _Flow | None] = {}
        for node in traced.graph.nodes:
            self.flows[node] = self._visit(node)

    def graph(self):
        order = list(dict.fromkeys(self._root(i) for i in range(len(self.parent))))
        of = {root: self.about[root] for root in order}
        groups = tuple(ChannelGroup(**of[root]) for root in order)
        layers = tuple(
            GraphLayer(
                name=name,
                source=None if at["source"] is None else of[self._root(at["source"])]["name"],
                target=of[self._root(at["target"])]["name"],
                **{key: at[key] for key in ("area", "pixels", "kind")},
            )
            for name, at in self.seen.items()
        )
        norms = {name: (of[self._root(group)]["name"], repeat) for name, (group, repeat) in self.norms.items()}
        return ChannelGraph(groups=groups, layers=layers, norms=norms)

    def _new(self, name, channels, fixed=False):
        self.parent.append(len(self.parent))
        self.about.append({"name": name, "channels": channels, "fixed": fixed, "added": False})
        return len(self.parent) - 1

    def _root(self, i):
        while self.parent[i] != i:
            i = self.parent[i]
        return i

    def _join(self, i, j, where, added=True):
        low, high = sorted((self._root(i), self._root(j)))
        a, b = self.about[low], self.about[high]
        if low != high and a["channels"] != b["channels"]:
            raise TypeError(
                f"channel_groups: {where} joins {a['channels']} and {b['channels']} channels, which cannot be cropped "
                f"alike; {CURE}"
            )
        self.parent[high] = low
        a["fixed"], a["added"] = a["fixed"] or b["fixed"], a["added"] or b["added"] or (added and low != high)
        return low

    def _visit(self, node):
        flows = [self.flows[given] for given in node.all_input_nodes]
        carried = [flow for flow in flows if flow is not None]
        if node.op == "placeholder":
            shape = _shape(node)
            return _Flow(self._new("input", shape[1], fixed=True)) if shape and len(shape) > 1 else None
        if node.op == "output":
            for flow in carried:
                self.about[self._root(flow.group)]["fixed"] = True
            return None
        if node.op == "get_attr" or not carried:
            return None
        if node.op == "call_module":
            return self._module(node, self.modules[node.target], carried[0])
        name = node.target if isinstance(node.target, str) else node.target.__name__
        return self._operation(node, name.removesuffix("_") if name not in JOINING else name, flows, carried)

    def _module(self, node, module, flow):
        name, shape = node.target, _shape(node)
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            return self._layer(name, module, flow, shape)
        if isinstance(module, NORMS):
            self.norms[name] = (flow.group, flow.repeat)
            return flow
        if isinstance(module, nn.Flatten) and module.start_dim == 1 and module.end_dim in (-1, len(shape)):
            return self._flat(node, flow)
        if isinstance(module, PASSING) or (isinstance(module, nn.PReLU) and module.num_parameters == 1):
            return flow
        raise TypeError(f"channel_groups: cannot follow channels through {name} ({type(module).__name__}); {CURE}")

    def _layer(self, name, module, flow, shape):
        linear = isinstance(module, nn.Linear)
        if linear and len(shape) != 2:
            raise TypeError(
                f"channel_groups: {name} is a linear layer on {len(shape)} axes; only inputs (n, features) can be "
                f"followed; {CURE}"
            )
        area = flow.repeat if linear else prod(module.kernel_size)
        at = {"source": flow.group, "area": area, "pixels": prod(shape[2:])}
        if linear or module.groups == 1:
            target = self._new(name, module.out_features if linear else module.out_channels)
            at |= {"target": target, "kind": "linear" if linear else "convolution"}
        elif module.groups == module.in_channels == module.out_channels:
            at |= {"source": None, "target": flow.group, "kind": "depthwise"}
        else:
            raise TypeError(
                f"channel_groups: {name} is a convolution in {module.groups} groups; only depthwise ones, with as many "
                "outputs as inputs, can be cropped"
            )
        if name in self.seen:  # one module called twice: what it reads and writes goes together
            before = self.seen[name]
            if before["source"] is not None:
                self._join(before["source"], flow.group, name)
            at |= {"target": self._join(before["target"], at["target"], name), "source": before["source"]}
            at["pixels"] += before["pixels"]
        self.seen[name] = at
        return _Flow(at["target"])

    def _operation(self, node, name, flows, carried):
        if name in JOINING:
            if len(carried) > 1:
                if any(flow.repeat != carried[0].repeat for flow in carried):
                    raise TypeError(f"channel_groups: {node.name} joins tensors of different layouts; {CURE}")
                return _Flow(self._join(carried[0].group, carried[1].group, node.name), carried[0].repeat)
            if all(flow is not None or _lone(given) for given, flow in zip(node.all_input_nodes, flows, strict=True)):
                return carried[0]
        if name in FLATTENING and _flattens(node):
            return self._flat(node, carried[0])
        if name == "mean" and len(carried) == 1 and _over_pixels(node):
            return carried[0]
        if name in KEEPING and len(carried) == 1:
            return carried[0]
        if name in ("size", "getattr", "getitem") and not isinstance(node.meta.get("tensor_meta"), tuple):
            return None
        raise TypeError(f"channel_groups: cannot follow channels through the operation {node.name}; {CURE}")

    def _flat(self, node, flow):
        channels = self.about[self._root(flow.group)]["channels"]
        return _Flow(flow.group, _shape(node)[1] // channels)


def _shape(node) -> tuple[int, ...]:
    return tuple(getattr(node.meta.get("tensor_meta"), "shape", ()))


def _lone(node) -> bool:
    """Tell whether an operand without channels is one number."""
    shape = _shape(node)
    return prod(shape) == 1


def _flattens(node) -> bool:
    before, after = _shape(node.all_input_nodes[0]), _shape(node)
    return len(after) == 2 and len(before) >= 2 and after[0] == before[0] and after[1] == prod(before[1:])


def _over_pixels(node) -> bool:
    before, after = _shape(node.all_input_nodes[0]), _shape(node)
    return len(before) == 4 and after in (before[:2], (*before[:2], 1, 1))
