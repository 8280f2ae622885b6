"""The explorer of compressed caches: sources gathered from their folder, the reader's own arrays, and the view."""

from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np

from widgets.controls.knob import Knob
from widgets.controls.upload import UploadField
from widgets.figures.kv_cache.scene import CacheScene
from widgets.views.kv_cache import CacheHooks, KVCacheView
from workbench.data.limits import VISITOR
from workbench.explorers.kv_cache.scene import cache_scene
from workbench.explorers.kv_cache.source import sources
from workbench.explorers.kv_cache.stories import STORIES

__all__ = ["explorer"]

OWN = "own"
MOST_NUMBERS = 2**21  # of keys, and of values
WHAT = Knob("what", "Show", "key", choices=(("key", "keys"), ("value", "values")))
HEAD = Knob("head", "Head", 0, 0, 63, 1)
CHANNEL = Knob("channel", "Channel", 0, 0, 511, 1, help="Of the histogram.")
BITS = Knob("bits", "Bits of a code", 2, 1, 8, 1)
BACKBONE = Knob(
    "backbone", "Quantiser", "kivi",
    choices=(
        ("kivi", "KIVI: keys by channel, values by token"), ("kcvt", "KCVT: one group a channel, one a token"),
        ("token", "by token, both"),
    ),
)  # fmt: skip
GROUP = Knob(
    "group", "Group", "64", choices=tuple((x, x) for x in ("16", "32", "64")), help="Numbers that share a scale."
)
RANK = Knob("rank", "Rank", 4, 0, 16, 1, help="Of the low-rank part of the prompt; later blocks have at most 2.")
SPARSITY = Knob("sparsity", "Outliers (%)", 2.0, 0.0, 20.0, 0.5, help="Share of the entries stored exactly.")
BUFFER = Knob("buffer", "Buffer", 1, 1, 4, 1, help="Newest tokens in half precision, in groups.")
PROMPT = Knob("prompt", "Prompt", 128, 1, 2048, 1, help="Tokens that are read at once.")
SETTINGS = (WHAT, HEAD, CHANNEL, BITS, BACKBONE, GROUP, RANK, SPARSITY, BUFFER, PROMPT)


class OwnCache:
    """The keys, values and queries that one reader has given."""

    def __init__(self):
        self.name, self.qkv = "", None

    def take(self, name: str, keys, values, queries=None) -> None:
        """Take arrays (heads, n, d) or (1, heads, n, d); ValueError says what is wrong with them."""
        k, v = (_four(x, label) for x, label in ((keys, "keys"), (values, "values")))
        q = k if queries is None else _four(queries, "queries")
        if k.shape != v.shape or q.shape[2:] != k.shape[2:] or q.shape[1] % k.shape[1]:
            raise ValueError(
                f"{name}: keys and values must have one shape, and queries a multiple of their heads; got {k.shape}, "
                f"{v.shape} and {q.shape}."
            )
        if k.size > MOST_NUMBERS:
            raise ValueError(f"{name} has {k.size:,} keys' numbers, the limit of this view is {MOST_NUMBERS:,}.")
        self.name, self.qkv = name, (q, k, v)

    def receive(self, name: str, content: bytes) -> None:
        """Take an .npz file from a page, with arrays k and v, and q if there are queries."""
        with np.load(BytesIO(content), allow_pickle=False) as found:
            lacking = {"k", "v"} - set(found.files)
            if lacking:
                raise ValueError(f"{name} must hold arrays k and v, and may hold q; it lacks {', '.join(lacking)}.")
            self.take(name, found["k"], found["v"], found["q"] if "q" in found.files else None)


def explorer(keys=None, values=None, queries=None, *, query: str = "", **state) -> KVCacheView:
    """Return the view of a compressed cache, of the tiny language model unless arrays are given.

    Parameters
    ----------
    keys, values : your own, (heads, n, d) or (1, heads, n, d), NumPy arrays or torch tensors; keys after their rotary
        embedding.
    queries : (query heads, n, d) or (1, query heads, n, d), for the errors of attention; the keys unless given.
    query : a link's query string, which describes the whole state.
    state : values of knobs.
    """
    own = OwnCache()
    if keys is not None:
        own.take("your cache", keys, values, queries)
        if not query:
            state = {"cache": OWN} | state

    def recipe(words):
        call = f"explorer({words})"
        if f"cache={OWN!r}" in words:
            call = f"explorer(k, v{', ' * bool(words)}{words})  # k, v: your own".replace(f"cache={OWN!r}, ", "")
        return f"from workbench.explorers.kv_cache.explorer import explorer\n\nview = {call}\nview.wait()\nview"

    hooks = CacheHooks(
        cache=_knobs(),
        relevant=_relevant,
        stories=STORIES,
        budget=lambda state: _refused(state, own),
        recipe=recipe,
        uploads=[
            UploadField(
                label="Your own cache: an .npz with arrays k and v (heads, tokens, channels), and q if there is one",
                endings=(".npz",),
                limit_bytes=VISITOR.file_bytes,
                received=own.receive,
            )
        ],
        shows_uploads=lambda state: state["cache"] == OWN,
    )

    def scene(state: Mapping[str, Any], progress) -> CacheScene:
        progress(0.0, "reading the cache")
        if state["cache"] == OWN:
            return cache_scene(state, own.qkv, own.name, "measured", progress)
        of = sources()[state["cache"]]
        qkv = _known(of.key, tuple(state[knob.key] for knob in of.knobs))
        return cache_scene(state, qkv, of.told(state), of.kind, progress)

    return KVCacheView(scene, hooks, query=query, **state)


def _knobs():
    choices = (*((key, each.title) for key, each in sources().items()), (OWN, "Your own"))
    menu = Knob("cache", "Cache", "tiny_lm", choices=choices, help="Whose keys and values are compressed.")
    return (menu, *(knob for each in sources().values() for knob in each.knobs), *SETTINGS)


def _relevant(state):
    of = sources().get(state["cache"])
    group = () if state["backbone"] == "kcvt" else ("group",)
    own = tuple(knob.key for knob in (of.knobs if of else ()))
    last = ("buffer", "prompt") if state["section"] in ("bytes", "drift") else ("channel",)
    return ("cache", *own, "what", "head", "bits", "backbone", *group, "rank", "sparsity", *last)


def _refused(state, own):
    if state["cache"] == OWN:
        if own.qkv is None:
            return "There is no cache of your own yet: choose a file above the picture."
        _, heads, n, d = own.qkv[1].shape
        group = int(state["group"])
        if state["backbone"] != "kcvt" and (n % group or heads * d % group):
            return (
                f"Groups of {group} do not divide {n:,} tokens and {heads * d:,} channels; choose a smaller group or "
                "KCVT."
            )
        if state["rank"] > min(n, d):
            return f"The rank is at most {min(n, d)}, the smaller of tokens and channels."
        return None
    return sources()[state["cache"]].missing() or None


@lru_cache(maxsize=8)
def _known(key, values):
    of = sources()[key]
    return of.load({knob.key: value for knob, value in zip(of.knobs, values, strict=True)})


def _four(x, name):
    found = x.detach().cpu().float().numpy() if hasattr(x, "detach") else np.asarray(x)
    found = found[None] if found.ndim == 3 else found
    if found.ndim != 4 or found.shape[0] != 1 or found.dtype.kind != "f" or not np.isfinite(found).all():
        raise ValueError(
            f"{name} must be finite floats (heads, n, d) of one sequence, got {found.dtype} {found.shape}."
        )
    return np.ascontiguousarray(found, np.float32)
