"""Queries, keys and values to look at: of real models on real text, of generators, of images, or a reader's own."""

import io
import zipfile
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from workbench.data import text as texts

__all__ = ["SOURCES", "AttentionInput", "heavy_hitters", "load_input", "read_npz", "vertical_slash"]

MAX_TOKENS = 65536


@dataclass(frozen=True)
class AttentionInput:
    """One head's inputs.

    Parameters
    ----------
    title : where they come from, in words.
    q, k, v : (1, 1, t, d) float32 tensors, q not scaled.
    causal : whether the model that they come from is causal.
    tokens : text of every token; empty where there are none.
    """

    title: str
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    causal: bool
    tokens: tuple[str, ...] = ()


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
    rng = np.random.default_rng(seed)
    codes = rng.choice([-1.0, 1.0], (heads, 1024 + t, d)).astype(np.float32)
    common = rng.choice([-1.0, 1.0], (heads, d)).astype(np.float32)
    drawn = rng.integers(3, max(4, min(delta_up_to, t)), heads)
    drawn_column = rng.integers(0, max(1, min(column_up_to, t)), heads)
    delta = np.broadcast_to(drawn if delta is None else delta, heads)
    column = np.broadcast_to(drawn_column if column is None else column, heads)
    k, q = codes[:, 1024:].copy(), np.empty((heads, t, d), np.float32)
    true = np.zeros((heads, t, t), bool)
    for h in range(heads):
        k[h, column[h]] += common[h]
        q[h] = sum(codes[h, 1024 + np.arange(t) - delta[h] - w] for w in range(width)) + common[h]
        for w in range(width):
            rows = np.arange(delta[h] + w, t)
            true[h, rows, rows - delta[h] - w] = True
        true[h, column[h] :, column[h]] = True
    return q[None], k[None], true[None]


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
    """Read arrays q and k (and v) of shape (t, d) or (heads, t, d) or (1, heads, t, d); the first head is shown.

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
        head = array.reshape(-1, *array.shape[-2:])
        if not len(head) or not np.isfinite(head[0]).all():
            raise ValueError(f"read_npz: {key} in {name} is empty or holds NaN or infinity")
        heads[key] = torch.from_numpy(np.ascontiguousarray(head[0], np.float32))[None, None]
    if not heads["q"].shape == heads["k"].shape == heads["v"].shape:
        raise ValueError(
            f"read_npz: q, k, v in {name} must have one shape, got {[tuple(x.shape) for x in heads.values()]}"
        )
    if heads["q"].shape[2] > MAX_TOKENS:
        raise ValueError(f"read_npz: {name} has {heads['q'].shape[2]:,} tokens; at most {MAX_TOKENS:,}")
    return AttentionInput(f"your file {name}", heads["q"], heads["k"], heads["v"], causal=True)


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
    def load(words, tokens, layer, head, seed):
        layer, q, k, v, pieces = _layer(name, words, tokens, layer)
        head = min(head, q.shape[1] - 1)
        q, k, v = (x[:, head : head + 1].contiguous() for x in (q, k, v))
        which = "your text" if words else "held-out Python documentation"
        return AttentionInput(f"{title}, layer {layer}, head {head}, {which}", q, k, v, causal, pieces)

    return load


def _generated(title, make):
    def load(words, tokens, layer, head, seed):
        q, k = (torch.from_numpy(x) for x in make(tokens, seed=1000 * layer + head + seed)[:2])
        return AttentionInput(title, q, k, k, causal=True)

    return load


SOURCES = {
    "lm": ("Tiny language model (causal)", _of_model("lm", "Tiny language model", causal=True)),
    "minilm": ("MiniLM encoder (bidirectional)", _of_model("minilm", "MiniLM encoder", causal=False)),
    "slash": ("Generator: a slash and a column", _generated("Slash and column", vertical_slash)),
    "heavy": ("Generator: heavy-hitter keys", _generated("Heavy-hitter keys", heavy_hitters)),
}


def load_input(source: str, *, words="", tokens=512, layer=0, head=0, seed=0) -> AttentionInput:
    """Return one head's inputs from a source of `SOURCES`.

    Parameters
    ----------
    words : text for the models; the documentation's held-out part if empty.
    tokens : at most this many (models stop at their context).
    layer, head : clipped to what the model has; with ``seed`` they seed the generators.

    Raises
    ------
    ValueError : unknown source, tokens out of range. ModuleNotFoundError, FileNotFoundError : the model is not there.
    """
    if source not in SOURCES:
        raise ValueError(f"load_input: source must be one of {', '.join(SOURCES)}; got {source!r}")
    if not 2 <= tokens <= MAX_TOKENS:
        raise ValueError(f"load_input: tokens must be from 2 to {MAX_TOKENS:,}, got {tokens}")
    return SOURCES[source][1](words, tokens, layer, head, seed)
