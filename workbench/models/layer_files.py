"""Files of models whose layers were replaced: one form for every kind of layer.

A file is a safetensors file. Its description says what stands in the place of which dense layer: the kind, the sizes,
and what else the kind needs to know. A class of layers takes part with a line in `LAYERS`, with its kind as the
attribute ``stored_as``, and with two methods:

- ``file_parts()`` returns what JSON can hold, and the tensors, by name;
- ``from_file(config, tensors, dense)``, a class method, makes the layer of both again. It trusts nothing: what kernels
  rely on, such as indices, is checked before a kernel reads it. ``dense`` is the layer in whose place it goes. A layer
  around another one keeps that one's parts with `layer_parts`, and makes it again with `layer_from_parts`.
"""

import copy
import importlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

__all__ = ["LAYERS", "layer_from_parts", "layer_parts", "load_compressed", "save_compressed"]

LAYERS: dict[str, str | type] = {
    "armor": "workbench.models.compression.armor_linear:ArmorLinear",
    "block_groups": "workbench.models.sparse_inference.sparse_linear:SparseLinear",
    "cropped": "workbench.models.compression.crop:CroppedLayer",
    "dense_sparse": "workbench.models.compression.ds_linear:DSLinear",
    "dictionary": "workbench.models.compression.dictionary_linear:SparseDictLinear",
    "monarch": "workbench.models.compression.monarch:MonarchLinear",
    "sparse_convolution": "workbench.models.compression.im2col:SparseConv2d",
    "tiled_csl": "workbench.models.sparse_inference.tiled_csl:SparseDecodeLinear",
}
"""Kind -> class, or where it is found, "module:Class", so that a kind is imported when a file needs it."""

FORMAT, VERSION = "sparse-workbench model", "1"
SIDES = (
    "in_features", "out_features", "in_channels", "out_channels", "num_features", "kernel_size", "stride", "padding",
    "dilation", "groups", "padding_mode",
)  # fmt: skip
FAULTS = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


def save_compressed(model: nn.Module, path: str | Path) -> None:
    """Store a model some of whose layers were replaced; `load_compressed` reads it back, bit by bit.

    Tensors that are one in the model are stored once. The file is written under another name first, so that whoever
    reads ``path`` finds the old file or the new one.

    Parameters
    ----------
    model : with layers of any of the kinds in `LAYERS`, mixed as they come.
    path : of the file; its folder exists.

    Raises
    ------
    FileNotFoundError : no such folder.
    TypeError : the model's state holds what is no tensor.
    ValueError : the model has no such layer.
    """
    from safetensors.torch import save_file

    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"save_compressed: no folder {path.parent}; make it first")
    tensors, layers = dict(model.state_dict()), {}
    first: dict[int, str] = {}
    for name, layer in model.named_modules(remove_duplicate=False):
        if not hasattr(layer, "stored_as") or _inside(name, layers):
            continue
        tensors = {key: x for key, x in tensors.items() if not key.startswith(_prefix(name))}
        layers[name] = {"same": first.setdefault(id(layer), name)}
        if first[id(layer)] == name:
            layers[name], parts = layer_parts(layer)
            tensors |= {_prefix(name) + part: x for part, x in parts.items()}
    if not layers:
        raise ValueError(
            "save_compressed: the model has no layer that was replaced; compress it first, for instance with "
            "dsformer(model), or keep its state_dict()"
        )
    wrong = [key for key, x in tensors.items() if not isinstance(x, torch.Tensor)]
    if wrong:
        raise TypeError(f"save_compressed: {wrong[0]!r} in the model's state is no tensor; files hold tensors only")
    kept, same = _without_copies(tensors)
    about = {"format": FORMAT, "version": VERSION, "layers": json.dumps(layers), "same": json.dumps(same)}
    part = path.with_name(f"{path.name}.part")
    try:
        save_file(kept, str(part), metadata=about)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load_compressed(model: nn.Module, path: str | Path) -> nn.Module:
    """Return a copy of a dense model with the layers and values of a file of `save_compressed`.

    Parameters
    ----------
    model : of the architecture that was compressed; left as it is. Its values do not matter.
    path : of the file.

    Returns
    -------
    nn.Module whose outputs are those of the model that was stored, in the precision in which it was stored.

    Raises
    ------
    FileNotFoundError : no such file.
    ValueError : the file is none of `save_compressed`, is damaged, or is of another architecture.

    Examples
    --------
    ``model = load_compressed(Net(), "small.safetensors")``
    """
    tensors, layers = _read(path)
    made: dict[str, nn.Module] = {}
    places = dict(model.named_modules(remove_duplicate=False))
    for name, entry in layers.items():
        if name not in places:
            raise _another(path, f"the model has no layer {name!r}")
        given, same = places[name], entry.get("same")
        if same is None:
            parts = {key.removeprefix(_prefix(name)): tensors.pop(key) for key in _under(tensors, name)}
            made[name] = _made(path, name, entry, parts, given)
        elif same in made:
            made[name] = made[same]
        else:
            raise _damaged(path, f"layer {name!r} is the same as {same!r}, which it does not hold")
    _check_rest(path, tensors, {k: x for k, x in model.state_dict().items() if not _inside(k, made)})
    if "" in made:
        return made[""]
    copied = copy.deepcopy(model)
    for name, layer in made.items():  # exactly these places: what is one module in the model need not be in the file
        parent, _, last = name.rpartition(".")
        setattr(copied.get_submodule(parent), last, layer)
    for key, x in copied.state_dict(keep_vars=True).items():
        if key in tensors and x.dtype != tensors[key].dtype:
            x.data = x.data.to(tensors[key].dtype)
    copied.load_state_dict(tensors, strict=False)
    return copied


