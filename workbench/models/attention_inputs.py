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
from workbench.models.ponet_reading import PoNetParts

__all__ = ["SOURCES", "AttentionInput", "Source", "heavy_hitters", "load_input", "read_npz", "slash", "vertical_slash"]

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


def slash(t, *, heads=1, width=2, d=128, seed=0, delta_up_to=400, column_up_to=512, delta=None, column=None):
    """Draw q and k of `vertical_slash`, and where the pattern lies, without the mask of all pairs.

    Returns
    -------
    q, k : (1, heads, t, d) float32; delta, column : (heads,) offsets and columns.
    """
    rng = np.random.default_rng(seed)
    codes = rng.choice(np.float32([-1, 1]), (heads, 1024 + t, d))
    common = rng.choice(np.float32([-1, 1]), (heads, d))
    drawn = rng.integers(3, max(4, min(delta_up_to, t)), heads)
    drawn_column = rng.integers(0, max(1, min(column_up_to, t)), heads)
    delta = np.broadcast_to(drawn if delta is None else delta, heads)
    column = np.broadcast_to(drawn_column if column is None else column, heads)
    if delta.max(initial=0) + width > 1024 or delta.min(initial=0) < 0 or width < 1:
        raise ValueError(f"slash: delta + width must be from 1 to 1,024 and delta not negative, got {delta}, {width}")
    if column.min(initial=0) < 0 or column.max(initial=0) >= max(t, 1):
        raise ValueError(f"slash: column must be from 0 to {t - 1}, got {column}")
    k, q = codes[:, 1024:].copy(), np.empty((heads, t, d), np.float32)
    for h in range(heads):
        k[h, column[h]] += common[h]
        first = 1024 - delta[h]
        q[h] = sum(codes[h, first - w : first - w + t] for w in range(width)) + common[h]
    return q[None], k[None], delta, column


def vertical_slash(t, *, heads=1, width=2, d=128, seed=0, delta_up_to=400, column_up_to=512, delta=None, column=None):
    """Draw the pattern that antidiagonal scoring is made for: slashes of ``width`` and one column per head.

    Key j carries the sign code u_j; query i looks for u_(i - delta), ..., and for the column's code.

    Parameters
    ----------
    delta, column : offset of the slash and place of the column, a number or one per head; drawn if None.

    Returns
    -------
    q, k : (1, heads, t, d) float32; true : (1, heads, t, t) bool, the pairs that belong to the pattern.

    Source
    ------
    Our generator for the picture in Xu et al. 2025, "XAttention", Figure 1.
    """
    how = {"delta_up_to": delta_up_to, "column_up_to": column_up_to, "delta": delta, "column": column}
    q, k, delta, column = slash(t, heads=heads, width=width, d=d, seed=seed, **how)
    true = np.zeros((heads, t, t), bool)
    for h in range(heads):
        for w in range(width):
            rows = np.arange(delta[h] + w, t)
            true[h, rows, rows - delta[h] - w] = True
        true[h, column[h] :, column[h]] = True
    return q, k, true[None]


def heavy_hitters(t, *, d=64, share=0.02, seed=0):
    """Draw one head in which every query looks for the same few keys, heavy with probability ``share``.

    Returns
    -------
    q, k : (1, 1, t, d) float32.

    Source
    ------
    Our generator for the setting of Wang et al. 2025, "PBS-Attn".
    """
    rng = np.random.default_rng(seed)
    u = np.zeros(d, np.float32)
    u[0] = 1
    q = (0.5 * rng.standard_normal((t, d)) + 3.4 * u).astype(np.float32)
    k = (0.5 * rng.standard_normal((t, d)) + 17 * u * (rng.random(t) < share)[:, None]).astype(np.float32)
    return q[None, None], k[None, None]


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
        from workbench.models import tiny_lm

        return tiny_lm.load()
    from workbench.models import minilm

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
    from workbench.models import ponet_training

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


def drawn_picture(side=4 * PICTURE_SIDE) -> np.ndarray:
    """Draw a landscape (side, side, 3) uint8: sky, sun, hills, and one red house on either hand."""
    y, x = np.mgrid[0:side, 0:side] / side
    rgb = np.stack([0.45 + 0.3 * y, 0.65 + 0.2 * y, 0.95 - 0.1 * y], axis=-1)
    rgb[(x - 0.72) ** 2 + (y - 0.2) ** 2 < 0.011] = (1.0, 0.85, 0.3)
    rgb[y > 0.58 + 0.1 * np.sin(6 * x + 1)] = (0.35, 0.55, 0.35)
    rgb[y > 0.72 + 0.06 * np.sin(9 * x)] = (0.25, 0.42, 0.2)
    for left in (0.12, 0.7):
        rgb[(abs(x - left - 0.08) < 0.08) & (y > 0.66) & (y < 0.84)] = (0.75, 0.2, 0.15)
        rgb[(abs(x - left - 0.08) < (y - 0.54) * 0.9) & (y > 0.54) & (y <= 0.66)] = (0.3, 0.2, 0.2)
        rgb[(abs(x - left - 0.08) < 0.025) & (y > 0.75) & (y < 0.84)] = (0.95, 0.9, 0.6)
    return np.rint(255 * rgb.clip(0, 1)).astype(np.uint8)


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
    "landscape": _of_picture("Picture: drawn landscape", drawn_picture),
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
