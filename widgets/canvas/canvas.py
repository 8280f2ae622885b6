"""A matrix of any size as pixels: zoom, pan, read-out, marginal strips; every zoom is binned anew. See README.md."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

from kernels.raster import bin_areas, bin_edges
from widgets import theme
from widgets.canvas import image, sheet
from widgets.canvas.source import Source, Window

_HERE = Path(__file__).parent
MARKS = 5000
EXPORT_PIXELS = (1024, 1024)
SCALE_PARTS = (512, 512)  # of a window: the densest of them ends its colour scale, whatever the size of the screen


class RasterCanvas(anywidget.AnyWidget):
    """Draws a `Source`; sends pixels, never entries.

    Attributes
    ----------
    title, alt : name of the picture, and what it shows, in words.
    unit, each : what the read-out counts, a plural, and how much of it one count is; the source says.
    window : [r0, r1, c0, c1], what is seen; changed by the reader and by you.
    block : side of the blocks drawn as a grid and named in the read-out; 0 for none.
    marks : ``{"rows": [...], "columns": [...], "cells": [[row, column], ...]}`` drawn over the picture; at most 5,000
        cells.
    brushable : whether rows and columns can be picked on the marginal strips.
    brush_rows, brush_columns : [first, end] picked there, or [].
    scale_top : units per position that have the last colour; 0 for the densest part of what is seen (`densest`).
    scale_note : what to say of the colour scale, such as "locked".
    axes, marks_are : what rows and columns are called in exported pictures, and what is marked in them.
    """

    _esm = theme.PANE + "".join((_HERE / name).read_text(encoding="utf-8") for name in ("paint.js", "canvas.js"))
    _css = theme.css() + (_HERE / "canvas.css").read_text(encoding="utf-8")

    title = traitlets.Unicode("").tag(sync=True)
    alt = traitlets.Unicode("").tag(sync=True)
    size = traitlets.List(traitlets.Int(), [0, 0]).tag(sync=True)
    window = traitlets.List(traitlets.Int(), [0, 0, 0, 0]).tag(sync=True)
    block = traitlets.Int(0).tag(sync=True)
    marks = traitlets.Dict().tag(sync=True)
    brushable = traitlets.Bool(True).tag(sync=True)
    brush_rows = traitlets.List(traitlets.Int()).tag(sync=True)
    brush_columns = traitlets.List(traitlets.Int()).tag(sync=True)
    version = traitlets.Int(0).tag(sync=True)
    unit = traitlets.Unicode("entries").tag(sync=True)
    each = traitlets.Float(1.0).tag(sync=True)
    palettes = traitlets.Dict(traitlets.Bytes()).tag(sync=True)
    scale_top = traitlets.Float(0.0).tag(sync=True)
    scale_note = traitlets.Unicode("").tag(sync=True)

    def __init__(self, **kwargs):
        palettes = {name: theme.colour_map(name).tobytes() for name in ("light", "dark")}
        super().__init__(palettes=palettes, **kwargs)
        self._source: Source | None = None
        self._densest: tuple[Any, float] = (None, 0.0)
        self._on_pick: list[Callable[[int, int], None]] = []
        self.theme: theme.Theme = "light"
        self.axes, self.marks_are = ("row", "column"), "marked"
        self.on_msg(self._receive)

    def show(self, source: Source, *, alt: str = "", window: Window | None = None, keep_window: bool = False) -> None:
        """Draw ``source``: all of it, or ``window``, or the part seen before where that still exists."""
        same = self._source is not None and self._source.shape == source.shape
        self._source = source
        rows, columns = source.shape
        if window is None and keep_window and same:
            window = self._seen()
        with self.hold_sync():
            self.size = [rows, columns]
            self.window = list(clip_window(window or (0, rows, 0, columns), source.shape))
            self.alt = alt
            self.unit, self.each = getattr(source, "unit", "entries"), getattr(source, "each", 1.0)
            self.version += 1

    def mark(self, rows=(), columns=(), cells=()) -> None:
        """Point out rows, columns and cells (row, column); earlier marks go."""
        cells = np.asarray(cells, dtype=np.int64).reshape(-1, 2)
        if len(cells) > MARKS:
            raise ValueError(f"RasterCanvas.mark: at most {MARKS:,} cells, got {len(cells):,}; aggregate them.")
        self.marks = {"rows": [int(r) for r in rows], "columns": [int(c) for c in columns], "cells": cells.tolist()}

    def on_pick(self, callback: Callable[[int, int], None]) -> None:
        """Call ``callback(row, column)`` when a reader clicks, or presses Enter on, a position."""
        self._on_pick.append(callback)

    def query(self, r0: int, r1: int, c0: int, c1: int) -> dict:
        """Return what the read-out says of a window: entries, and value, block and old numbers where they apply.

        Returns
        -------
        ``rows``, ``columns`` ([first, end]), ``count``; for one position also ``value`` (None where nothing is
        stored), if reordered ``names`` and, if the source has them, ``labels`` and the word ``between`` them; with a
        block grid and a window inside one block ``block`` ([row, column], entries in it).
        """
        source = self._shown()
        answer = {"rows": [r0, r1], "columns": [c0, c1], "count": int(source.counts((r0, r1, c0, c1), (1, 1)).sum())}
        if r1 - r0 == c1 - c0 == 1:
            value = source.value(r0, c0)
            answer["value"] = value if value is None or isinstance(value, (int, float)) else str(value)
            if source.row_names is not None and source.column_names is not None:
                answer["names"] = [int(source.row_names[r0]), int(source.column_names[c0])]
            labels, others = getattr(source, "labels", ()), getattr(source, "column_labels", ())
            if r0 < len(labels) and c0 < len(others or labels):
                answer["labels"] = [labels[r0], (others or labels)[c0]]
                answer["between"] = "in" if others else "reads"
        if self.block > 0 and r0 // self.block == (r1 - 1) // self.block and c0 // self.block == (c1 - 1) // self.block:
            i, j = r0 // self.block, c0 // self.block
            rows, columns = source.shape
            inside = (
                i * self.block,
                min(rows, (i + 1) * self.block),
                j * self.block,
                min(columns, (j + 1) * self.block),
            )
            answer["block"] = [i, j, int(source.counts(inside, (1, 1)).sum())]
        return answer

    def densest(self, window: Window | None = None) -> float:
        """Return the largest density of the parts of a window, in units per position: the same on every screen.

        The window, what is seen unless given, is cut into 512 x 512 parts, or into its positions if it has fewer.
        """
        window = window or self._seen()
        if self._densest[0] != (self.version, window):
            areas = bin_areas(window, SCALE_PARTS)
            density = self._shown().counts(window, SCALE_PARTS) / np.maximum(areas, 1)
            self._densest = (self.version, window), float(density.max(initial=0.0)) * self.each
        return self._densest[1]

    def tile(self, window: Window, shape: tuple[int, int]) -> tuple[dict, list[bytes]]:
        """Return one picture as it travels: a header, and levels (or bits), row sums and column sums as bytes."""
        counts = self._shown().counts(window, shape)
        areas = bin_areas(window, shape)
        shades, top = image.levels(counts, areas)
        packed = bool(areas.max(initial=1) == 1 and counts.max(initial=0) <= 1)
        header = {"type": "tile", "window": list(window), "shape": list(counts.shape), "packed": packed}
        header |= {"total": int(counts.sum()), "top": top, "densest": self.densest(window), "version": self.version}
        pixels = np.packbits(counts.astype(bool), bitorder="little") if packed else shades
        row_sums, column_sums = counts.sum(axis=1, dtype=np.uint32), counts.sum(axis=0, dtype=np.uint32)
        return header, [pixels.tobytes(), row_sums.tobytes(), column_sums.tobytes()]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show: no source, or none of its positions holds anything."""
        return self._source is None or not self._source.nnz

    def png(self, *, worded: bool = True) -> bytes:
        """Return what is seen as a PNG with axes, legend and, if ``worded``, title and caption."""
        return sheet.png(self._sheet(), worded=worded)

    def svg(self) -> bytes:
        """Return what is seen as an SVG with axes, marginal strips, legend, title and caption."""
        return sheet.svg(self._sheet())

    def close(self) -> None:
        """Take the canvas off the page and let it be freed."""
        self.on_msg(self._receive, remove=True)
        self._on_pick.clear()
        self._source = None
        super().close()

    def _seen(self) -> Window:
        r0, r1, c0, c1 = self.window
        return r0, r1, c0, c1

    def _shown(self) -> Source:
        if self._source is None:
            raise ValueError("RasterCanvas: there is no picture yet; call show(source) first.")
        return self._source

    def _sheet(self) -> sheet.Sheet:
        source, window = self._shown(), self._seen()
        counts, areas = source.counts(window, EXPORT_PIXELS), bin_areas(window, EXPORT_PIXELS)
        if not counts.any() and not self.is_empty:
            raise ValueError(f"{self.title or 'The picture'}: nothing is stored in the part in view; zoom out.")
        top = (self.scale_top or self.densest()) / self.each
        shades, top = image.levels(counts, areas, top)
        if 0 in counts.shape:
            shades = np.zeros((1, 1), np.uint8)
        colours, p = theme.colour_map(self.theme), theme.PALETTE[self.theme]
        single = areas.max(initial=1) == 1 and counts.max(initial=0) <= 1 and self.unit == "entries"
        least, most = ("#" + bytes(colours[level].tolist()).hex() for level in (0, 255))
        swatches = [(least, "no entry" if self.unit == "entries" else "zero"), *([(most, "entry")] if single else ())]
        bands, frames = self._marked()
        swatches += [(p["highlight"], self.marks_are)] * bool(bands or frames)
        rows, columns = (areas.sum(axis=axis) for axis in (1, 0))
        means = [self.each * counts.sum(axis=1) / np.maximum(rows / max(1, window[3] - window[2]), 1)]
        means += [self.each * counts.sum(axis=0) / np.maximum(columns / max(1, window[1] - window[0]), 1)]
        return sheet.Sheet(
            pixels=colours[shades],
            window=window,
            title=self.title,
            caption=self.alt,
            axes=self.axes,
            appearance=self.theme,
            swatches=swatches,
            scale=None if single or not top else _scale(top * self.each, self.unit, colours[1:]),
            strips=sheet.Strips(rows=means[0], columns=means[1], unit=self.unit),
            bands=bands,
            frames=frames,
            grid=self.block,
        )

    def _marked(self):
        """Return what is marked or brushed: tinted bands and framed cells."""
        (m, n), colour = self.size, theme.PALETTE[self.theme]["highlight"]
        rows = [(row, row + 1) for row in self.marks.get("rows", ())] + [tuple(self.brush_rows)] * bool(self.brush_rows)
        columns = [(column, column + 1) for column in self.marks.get("columns", ())]
        columns += [tuple(self.brush_columns)] * bool(self.brush_columns)
        bands = [(a, b, 0, n, colour) for a, b in rows] + [(0, m, a, b, colour) for a, b in columns]
        return bands, [(r, r + 1, c, c + 1, colour) for r, c in self.marks.get("cells", ())]

    def _receive(self, _, content, buffers):
        if self._source is None:
            return
        match content.get("type"):
            case "tile":
                window = clip_window(content["window"], self._source.shape)
                height, width = (min(2048, max(1, int(side))) for side in content["shape"])
                self.send(*self.tile(window, (height, width)))
            case "query":
                r0, r1, c0, c1 = clip_window(content["window"], self._source.shape)
                self.send({"type": "answer", "id": content["id"]} | self.query(r0, r1, c0, c1))
            case "pick":
                for callback in list(self._on_pick):
                    callback(int(content["row"]), int(content["column"]))


