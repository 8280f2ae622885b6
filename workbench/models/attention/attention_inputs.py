"""Queries, keys and values to look at: of real models on real text, of generators, of images, or a reader's own."""

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch

from workbench.data import images
from workbench.data import text as texts
from workbench.data.attention_patterns import heavy_hitters, slash
from workbench.models.attention.ponet_reading import PoNetParts

__all__ = ["SOURCES", "AttentionInput", "Source", "load_input", "read_npz"]

MAX_TOKENS = 65536
PICTURE_SIDE = 56


@dataclass(frozen=True)
class AttentionInput:
    """One head's inputs.

    Parameters
    ----------
    title : where they come from, in words.
    q, k, v : (1, 1, t, d) float32 tensors, q not scaled.
    causal : whether the model that they come from is causal.
    tokens : text of every token; empty where there are none.
    all_q, all_k, all_v : (1, h, t, d), the whole layer, for methods that budget over heads; None where there is none.
    head : which head of the layer it is.
    grid : rows and columns of pixels in raster order; None where tokens are no pixels.
    picture : (rows, columns, 3) uint8, what the pixels show; None where they are no picture.
    ponet : PoNet's five projections of the head, (1, 1, t, d) and (1, t, d); None where the model is no PoNet.
    """

    title: str
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    causal: bool
    tokens: tuple[str, ...] = ()
    all_q: torch.Tensor | None = None
    all_k: torch.Tensor | None = None
    all_v: torch.Tensor | None = None
    head: int = 0
    grid: tuple[int, int] | None = None
    picture: np.ndarray | None = None
    ponet: PoNetParts | None = None


@dataclass(frozen=True)
class Source:
    """One place where queries and keys come from.

    Parameters
    ----------
    title : what readers see.
    settings : names of the settings that it reads.
    load : settings -> input.
    limits : setting -> largest value that makes a difference.
    causal : whether queries see only what came before.
    pictures : whether tokens are pixels.
    """

    title: str
    settings: tuple[str, ...]
    load: Callable[[Mapping[str, Any]], AttentionInput]
    limits: Mapping[str, int]
    causal: bool = True
    pictures: bool = False


def read_npz(content: bytes, name="file") -> AttentionInput:
    """Read arrays q and k (and v) of shape (t, d) or (heads, t, d) or (1, heads, t, d); `of_head` picks one.

    Raises
    ------
    ValueError : not an .npz, arrays missing, pickled, of wrong shape or dtype, too long, or not finite; names which.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            found = {key: stored[key] for key in ("q", "k", "v") if key in stored.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"read_npz: {name} is not a readable .npz of plain arrays ({error})") from None
    if not {"q", "k"} <= set(found):
        raise ValueError(f"read_npz: {name} must hold arrays q and k, it has {', '.join(found) or 'neither'}")
    found.setdefault("v", found["k"])
    heads = {}
    for key, array in found.items():
        if not np.issubdtype(array.dtype, np.floating) or array.ndim not in (2, 3, 4):
            raise ValueError(f"read_npz: {key} in {name} must be floats (.., t, d), got {array.dtype} {array.shape}")
        if not array.size or not np.isfinite(array).all():
            raise ValueError(f"read_npz: {key} in {name} is empty or holds NaN or infinity")
        layer = np.ascontiguousarray(array.reshape(-1, *array.shape[-2:]), np.float32)
        heads[key] = torch.from_numpy(layer)[None]
    if not heads["q"].shape == heads["k"].shape == heads["v"].shape:
        raise ValueError(
            f"read_npz: q, k, v in {name} must have one shape, got {[tuple(x.shape) for x in heads.values()]}"
        )
    if heads["q"].shape[2] > MAX_TOKENS:
        raise ValueError(f"read_npz: {name} has {heads['q'].shape[2]:,} tokens; at most {MAX_TOKENS:,}")
    return of_head(f"your file {name}", heads["q"], heads["k"], heads["v"], 0, causal=True)


def of_head(title, q, k, v, head, *, causal, tokens=()) -> AttentionInput:
    """Pick one head of a layer (1, h, t, d), clipped to what there is; the layer stays at hand."""
    head = min(head, q.shape[1] - 1)
    layer = tuple(x.contiguous() for x in (q, k, v))
    return AttentionInput(title, *(x[:, head : head + 1] for x in layer), causal, tokens, *layer, head)


@lru_cache(maxsize=4)
def _model(name):
    if name == "lm":
        from workbench.models.language import tiny_lm

        return tiny_lm.load()
    from workbench.models.language import minilm

    return minilm.load()


@lru_cache(maxsize=4)
def _layer(name, words, tokens, layer):
    """q, k, v of all heads of a layer, and the tokens' texts; kept, since heads and methods are turned most."""
    model = _model(name)
    layer = min(layer, len(model.layers) - 1)
    source = words or texts.sample(12 * tokens)[0]
    ids = model.encode(source)[:, : min(tokens, model.config.context)]
    spans = model.spans(source)[: ids.shape[1]]
    pieces = tuple(source[a:b] for a, b in spans)
    with torch.no_grad():
        return layer, *model.qkv(ids, layer), pieces


def _of_model(name, title, causal):
    def load(s):
        layer, q, k, v, pieces = _layer(name, s["words"], s["tokens"], s["layer"])
        head = min(s["head"], q.shape[1] - 1)
        return of_head(_named(title, layer, head, s), q, k, v, head, causal=causal, tokens=pieces)

    return load


