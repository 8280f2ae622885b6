"""The nets that PreCropping trains: built at new widths or cropped from a model of the reader's own; their counts."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kernels.check import as_int, check_choice
from workbench.models.compression import precropping
from workbench.models.compression.channel_graph import NORMS, ChannelGraph, Spec, channel_groups, prunable_layers
from workbench.models.compression.crop_networks import MobileSpec, ResNetSpec, initialise
from workbench.models.compression.pai_scores import Batches, layerwise_density, pai_masks

__all__ = ["Cropped", "build_cropped", "count_flops", "count_params", "crop_before_training"]

RECEIVES = ("fresh", "first")


@dataclass(frozen=True, kw_only=True)
class Cropped:
    """A model before training, cropped.

    Parameters
    ----------
    model : the cropped net, which remains to be trained.
    widths : channels of every group that may be cropped.
    densities : what the pruner wanted to keep of every layer.
    graph : of the net before cropping.
    """

    model: nn.Module
    widths: Mapping[str, int]
    densities: Mapping[str, float]
    graph: ChannelGraph


def crop_before_training(
    model: nn.Module | Spec,
    density: float,
    *,
    example: Tensor | None = None,
    method: str = "synflow",
    mode: str = "tied",
    budget_kind: str = "params",
    rounds: int | None = None,
    loader: Batches | None = None,
    loss_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
    inherit: str | None = None,
    seed: int = 0,
) -> Cropped:
    """Crop a model's channels before training, to a share of its weights: the whole of PreCropping in one call.

    Parameters
    ----------
    model : a `ResNetSpec` or `MobileSpec`, or a module of your own, see `channel_groups`; it is left as it is.
    density : share of the weights of convolutions and linear layers, or of their multiply-adds, in (0, 1].
    example : for a module, an input (n, channels, rows, columns).
    method, rounds, loader, loss_fn : of the pruner, see `pai_masks`.
    mode, budget_kind : see `precrop`.
    inherit : see `build_cropped`.
    seed : of the initial weights of a spec, and of the cropped net.

    Returns
    -------
    Cropped.

    Raises
    ------
    TypeError, KeyError, ValueError, ArithmeticError : as `channel_groups`, `pai_masks` and `precrop`.

    Source
    ------
    Cai et al. 2022, arXiv 2203.02549.
    """
    graph = channel_groups(model, example)
    scored = model.build(seed) if isinstance(model, (ResNetSpec, MobileSpec)) else model
    shape = tuple(example.shape[1:]) if example is not None else getattr(model, "image", None)
    how = {"loader": loader, "loss_fn": loss_fn, "seed": seed, "input_shape": shape}
    densities = layerwise_density(pai_masks(scored, method, density, rounds, **how))
    budget = density * graph.count(graph.widths, budget_kind)
    widths = precropping.precrop(graph, densities, budget, mode=mode, budget_kind=budget_kind)
    cropped = build_cropped(scored, widths, graph=graph, inherit=inherit, seed=seed)
    return Cropped(model=cropped, widths=widths, densities=densities, graph=graph)


def build_cropped(
    model: nn.Module | Spec,
    widths: Mapping[str, int],
    *,
    example: Tensor | None = None,
    graph: ChannelGraph | None = None,
    inherit: str | None = None,
    seed: int = 0,
) -> nn.Module:
    """Return a net whose groups of channels have new widths.

    Parameters
    ----------
    model : a spec or a module, see `channel_groups`; it is left as it is.
    widths : group name -> channels, at least 1; groups that are not named keep theirs.
    example : for a module without ``graph``, an input.
    graph : of the model, if it is there already.
    inherit : None initialises the net anew with ``seed``; "first" keeps the weights of every group's first channels.
    seed : equal seeds give equal nets.

    Returns
    -------
    A module of the same class, in training mode.

    Raises
    ------
    KeyError : a group that the model does not have, or may not be cropped.
    ValueError : a width below 1, or above the group's with ``inherit="first"``.
    """
    graph = graph or channel_groups(model, example)
    kept = "fresh" if inherit is None else inherit
    check_choice(kept, RECEIVES, function="build_cropped", name="inherit")
    full = model.build(seed) if isinstance(model, (ResNetSpec, MobileSpec)) else copy.deepcopy(model)
    sizes = dict(graph.widths)
    for name, width in widths.items():
        if name not in graph.free:
            raise KeyError(f"build_cropped: no group {name} that may be cropped; there are {', '.join(graph.free)}")
        most = sizes[name] if kept == "first" else None
        sizes[name] = as_int(width, function="build_cropped", name=f"the width of {name}", low=1, high=most)
    with torch.random.fork_rng(devices=[]):  # layers draw weights when they are made
        _resize(full, graph, sizes, kept == "first")
    return (initialise(full, seed) if kept == "fresh" else full).train()


def count_params(model: nn.Module, *, every: bool = True) -> int:
    """Return the parameters of a model; with ``every=False`` only the weights of convolutions and linear layers."""
    if every:
        return sum(parameter.numel() for parameter in model.parameters())
    return sum(layer.weight.numel() for layer in prunable_layers(model).values())


def count_flops(model: nn.Module | Spec, input_shape: tuple[int, int, int] | None = None) -> int:
    """Return the multiply-adds of convolutions and linear layers for one example.

    Parameters
    ----------
    model : a spec, or a module with the shape (channels, rows, columns) of an input. A 3 x 3 convolution on H x W
        pixels has 9 C_in C_out H W.
    """
    example = None if input_shape is None else torch.zeros(1, *input_shape)
    graph = channel_groups(model, example)
    return graph.count(graph.widths, "flops")


def _resize(model, graph, sizes, first):
    """Put layers of other sizes in the places of a model's layers, with the first channels' weights or any."""
    dtype = next(model.parameters()).dtype
    for layer in graph.layers:
        old = model.get_submodule(layer.name)
        new = _resized(old, layer, sizes).to(old.weight.dtype)
        if first:
            _keep_first(new, old)
        _replace(model, layer.name, new)
    for name, (group, repeat) in graph.norms.items():
        old = model.get_submodule(name)
        new = _like(old, sizes[group] * repeat).to(dtype)
        if first:
            _keep_first(new, old)
        _replace(model, name, new)


def _resized(old, layer, sizes):
    source = None if layer.source is None else sizes[layer.source]
    return _like(old, sizes[layer.target], source * layer.area if isinstance(old, nn.Linear) else source)


def _like(old, target, source=None) -> nn.Module:
    """Return a layer of torch like another one, of other sizes, which files know.

    ``target`` are its outputs, or the channels of a normalisation; ``source`` its inputs, None for a depthwise
    convolution and for a normalisation.
    """
    new: Any
    if isinstance(old, NORMS):
        new = type(old)(target, old.eps, old.momentum, old.affine, old.track_running_stats)
    elif isinstance(old, nn.Linear):
        new = nn.Linear(source, target, old.bias is not None)
    else:
        new = nn.Conv2d(
            target if source is None else source,
            target,
            old.kernel_size,
            old.stride,
            old.padding,
            old.dilation,
            target if source is None else 1,
            old.bias is not None,
            old.padding_mode,
        )
    new.stored_as = CroppedLayer.stored_as
    return new


class CroppedLayer:
    """How a file keeps a layer of torch with fewer channels than the model had; `workbench.models.layer_files`."""

    stored_as = "cropped"
    resizes = True

    @staticmethod
    def file_parts(layer):
        """Return the sizes and the tensors of a layer."""
        if isinstance(layer, nn.Linear):
            sizes = {"target": layer.out_features, "source": layer.in_features}
        elif isinstance(layer, nn.Conv2d):
            sizes = {"target": layer.out_channels, "source": None if layer.groups > 1 else layer.in_channels}
        else:
            sizes = {"target": layer.num_features, "source": None}
        return sizes | {"class": type(layer).__name__}, dict(layer.state_dict())

    @staticmethod
    def from_file(config, tensors, dense):
        """Make a layer of those sizes like the one of the model that was cropped."""
        if type(dense).__name__ != config["class"]:
            raise TypeError(f"the file holds a {config['class']}, the model has a {type(dense).__name__} there")
        with torch.device("meta"):  # sizes of a damaged file take no room
            new = _like(dense, config["target"], config["source"])
        new.load_state_dict(tensors, assign=True)
        return new


@torch.no_grad()
def _keep_first(new, old):
    """Copy the leading part of every parameter and buffer; a channel's entries lie together, so it is the first's."""
    theirs = dict(old.state_dict())
    for name, tensor in new.state_dict().items():
        tensor.copy_(theirs[name][tuple(slice(n) for n in tensor.shape)])


def _replace(model, name, new):
    above, _, last = name.rpartition(".")
    setattr(model.get_submodule(above), last, new)