def _scale(top: float, unit: str, colours: np.ndarray) -> sheet.Scale:
    """Return the colour scale of shades that rise with the square root of what a position holds."""
    places = (0, 0.25, 0.5, 0.75, 1)
    marks = [(place, f"{top * place**2:.3g}") for place in places]
    return sheet.Scale(colours=colours, ticks=marks, label=f"{unit} per position, on a square-root scale")


def clip_window(window, shape: tuple[int, int]) -> Window:
    """Return the window moved and cut to lie inside a matrix of ``shape``; at least one row and column if there are."""
    clipped = []
    for begin, end, size in ((window[0], window[1], shape[0]), (window[2], window[3], shape[1])):
        extent = min(size, max(1, int(end) - int(begin)))
        begin = min(max(0, int(begin)), size - extent)
        clipped += [begin, begin + extent]
    return tuple(clipped)


def bin_of(window: Window, shape: tuple[int, int], row: int, column: int) -> Window:
    """Return the window of the pixel that holds a position."""
    found = []
    for begin, end, bins, at in ((*window[:2], shape[0], row), (*window[2:], shape[1], column)):
        edges = begin + bin_edges(end - begin, bins)
        i = int(np.searchsorted(edges, at, side="right")) - 1
        found += [int(edges[i]), int(edges[i + 1])]
    return tuple(found)
