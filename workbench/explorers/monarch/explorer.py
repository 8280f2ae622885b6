"""The explorer of Monarch matrices: sources gathered from their folder, projected, compared with other structures."""

import itertools
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import linalg

from kernels.transforms.block_diagonal import block_chain_multiply
from kernels.transforms.monarch import monarch_dense, monarch_permutation, monarch_project, monarch_spectra
from widgets.controls.knob import Knob
from widgets.controls.upload import UploadField
from widgets.figures.monarch import MonarchScene, Rival
from widgets.views.matrix_input import as_pattern
from widgets.views.monarch import MonarchHooks, MonarchView
from workbench.data.limits import VISITOR
from workbench.data.matrix_files import ENDINGS, READ, read_matrix
from workbench.explorers.monarch.source import sources
from workbench.explorers.monarch.stories import STORIES

__all__ = ["explorer", "monarch_scene"]

OWN = "own"
MOST_SIDE = 1536
MOST_ENTRIES = 384 * 1536
NBLOCKS = Knob(
    "nblocks", "Blocks of each factor", 8, 1, 64, 1, scale="log2",
    help="Both sides of the matrix must be multiples of it. More blocks are fewer parameters.",
)  # fmt: skip
RANK = Knob("rank", "Rank of each part", 1, 1, 192, 1, help="Singular values of each part that are kept.")
PERMUTED = Knob(
    "permuted", "Inputs permuted", False, help="The first step of Cooley and Tukey's fast Fourier transform."
)
_SERIAL = itertools.count()


class OwnMatrix:
    """The matrix that one reader has given."""

    def __init__(self):
        self.name, self.serial = "", -1
        self.matrix: Any = None

    def take(self, name: str, matrix) -> None:
        """Take a matrix of any kind that views read; ValueError or TypeError says what is wrong with it."""
        found, _ = as_pattern(matrix, name)
        m, n = found.shape
        if max(m, n) > MOST_SIDE or m * n > MOST_ENTRIES:
            raise ValueError(
                f"{name} has {m:,} x {n:,} entries; this view takes up to {MOST_ENTRIES:,} and sides up to "
                f"{MOST_SIDE:,}; pass a part of it."
            )
        if min(m, n) < 2:
            raise ValueError(f"{name} has {m:,} x {n:,} entries; a side must be at least 2.")
        dense = found.toarray()
        dense = dense.astype(np.complex128 if dense.dtype.kind == "c" else np.float64)
        if not np.isfinite(dense).all():
            raise ValueError(f"{name} holds NaN or infinity; every entry must be finite.")
        self.name, self.matrix, self.serial = name, dense, next(_SERIAL)

    def receive(self, name: str, content: bytes) -> None:
        """Take a file from a page."""
        self.take(name, read_matrix(content, VISITOR, name))


def explorer(matrix=None, *, query: str = "", **state) -> MonarchView:
    """Return the view of Monarch matrices, on the Fourier transform unless another matrix is given.

    Parameters
    ----------
    matrix : your own: a path of a file that `workbench.data.matrix_files` reads, a NumPy array, a SciPy sparse
        array or a torch tensor (outputs, inputs); or the key of one of `sources`.
    query : a link's query string, which describes the whole state.
    state : values of knobs.
    """
    own = OwnMatrix()
    if isinstance(matrix, str) and (matrix in sources() or matrix == OWN):
        state["matrix"] = matrix
    elif matrix is not None:
        from_file = isinstance(matrix, (str, Path))
        own.take(Path(matrix).name if from_file else "your matrix", read_matrix(matrix) if from_file else matrix)
        if not query:
            state = {"matrix": OWN, "nblocks": _fitting(own.matrix.shape)} | state
    if "n" in state:
        state["n"] = str(state["n"])

    def recipe(words):
        call = f"explorer({words})"
        if f"matrix={OWN!r}" in words:
            call = f"explorer(w, {words})  # w is your own matrix".replace(f"matrix={OWN!r}", "").replace(", , ", ", ")
        return f"from workbench.explorers.monarch.explorer import explorer\n\nview = {call}\nview.wait()\nview"

    hooks = MonarchHooks(
        matrices=_knobs(),
        relevant=_relevant,
        stories=STORIES,
        budget=lambda state: _refusal(state, own),
        recipe=recipe,
        uploads=[
            UploadField(
                label=f"Your own matrix: {READ}",
                endings=ENDINGS,
                limit_bytes=VISITOR.file_bytes,
                received=own.receive,
            )
        ],
        shows_uploads=lambda state: state["matrix"] == OWN,
    )

    def scene(state: Mapping[str, Any], progress) -> MonarchScene:
        progress(0.0, "making the matrix")
        return monarch_scene(state, own, progress)

    return MonarchView(scene, hooks, query=query, **state)


