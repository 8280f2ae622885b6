"""Queries, keys and values of one head: what a source tells the explorer, and the sources there are, one file each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, Literal

import numpy as np
import torch

from widgets.controls.knob import Knob
from workbench.data import images
from workbench.data import text as texts
from workbench.explorers.attention.knobs import MAX_TOKENS, TEXT
from workbench.gathered import find, gathered

__all__ = [
    "AttentionInput",
    "Source",
    "load_input",
    "named",
    "of_head",
    "of_model",
    "of_picture",
    "sources",
]

PICTURE_SIDE = 56
PACKAGE = "workbench.explorers.attention.sources"


@dataclass(frozen=True, kw_only=True)
class AttentionInput:
    """One head's inputs.

    Parameters
    ----------
    title : where they come from, in words.
    q, k, v : (1, 1, t, d) float32 tensors, q not scaled.
    causal : whether the model that they come from is causal.
    kind : how numbers about this head come about: "measured" where trained weights made it, else "counted".
    tokens : text of every token; empty where there are none.
    all_q, all_k, all_v : (1, h, t, d), the whole layer, for methods that budget over heads; None where there is none.
    head : which head of the layer it is.
    grid : rows and columns of pixels in raster order; None where tokens are no pixels.
    picture : (rows, columns, 3) uint8, what the pixels show; None where they are no picture.
    parts : what else the model computes for this head, by name, for the method that it is a model of.
    """

    title: str
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    causal: bool
    kind: Literal["counted", "measured"] = "counted"
    tokens: tuple[str, ...] = ()
    all_q: torch.Tensor | None = None
    all_k: torch.Tensor | None = None
    all_v: torch.Tensor | None = None
    head: int = 0
    grid: tuple[int, int] | None = None
    picture: np.ndarray | None = None
    parts: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One place where queries and keys come from.

    Parameters
    ----------
    key, title : name of the file, and what readers see.
    knobs : all that it reads, those shared with other sources from `knobs`.
    load : settings -> input.
    limits : knob -> largest value that makes a difference.
    limits_of : settings -> the same, for knobs whose limit hangs on other settings.
    causal : whether queries see only what came before.
    pictures : whether tokens are pixels.
    """

    key: str
    title: str
    knobs: tuple[Knob, ...]
    load: Callable[[Mapping[str, Any]], AttentionInput]
    limits: Mapping[str, int]
    limits_of: Callable[[Mapping[str, Any]], Mapping[str, int]] = lambda s: {}
    causal: bool = True
    pictures: bool = False


@cache
def sources() -> dict[str, Source]:
    """Return every source by key, in the order of their titles."""
    return dict(sorted(gathered(PACKAGE, "SOURCE").items(), key=lambda item: item[1].title.lower()))


def load_input(source: str, *, layer: int = 0, head: int = 0, **settings) -> AttentionInput:
    """Return one head's inputs from a source.

    Parameters
    ----------
    source : a key of `sources`.
    layer, head : clipped to what the model has; without a meaning for sources that are no model.
    settings : the source's other knobs, such as ``tokens`` and ``words``; what is left out has the knob's default.

    Raises
    ------
    KeyError : unknown source. TypeError : a setting that the source does not read.
    ValueError : tokens out of range. ModuleNotFoundError, FileNotFoundError : the model is not there.
    """
    chosen = find("source", source, sources())
    defaults = {knob.key: knob.default for knob in chosen.knobs}
    unknown = set(settings) - set(defaults)
    if unknown:
        told = f"its settings are {', '.join(defaults)}" if defaults else "it has none"
        raise TypeError(f"load_input: {source} has no setting {sorted(unknown)[0]!r}; {told}")
    s = defaults | {"layer": layer, "head": head} | settings
    if "tokens" in settings and not 2 <= s["tokens"] <= MAX_TOKENS:
        raise ValueError(f"load_input: tokens must be from 2 to {MAX_TOKENS:,}, got {s['tokens']}")
    return chosen.load(s)


def of_head(title, q, k, v, head, *, causal, tokens=(), **more) -> AttentionInput:
    """Pick one head of a layer (1, h, t, d), clipped to what there is; the layer stays at hand."""
    head = min(head, q.shape[1] - 1)
    layer = [x.contiguous() for x in (q, k, v)]
    one = (x[:, head : head + 1] for x in layer)
    return AttentionInput(
        title=title,
        **dict(zip(("q", "k", "v"), one, strict=True)),
        **dict(zip(("all_q", "all_k", "all_v"), layer, strict=True)),
        causal=causal,
        tokens=tokens,
        head=head,
        **more,
    )


def of_model(*, key, title, load, causal, limits) -> Source:
    """Return the source of a language model's heads.

    Parameters
    ----------
    load : () -> model with ``layers``, ``config.context``, ``encode``, ``spans`` and ``qkv``.
    limits : largest tokens, layer and head.
    """
    name = title.replace(" (causal)", "").replace(" (both directions)", "")

    def of_settings(s):
        layer, q, k, v, pieces = _layer(load, s["words"], s["tokens"], s["layer"])
        head = min(s["head"], q.shape[1] - 1)
        told = named(name, layer, head, s)
        return of_head(told, q, k, v, head, causal=causal, tokens=pieces, kind="measured")

    return Source(key=key, title=title, knobs=TEXT, load=of_settings, limits=limits, causal=causal)


def named(title, layer, head, s) -> str:
    """Return where a head comes from, in words."""
    which = "your text" if s["words"] else "held-out Python documentation"
    return f"{title}, layer {layer}, head {head}, {which}"


@lru_cache(maxsize=4)
def _layer(load, words, tokens, layer):
    """q, k, v of all heads of a layer, and the tokens' texts; kept, since heads and methods are turned most."""
    model = load()
    layer = min(layer, len(model.layers) - 1)
    source = words or texts.sample(12 * tokens)[0]
    ids = model.encode(source)[:, : min(tokens, model.config.context)]
    spans = model.spans(source)[: ids.shape[1]]
    pieces = tuple(source[a:b] for a, b in spans)
    with torch.no_grad():
        return layer, *model.qkv(ids, layer), pieces


def of_picture(*, key, title, make) -> Source:
    """Return a picture's middle square in patches: their features stand for queries, keys and values.

    Parameters
    ----------
    make : () -> (height, width, 3) uint8.
    """

    @lru_cache(maxsize=1)
    def made():
        rgb = make()
        shown = np.rint(255 * images.patches(rgb, PICTURE_SIDE).mean(2)).astype(np.uint8)
        return shown, torch.from_numpy(images.patch_features(rgb, PICTURE_SIDE))[None, None]

    def load(s):
        shown, x = made()
        return AttentionInput(title=title, q=x, k=x, v=x, causal=False, grid=shown.shape[:2], picture=shown)

    limits = {"tokens": PICTURE_SIDE**2}
    return Source(key=key, title=title, knobs=(), load=load, limits=limits, causal=False, pictures=True)