def layer_parts(layer: nn.Module) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return what a file says of one layer, and its tensors.

    Raises
    ------
    ValueError : its kind is not in `LAYERS`.
    """
    kind = getattr(layer, "stored_as", None)
    config, tensors = _class_of(kind).file_parts(layer)
    return {"kind": kind, "sizes": _sides(layer), "config": config}, tensors


def layer_from_parts(entry: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], dense: nn.Module) -> nn.Module:
    """Return the layer of which `layer_parts` told, in the place of ``dense``.

    Raises
    ------
    ValueError : an unknown kind, sizes other than those of ``dense``, or parts that do not fit together.
    """
    kind = _class_of(entry["kind"])
    try:
        with torch.random.fork_rng(devices=[]):  # layers may draw weights when they are made
            layer = kind.from_file(entry["config"], dict(tensors), dense)
    except FAULTS as error:
        said = f"lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{entry['kind']}: {said}") from error
    if _sides(layer) != entry["sizes"]:
        raise ValueError(f"{entry['kind']}: its sizes are {_sides(layer)}, the description says {entry['sizes']}")
    return layer.train(dense.training)


def _made(path, name, entry, parts, given):
    """Return one layer of a file, after checking that the model has a place for it."""
    known, sizes = _class_of(entry["kind"], path), entry["sizes"]
    if not getattr(known, "resizes", False) and sizes != _sides(given):
        raise _another(path, f"layer {name!r} of the file has {_told(sizes)}, the model's is {type(given).__name__} "
                             f"with {_told(_sides(given))}")  # fmt: skip
    try:
        return layer_from_parts(entry, parts, given)
    except ValueError as error:
        raise _damaged(path, f"layer {name!r} cannot be made: {error}") from error


def _class_of(kind, path: str | Path = ""):
    found = LAYERS.get(kind) if isinstance(kind, str) else None
    if found is None:
        of = f"load_compressed: {path} has" if path else "layer_parts:"
        raise ValueError(f"{of} a layer of the unknown kind {kind!r}; known are {', '.join(LAYERS)}; a newer "
                         "workbench may know it")  # fmt: skip
    if isinstance(found, str):
        module, _, name = found.partition(":")
        found = getattr(importlib.import_module(module), name)
    return found


def _read(path):
    """Return the tensors of a file, and what it says of its layers."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"load_compressed: no file {path}; write one with save_compressed(model, path)")
    try:
        with safe_open(str(path), framework="pt") as stored:
            about = stored.metadata() or {}
            if about.get("format") != FORMAT:
                raise ValueError(f"load_compressed: {path} is no file of save_compressed; its format is "
                                 f"{about.get('format')!r}")  # fmt: skip
            if about.get("version") != VERSION:
                raise ValueError(f"load_compressed: {path} has version {about.get('version')!r} of the format, this "
                                 f"workbench reads {VERSION!r}; take a newer workbench")  # fmt: skip
            # Copies, since a tensor that lies in the file would change with it.
            tensors = {name: stored.get_tensor(name).clone() for name in stored.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"load_compressed: {path} is no file of save_compressed, or is cut off: {error}") from None
    try:
        layers, same = json.loads(about["layers"]), json.loads(about["same"])
        fine = all("same" in x or (x["kind"], x["sizes"], x["config"]) for x in layers.values())
        tensors |= {name: tensors[where] for name, where in same.items()}
    except FAULTS as error:
        raise _damaged(path, f"its description cannot be read: {type(error).__name__}: {error}") from None
    if not (fine and layers):
        raise _damaged(path, "its description names no layer")
    return tensors, layers


def _check_rest(path, found, wanted):
    """Compare the tensors that no replaced layer has with those of the model."""
    for name in (*wanted, *found):
        if name not in found:
            raise _another(path, f"the file has no {name!r}")
        if name not in wanted:
            raise _another(path, f"the model has no {name!r}")
        if found[name].shape != wanted[name].shape:
            raise _another(path, f"{name!r} is {tuple(found[name].shape)} in the file and {tuple(wanted[name].shape)} "
                                 "in the model")  # fmt: skip


def _without_copies(tensors):
    """Return the tensors, those of one memory once, as copies; and which other names stand for which of them."""
    kept, same, seen = {}, {}, {}
    for name, x in tensors.items():
        where = (x.untyped_storage().data_ptr(), x.storage_offset(), x.shape, x.stride(), x.dtype)
        if x.numel() and where in seen:
            same[name] = seen[where]
            continue
        seen[where] = name
        kept[name] = x.detach().clone(memory_format=torch.contiguous_format)
    return kept, same


def _sides(layer) -> dict[str, Any]:
    """Return the sizes that a layer has, as JSON gives them back."""
    found = {side: getattr(layer, side) for side in SIDES if hasattr(layer, side)}
    return {side: list(x) if isinstance(x, tuple) else x for side, x in found.items()}


def _told(sizes):
    return ", ".join(f"{side}={x}" for side, x in sizes.items()) if isinstance(sizes, dict) and sizes else "no sizes"


def _prefix(name):
    return f"{name}." if name else ""


def _inside(name, layers: Iterable[str]):
    return any(name.startswith(_prefix(layer)) for layer in layers)


def _under(tensors, name):
    return [key for key in tensors if key.startswith(_prefix(name))]


def _another(path, what):
    return ValueError(f"load_compressed: {path} is of another architecture: {what}; give the model that was compressed")


def _damaged(path, what):
    return ValueError(f"load_compressed: {path} is damaged: {what}; store the model again with save_compressed")