def monarch_scene(state: Mapping[str, Any], own: OwnMatrix | None = None, progress=lambda fraction, step: None):
    """Return the matrix that a state describes, its projection, and other structures with as many parameters.

    Raises
    ------
    ValueError : the blocks do not divide a side, or a part has no such rank.
    """
    given, told, of = _loaded(state, own)
    k, rank = state["nblocks"], state["rank"]
    _check_blocks(given.shape, k, rank)
    order = monarch_permutation(given.shape[1], (k, given.shape[1] // k))
    turned = np.ascontiguousarray(given[:, order])
    matrix, other = (turned, given) if state["permuted"] else (given, turned)
    progress(0.1, "projecting")
    w1, w2, error = monarch_project(matrix, k, rank=rank)
    parameters = w1.size + w2.size
    progress(0.4, "other structures")
    other_order = "inputs in their order" if state["permuted"] else "inputs permuted"
    rivals = (
        Rival(name="Monarch", parameters=parameters, error=error),
        Rival(name=f"Monarch, {other_order}", parameters=parameters, error=monarch_project(other, k, rank=rank)[2]),
        *_rivals(matrix, parameters),
    )
    progress(0.7, "other numbers of blocks")
    return MonarchScene(
        title=f"{told[0].upper()}{told[1:]}",
        remark=of.remark if of else "",
        matrix=matrix,
        product=monarch_dense(w1, w2),
        first=linalg.block_diag(*w1),
        second=np.ascontiguousarray(block_chain_multiply(np.eye(len(w1) * w1.shape[1], dtype=w2.dtype), [w2], [k]).T),
        blocks=(k, k),
        rank=rank,
        permuted=state["permuted"],
        spectra=monarch_spectra(matrix, k),
        turned=monarch_spectra(other, k),
        error=error,
        parameters=parameters,
        multiply_adds=parameters,
        rivals=rivals,
        curves=_curves(matrix),
        kind=of.kind if of else "counted",
    )


def _rivals(matrix, parameters):
    """Return low rank, a block-diagonal matrix and the largest entries, with at most so many parameters."""
    m, n = matrix.shape
    sizes = linalg.svdvals(matrix)
    total = float(np.sqrt((sizes**2).sum())) or 1.0
    rank = max(1, parameters // (m + n))
    yield Rival(
        name=f"low rank ({rank})", parameters=rank * (m + n), error=float(np.sqrt((sizes[rank:] ** 2).sum())) / total
    )
    count = max(1, -(-m * n // max(parameters, 1)))
    places = (np.arange(side) * count // side for side in (m, n))
    inside = np.equal.outer(*places)
    left_out = float(np.sqrt((np.abs(matrix[~inside]) ** 2).sum()))
    yield Rival(name=f"block-diagonal ({count})", parameters=int(inside.sum()), error=left_out / total)
    energy = np.sort((np.abs(matrix) ** 2).reshape(-1))
    lost = float(np.sqrt(energy[: max(0, energy.size - parameters)].sum()))
    yield Rival(name="largest entries, places not counted", parameters=min(parameters, energy.size), error=lost / total)


def _curves(matrix):
    """Return errors over shares of the parameters: a curve over ranks for some numbers of blocks, low rank last."""
    m, n = matrix.shape
    found = {}
    for k in (2, 4, 8, 16, 32):
        if m % k or n % k:
            continue
        sizes = monarch_spectra(matrix, k)
        found[f"{k} blocks"] = _curve((sizes**2).sum(axis=(0, 1)), k * (m + n), m * n)
    sizes = linalg.svdvals(matrix)
    return found | {"low rank": _curve(sizes**2, m + n, m * n)}


def _curve(energy, each, whole):
    """Return shares and errors for ranks 1, 2, ... as long as they take less than the dense matrix does."""
    most = min(len(energy), max(1, whole // each))
    chosen = np.unique(np.rint(np.geomspace(1, most, 12)).astype(int))
    total = float(energy.sum()) or 1.0
    left = np.maximum(0, total - np.cumsum(energy))
    return chosen * each / whole, np.sqrt(left[chosen - 1] / total)


def _fitting(shape):
    return next((k for k in (8, 4, 2, 16, 3, 5, 7) if not any(side % k for side in shape)), 1)


def _knobs():
    choices = (*((key, each.title) for key, each in sources().items()), (OWN, "Your own"))
    menu = Knob("matrix", "Matrix", "dft", choices=choices, help="What is projected.")
    own = {knob.key: knob for each in sources().values() for knob in each.knobs}
    return (menu, *own.values(), NBLOCKS, RANK, PERMUTED)


def _relevant(state):
    of = sources().get(state["matrix"])
    return ("matrix", *(knob.key for knob in (of.knobs if of else ())), "nblocks", "rank", "permuted")


def _refusal(state, own):
    if state["matrix"] == OWN:
        if own.matrix is None:
            return "There is no matrix of your own yet: choose a file above the picture."
        return None
    return sources()[state["matrix"]].missing() or None


def _check_blocks(shape, k, rank):
    m, n = shape
    if m % k or n % k:
        fitting = ", ".join(str(d) for d in range(1, 65) if m % d == n % d == 0)
        raise ValueError(f"{k} blocks do not divide {m:,} x {n:,}: choose one of {fitting}.")
    if rank > min(m, n) // k:
        raise ValueError(
            f"With {k} blocks a part is {m // k:,} x {n // k:,}, so its rank is at most {min(m, n) // k:,}."
        )


def _loaded(state, own):
    """Return the matrix, what it is called, and its source or None."""
    if state["matrix"] == OWN:
        return own.matrix, own.name, None
    of = sources()[state["matrix"]]
    return _known(of.key, tuple(state[knob.key] for knob in of.knobs)), of.told(state), of


@lru_cache(maxsize=8)
def _known(key, values):
    of = sources()[key]
    found = np.asarray(of.load({knob.key: value for knob, value in zip(of.knobs, values, strict=True)}))
    return found.astype(np.complex128 if found.dtype.kind == "c" else np.float64)
