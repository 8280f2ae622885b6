"""A small picture of classes: every cell one of a few colours, some of them framed, values written where there is room.

For matrices whose every cell matters (a step of a dataflow, a hash table), up to 512 x 512 cells; larger matrices are
binned first. One byte a cell travels.
"""

import base64
import html
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import anywidget
import numpy as np
import traitlets

from widgets import theme

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

    def png(self, side: int = 1024) -> bytes:
        """Return the picture as a PNG of about ``side`` pixels on its longer side, whole pixels a cell."""
        return _png(self._pixels(side))

    def svg(self) -> bytes:
        """Return the picture as an SVG with the cells as an embedded image and the texts as text."""
        pixels = self._pixels(1024)
        height, width = pixels.shape[:2]
        scale = self._scale(1024)
        image = base64.b64encode(_png(pixels)).decode()
        texts = "".join(
            f'<text x="{(c + 0.5) * scale}" y="{(r + 0.5) * scale}" font-family="sans-serif" text-anchor="middle" '
            f'dominant-baseline="central" font-size="{0.4 * scale:.3g}">{html.escape(text)}</text>'
            for r, c, text in self.picture.get("texts", ())
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
            f"<title>{html.escape(self.title)}</title><desc>{html.escape(self.alt)}</desc>"
            f'<image width="{width}" height="{height}" href="data:image/png;base64,{image}"/>{texts}</svg>'
        ).encode()

    def _scale(self, side):
        return max(1, side // max(*self._cells.shape, 1))

    def _pixels(self, side):
        palette = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in self.picture["palette"]], np.uint8)
        scale = self._scale(side)
        pixels = palette[self._cells].repeat(scale, 0).repeat(scale, 1)
        colour = [int(self.picture["frameColour"][i : i + 2], 16) for i in (1, 3, 5)]
        edge = max(1, scale // 10)
        for r, c in self.picture["frames"]:
            block = pixels[r * scale : (r + 1) * scale, c * scale : (c + 1) * scale]
            block[:edge] = block[-edge:] = block[:, :edge] = block[:, -edge:] = colour
        return pixels


def _png(pixels):
    height, width = pixels.shape[:2]
    lines = np.zeros((height, 1 + 3 * width), np.uint8)
    lines[:, 1:] = pixels.reshape(height, 3 * width)

    def chunk(tag, content):
        return struct.pack(">I", len(content)) + tag + content + struct.pack(">I", zlib.crc32(tag + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", max(width, 1), max(height, 1), 8, 2, 0, 0, 0))
    if not pixels.size:
        lines = np.zeros((1, 4), np.uint8)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(lines.tobytes(), 6)) + chunk(b"IEND", b"")