def _named(title, layer, head, s):
    which = "your text" if s["words"] else "held-out Python documentation"
    return f"{title}, layer {layer}, head {head}, {which}"


def _ponet(s):
    """A head of the trained PoNet; its value is its key, and [CLS] and [SEP] stand around the text, as in training."""
    from workbench.models.attention import ponet_training

    trained = ponet_training.shipped()
    encoder = trained.model.encoder
    layer = min(s["layer"], len(encoder.mixings) - 1)
    text = ponet_training.encode(trained, s["words"] or texts.sample(12 * s["tokens"])[0], s["tokens"])
    mixing = encoder.mixings[layer]
    hq, hk, *wide = mixing.project(encoder(text.ids, text.segments, special=text.special, until=layer))
    head = min(s["head"], mixing.heads - 1)
    hs, hl, ho = (x.unflatten(-1, (mixing.heads, -1))[:, :, head] for x in wide)  # (1, t, d)
    given = of_head(_named("PoNet encoder", layer, head, s), hq, hk, hk, head, causal=False, tokens=text.tokens)
    return replace(given, ponet=PoNetParts(given.q, given.k, hs, hl, ho, text.segments, text.special))


def _slash(s):
    t = s["tokens"]
    q, k, delta, column = slash(
        t, width=s["width"], seed=s["seed"], delta=min(s["delta"], t), column=min(s["column"], t - 1)
    )
    q, k = torch.from_numpy(q), torch.from_numpy(k)
    title = f"Generated: a slash of width {s['width']} at offset {delta[0]} and column {column[0]}"
    return AttentionInput(title, q, k, k, causal=True)


def _heavy(s):
    q, k = (torch.from_numpy(x) for x in heavy_hitters(s["tokens"], share=s["share"], seed=s["seed"]))
    return AttentionInput(f"Generated: keys are heavy with probability {s['share']:g}", q, k, k, causal=True)


def _of_picture(title, make):
    """The middle square of a picture in patches: their features stand for queries, keys and values."""

    @lru_cache(maxsize=1)
    def made():
        rgb = make()
        shown = np.rint(255 * images.patches(rgb, PICTURE_SIDE).mean(2)).astype(np.uint8)
        return shown, torch.from_numpy(images.patch_features(rgb, PICTURE_SIDE))[None, None]

    def load(s):
        shown, x = made()
        return AttentionInput(title, x, x, x, causal=False, grid=shown.shape[:2], picture=shown)

    return Source(title, (), load, {"tokens": PICTURE_SIDE**2}, causal=False, pictures=True)


_GENERATED = {"tokens": MAX_TOKENS}
_TEXT = ("words", "tokens", "layer", "head")
_MINILM = {"tokens": 512, "layer": 5, "head": 11}
SOURCES = {
    "lm": Source(
        "Tiny language model (causal)",
        _TEXT,
        _of_model("lm", "Tiny language model", causal=True),
        {"tokens": 2048, "layer": 5, "head": 7},
    ),
    "minilm": Source(
        "MiniLM encoder (both directions)",
        _TEXT,
        _of_model("minilm", "MiniLM encoder", causal=False),
        _MINILM,
        causal=False,
    ),
    "minilm_causal": Source(
        "MiniLM encoder under a causal mask",
        _TEXT,
        _of_model("minilm", "MiniLM encoder under a causal mask", causal=True),
        _MINILM,
    ),
    "ponet": Source(
        "PoNet encoder, pre-trained (both directions)",
        _TEXT,
        _ponet,
        {"tokens": 256, "layer": 1, "head": 3},
        causal=False,
    ),
    "slash": Source(
        "Generator: a slash and a column", ("tokens", "delta", "width", "column", "seed"), _slash, _GENERATED
    ),
    "heavy": Source("Generator: heavy-hitter keys", ("tokens", "share", "seed"), _heavy, _GENERATED),
    "landscape": _of_picture("Picture: drawn landscape", images.landscape),
    "astronaut": _of_picture("Picture: astronaut", partial(images.picture, "astronaut")),
    "coffee": _of_picture("Picture: coffee", partial(images.picture, "coffee")),
    "chelsea": _of_picture("Picture: cat", partial(images.picture, "chelsea")),
}
_DEFAULTS = {"words": "", "tokens": 512, "layer": 0, "head": 0, "seed": 0}
_DEFAULTS |= {"delta": 37, "width": 2, "column": 100, "share": 0.02}


def load_input(source: str, **settings) -> AttentionInput:
    """Return one head's inputs from a source of `SOURCES`.

    Parameters
    ----------
    words : text for the models; the documentation's held-out part if empty.
    tokens : at most this many (models stop at their context; pictures have their own number).
    layer, head : clipped to what the model has.
    delta, width, column : where the generated slash and column lie.
    share : chance that a generated key is heavy.
    seed : of the generators.

    Raises
    ------
    ValueError : unknown source, tokens out of range. ModuleNotFoundError, FileNotFoundError : the model is not there.
    """
    if source not in SOURCES:
        raise ValueError(f"load_input: source must be one of {', '.join(SOURCES)}; got {source!r}")
    unknown = set(settings) - set(_DEFAULTS)
    if unknown:
        raise TypeError(f"load_input: no setting {sorted(unknown)[0]!r}; settings are {', '.join(_DEFAULTS)}")
    s = _DEFAULTS | settings
    if not 2 <= s["tokens"] <= MAX_TOKENS:
        raise ValueError(f"load_input: tokens must be from 2 to {MAX_TOKENS:,}, got {s['tokens']}")
    return SOURCES[source].load(s)
