"""The explorer of storage formats: weights gathered from their folder, pruned, stored in every format, and the view."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from kernels.formats.storage import position_bound_bits
from kernels.masks.blocks import block_prune_mask
from kernels.masks.nm import nm_mask
from kernels.masks.prune import prune_mask
from widgets.controls.knob import Knob
from widgets.controls.upload import UploadField
from widgets.figures.weight_format import WeightScene
from widgets.views.weight_format import FormatHooks, WeightFormatView
from workbench.data.limits import VISITOR
from workbench.data.matrix_files import ENDINGS, READ, read_matrix
from workbench.explorers.own_weight import OwnWeight
from workbench.explorers.weight_format.formats import FORMATS, Choice, store
from workbench.explorers.weight_format.machines import MACHINES, machines
from workbench.explorers.weight_format.source import sources
from workbench.explorers.weight_format.stories import STORIES

__all__ = ["explorer", "weight_scene"]

OWN = "own"
PATTERNS = (
    ("any", "at any places"),
    ("blocks", "in 4 x 1 blocks"),
    ("nm", "n of every m"),
    ("given", "as they are given"),
)
BLOCKS = ("4x4", "1x4", "2x2", "4x1", "8x8", "16x1")
PATTERN = Knob("pattern", "Weights stay", "any", choices=PATTERNS, help="The largest stay, one by one or together.")
SPARSITY = Knob("sparsity", "Sparsity", 0.75, 0.0, 1.0, 0.01, help="Share of the weights that go.")
NM = Knob("nm", "n of every m", "2:4", choices=tuple((x, x) for x in ("2:4", "1:4", "4:8", "2:8")))
BLOCK = Knob(
    "block", "Block of block CSR", BLOCKS[0], choices=tuple((x, x.replace("x", " x ")) for x in BLOCKS),
    help="Rows by columns.",
)  # fmt: skip
VALUE_BITS = Knob(
    "value_bits", "Bits of a value", "8", choices=tuple((x, x) for x in ("8", "16", "32")),
    help="What a stored weight takes, and an activation.",
)  # fmt: skip
TILE = (
    Knob("tile_rows", "Rows of a tile", 128, 8, 512, scale="log2", help="Of tiled-CSL: 128 in the published kernel."),
    Knob("tile_columns", "Columns of a tile", 64, 64, 512, scale="log2", help="Of tiled-CSL: a power of two."),
)


def explorer(weights=None, *, query: str = "", **state) -> WeightFormatView:
    """Return the view of storage formats, on weights drawn at random unless others are given.

    Parameters
    ----------
    weights : your own: a path of a file that `workbench.data.matrix_files` reads, a NumPy array, a SciPy sparse array
        or a torch tensor (outputs, inputs); or the key of one of `sources`. Your own are shown as they are given,
        rounded to half precision.
    query : a link's query string, which describes the whole state.
    state : values of knobs.
    """
    own = OwnWeight()
    if isinstance(weights, str) and (weights in sources() or weights == OWN):
        state["weights"] = weights
    elif weights is not None:
        from_file = isinstance(weights, (str, Path))
        own.take(Path(weights).name if from_file else "weights", read_matrix(weights) if from_file else weights)
        if not query:
            state = {"weights": OWN, "pattern": "given"} | state

    def recipe(words):
        call = f"explorer({words})"
        if f"weights={OWN!r}" in words:
            call = f"explorer(w{', ' * bool(words)}{words})  # w is your own weight".replace(f"weights={OWN!r}, ", "")
        return f"from workbench.explorers.weight_format.explorer import explorer\n\nview = {call}\nview.wait()\nview"

    hooks = FormatHooks(
        weights=_knobs(),
        formats=[(form.key, form.named(Choice()) if "{" not in form.label else _plain(form)) for form in FORMATS],
        machines=MACHINES,
        first="groups",
        relevant=_relevant,
        stories=STORIES,
        budget=lambda state: _missing(state, own),
        recipe=recipe,
        uploads=[
            UploadField(
                label=f"Your own weight: {READ}",
                endings=ENDINGS,
                limit_bytes=VISITOR.file_bytes,
                received=own.receive,
            )
        ],
        shows_uploads=lambda state: state["weights"] == OWN,
    )

    def scene(state: Mapping[str, Any], progress) -> WeightScene:
        progress(0.0, "making the weight")
        return weight_scene(state, own)

    return WeightFormatView(scene, hooks, query=query, **state)


def weight_scene(state: Mapping[str, Any], own: OwnWeight | None = None) -> WeightScene:
    """Return the weight that a state describes, in every format that can hold it.

    Raises
    ------
    ValueError : the pattern does not fit the shape of the reader's own weight.
    """
    dense, told = _loaded(state, own)
    weight = _pruned(dense, state)
    choice = Choice(
        value_bits=int(state["value_bits"]),
        block=_pair(state["block"], "x"),
        nm=_pair(state["nm"], ":"),
        tile=(state["tile_rows"], state["tile_columns"]),
        reorder=state["reorder"],
    )
    formats, left_out = store(weight, choice)
    bound = position_bound_bits(weight.shape, int(np.count_nonzero(weight)), value_bits=choice.value_bits)
    how = {"any": "pruned one by one", "blocks": "pruned in 4 x 1 blocks", "nm": f"pruned {state['nm']}", "given": ""}
    return WeightScene(
        title=", ".join(filter(None, (f"{told[0].upper()}{told[1:]}", how[state["pattern"]]))),
        weight=weight,
        value_bits=choice.value_bits,
        formats=formats,
        left_out=left_out,
        bound_bits=bound,
        machines=machines(choice.value_bits),
    )


def _pair(text, mark):
    first, second = map(int, text.split(mark))
    return first, second


def _plain(form):
    return form.label.format(block="any block", nm="n:m")


def _knobs():
    choices = (*((key, each.title) for key, each in sources().items()), (OWN, "Your own"))
    menu = Knob("weights", "Weights", "random", choices=choices, help="What is pruned and stored.")
    return (
        menu,
        *(knob for each in sources().values() for knob in each.knobs),
        PATTERN,
        SPARSITY,
        NM,
        BLOCK,
        VALUE_BITS,
        *TILE,
    )


def _relevant(state):
    of = sources().get(state["weights"])
    share = ("sparsity",) if state["pattern"] in ("any", "blocks") else ()
    own = tuple(knob.key for knob in (of.knobs if of else ()))
    tile = tuple(knob.key for knob in TILE) if state["value_bits"] == "16" else ()
    return ("weights", *own, "pattern", *share, "nm", "block", "value_bits", *tile)


def _missing(state, own):
    if state["weights"] == OWN:
        return "There is no weight of your own yet: choose a file above the picture." if own.weight is None else None
    return sources()[state["weights"]].missing() or None


def _loaded(state, own):
    """Return the dense weight, exact in half precision, and what it is called."""
    if state["weights"] == OWN:
        return _half(own.weight), own.name
    of = sources()[state["weights"]]
    return _known(of.key, tuple(state[knob.key] for knob in of.knobs)), of.told(state)


@lru_cache(maxsize=8)
def _known(key, values):
    of = sources()[key]
    return _half(of.load({knob.key: value for knob, value in zip(of.knobs, values, strict=True)}))


def _half(weight):
    return weight.astype(np.float16).astype(np.float32) + np.float32(0)  # no -0.0


def _pruned(weight, state):
    pattern, (m, k), of = state["pattern"], weight.shape, _pair(state["nm"], ":")
    scores = np.abs(weight)
    if pattern == "given":
        return weight
    if pattern == "any":
        return np.where(prune_mask(scores, state["sparsity"]), weight, 0)
    if pattern == "blocks":
        if m % 4:
            raise ValueError(f"The weight has {m:,} rows, no multiple of 4: choose another pattern than 4 x 1 blocks.")
        return np.where(block_prune_mask(scores, state["sparsity"], block=(4, 1)), weight, 0)
    if k % of[1]:
        raise ValueError(f"The weight has {k:,} columns, no multiple of {of[1]}: choose another pattern than n:m.")
    return np.where(nm_mask(scores, *of), weight, 0)
