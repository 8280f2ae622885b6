"""Where a dashboard's visitor chooses a matrix: from the catalogue by size and seed, or a Matrix Market file."""

import html
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets
import scipy.sparse as sp

from widgets.controls.knob import Knob
from workbench.data.matrices import MATRICES
from workbench.data.matrix_market import read_matrix_market

__all__ = ["MatrixDesk"]

UPLOAD = "upload"
LARGEST_UPLOAD_BYTES = 32 * 2**20

# How a size (log2 of the rows) and a seed become options of the sources that are made to measure.
OPTIONS: dict[str, Callable[[int, int], dict[str, int]]] = {
    "rmat": lambda size, seed: {"scale": size, "seed": seed},
    "poisson2d": lambda size, seed: {"n": round(2 ** (size / 2))},
    "poisson3d": lambda size, seed: {"n": round(2 ** (size / 3))},
    "banded": lambda size, seed: {"n": 2**size, "seed": seed},
    "erdos_renyi": lambda size, seed: {"m": 2**size, "seed": seed},
    "power_law": lambda size, seed: {"m": 2**size, "seed": seed},
}


class MatrixDesk:
    """Knobs that name a matrix, the function that loads it, and a button to upload one.

    Parameters
    ----------
    default : key of ``MATRICES`` shown at first.
    size : log2 of the rows of made-to-measure matrices, at first.

    Attributes
    ----------
    knobs : `matrix`, `size` and `seed`, for a view that takes further knobs.
    box : the upload button with its status line.
    """

    def __init__(self, default: str = "rmat", size: int = 12):
        choices = (*((key, source.title) for key, source in MATRICES.items()), (UPLOAD, "Your uploaded file"))
        self.knobs = (
            Knob("matrix", "Matrix", default, choices=choices, help="Made by formula and seed, or real data."),
            Knob("size", "Size (log2 of rows)", size, 4, 17, 1, help="For made-to-measure matrices; others have one."),
            Knob("seed", "Seed", 1, 0, 999, 1, help="For random matrices: equal seed, equal matrix."),
        )
        self._file: tuple[str, bytes] | None = None
        self._loaded: tuple[tuple, sp.csr_array] | None = None
        self._button = ipywidgets.FileUpload(
            accept=".mtx,.mtx.gz,.gz",
            multiple=False,
            description="Upload .mtx",
            tooltip=f"A Matrix Market file, at most {LARGEST_UPLOAD_BYTES // 2**20} MB; it stays on this server.",
            layout=ipywidgets.Layout(width="auto"),
        )
        self._status = ipywidgets.HTML()
        self.box = ipywidgets.HBox([self._button, self._status])

    def load(self, state: Mapping[str, Any], progress: Callable[[float, str], None]) -> sp.csr_array:
        """Return the matrix that ``state`` names; the last one is kept.

        Raises
        ------
        ValueError : the file is malformed, too large, or was never uploaded to this page.
        """
        key = self._key(state)
        if self._loaded is None or self._loaded[0] != key:
            progress(0.0, "Loading the matrix")
            self._loaded = (key, self._read(state))
        return self._loaded[1]

    def steer(self, view: Any) -> None:
        """Let an uploaded file become the view's matrix; the view has this desk's knobs."""

        def uploaded(change):
            if change["new"]:
                file = change["new"][0]
                self._file = (file["name"], bytes(file["content"]))
                self._say(f"{file['name']}, {file['size']:,} bytes")
                view.matrix = UPLOAD
                view.refresh()

        self._button.observe(uploaded, "value")

    def _key(self, state) -> tuple:
        if state["matrix"] == UPLOAD:
            return (UPLOAD, self._file)
        return (state["matrix"], *self._options(state).items())

    def _options(self, state) -> dict[str, int]:
        options = OPTIONS.get(state["matrix"])
        return options(state["size"], state["seed"]) if options else {}

    def _read(self, state) -> sp.csr_array:
        if state["matrix"] != UPLOAD:
            return MATRICES[state["matrix"]].load(**self._options(state))
        if self._file is None:
            raise ValueError("This link shows an uploaded file, which stayed with its owner; upload it here to see it.")
        return read_matrix_market(self._file[1], max_file_bytes=LARGEST_UPLOAD_BYTES)

    def _say(self, text: str) -> None:
        self._status.value = f'<span role="status">{html.escape(text)}</span>'
