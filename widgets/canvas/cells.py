"""A small picture of classes: every cell one of a few colours, some of them framed, values written where there is room.

For matrices whose every cell matters (a step of a dataflow, a hash table), up to 512 x 512 cells; larger matrices are
binned first. One byte a cell travels.
"""

from collections.abc import Sequence
from pathlib import Path

import anywidget
import numpy as np
import traitlets

from widgets import theme
from widgets.canvas import sheet

_HERE = Path(__file__).parent
MAX_SIDE = 512


class CellImage(anywidget.AnyWidget):
    """Draws a uint8 array of classes; arrow keys and the pointer read single cells.

    Parameters
    ----------
    title : what the picture is, shown above it and used in file names.
    alt : what it shows, in words.
    """

    _esm = theme.PANE + (_HERE / "cells.js").read_text(encoding="utf-8")
    _css = theme.css() + (_HERE / "cells.css").read_text(encoding="utf-8")

    title = traitlets.Unicode("").tag(sync=True)
    alt = traitlets.Unicode("").tag(sync=True)
    picture = traitlets.Dict().tag(sync=True)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._cells = np.zeros((0, 0), np.uint8)

    def show(
        self,
        cells: np.ndarray,
        palette: Sequence[str],
        names: Sequence[str],
        *,
        shape: tuple[int, int] | None = None,
        frames: Sequence[tuple[int, int]] = (),
        frame_colour: str = "#000000",
        texts: Sequence[tuple[int, int, str]] = (),
        axes: tuple[str, str] = ("row", "column"),
        title: str = "",
        alt: str = "",
    ) -> None:
        """Draw ``cells``.

        Parameters
        ----------
        cells : uint8[h, w], h and w at most 512; class of each cell.
        palette, names : colour and meaning of each class; nameless classes stay out of the legend.
        shape : rows and columns that the picture stands for; default (h, w).
        frames : cells with a frame around them, as (row, column) of the picture.
        texts : (row, column, text) written into cells that are large enough.
        axes : what a row and a column are called.
        """
        cells = np.ascontiguousarray(cells, dtype=np.uint8)
        if cells.ndim != 2 or max(cells.shape, default=0) > MAX_SIDE:
            raise ValueError(f"CellImage.show: cells must be h x w with at most {MAX_SIDE} a side, got {cells.shape}")
        if cells.size and cells.max() >= len(palette):
            raise ValueError(f"CellImage.show: class {cells.max()} has no colour; palette has {len(palette)}")
        self._cells = cells
        with self.hold_sync():
            self.title, self.alt = title or self.title, alt
            self.picture = {
                "height": cells.shape[0],
                "width": cells.shape[1],
                "cells": cells.tobytes(),
                "palette": list(palette),
                "names": list(names),
                "shape": list(shape or cells.shape),
                "frames": [list(map(int, frame)) for frame in frames],
                "frameColour": frame_colour,
                "texts": [[int(r), int(c), text] for r, c, text in texts],
                "axes": list(axes),
            }

    @property
    def is_empty(self) -> bool:
        """Whether there is no cell to show."""
        return not self._cells.size

    def png(self, *, worded: bool = True) -> bytes:
        """Return the picture as a PNG with axes, legend and, if ``worded``, title and alternative text."""
        return sheet.png(self._sheet(), worded=worded)

    def svg(self) -> bytes:
        """Return the picture as an SVG with axes, legend, title and alternative text."""
        return sheet.svg(self._sheet())

    def _sheet(self) -> sheet.Sheet:
        picture = self.picture
        palette = np.array([theme.rgb(colour) for colour in picture["palette"]], np.uint8)
        (h, w), (rows, columns) = self._cells.shape, picture["shape"]
        down, across = rows / max(h, 1), columns / max(w, 1)
        frames = [(r * down, (r + 1) * down, c * across, (c + 1) * across) for r, c in picture["frames"]]
        named = zip(picture["palette"], picture["names"], strict=False)
        return sheet.Sheet(
            pixels=palette[self._cells] if self._cells.size else palette[:1][None],
            window=(0, rows, 0, columns),
            title=self.title,
            caption=self.alt,
            axes=tuple(picture["axes"]),
            appearance=self._appearance(),
            swatches=[(colour, name) for colour, name in named if name],
            frames=[(*frame, picture["frameColour"]) for frame in frames],
            texts=[(r, c, text, _on(palette[self._cells[r, c]])) for r, c, text in picture["texts"]],
            grid=1 if self._cells.shape == (rows, columns) else 0,
        )

    def _appearance(self) -> theme.Theme:
        """Tell which page the palette was chosen for: its empty cells have the page's colour."""
        empty = self.picture["palette"][0] if self.picture["palette"] else ""
        return "dark" if empty == theme.PALETTE["dark"]["plot"] else "light"


def _on(colour: np.ndarray) -> str:
    """Return black or white, whichever is legible on a colour."""
    return "#000000" if colour @ (0.299, 0.587, 0.114) > 140 else "#ffffff"
