"""A picture as it is printed: pixels with numbered axes, a title, a caption and a legend, as SVG or PNG."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from widgets import theme
from widgets.canvas.pens import Pen, PngPen, SvgPen

SIDE = 1024  # pixels of the longer side of the area
_SMALL, _TEXT, _TITLE = 22, 24, 30  # sizes of letters
_LETTER = 0.6  # mean width of a letter, of its size
_LEAST_LEGIBLE = 16
LEAST_GRID = 8  # pixels between two lines
_STRIP = 100


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A colour scale.

    Parameters
    ----------
    colours : uint8 (n, 3), from the least to the most.
    ticks : (place on the scale from 0 to 1, what stands there).
    label : what the numbers are.
    """

    colours: np.ndarray
    ticks: Sequence[tuple[float, str]]
    label: str


@dataclass(frozen=True, kw_only=True)
class Strips:
    """Bars beside and below a picture: one for each of its rows and columns.

    Parameters
    ----------
    rows, columns : float, one length per row and column of pixels.
    unit : what is counted, in the plural.
    """

    rows: np.ndarray
    columns: np.ndarray
    unit: str


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """All that is printed of one picture.

    Parameters
    ----------
    pixels : uint8 (h, w, 3).
    window : (r0, r1, c0, c1), the rows and columns that they stand for.
    title, caption : above and below the picture.
    axes : what rows and columns are called.
    swatches : (colour, what it means).
    scale, strips : None for none.
    bands : (r0, r1, c0, c1, colour), parts of the window that are tinted.
    frames : (r0, r1, c0, c1, colour), parts of the window with a line around them.
    texts : (row, column, words, colour), written into single cells where they are large enough.
    grid : rows and columns between the lines of a grid, drawn where they are far enough apart; 0 for none.
    """

    pixels: np.ndarray
    window: tuple[int, int, int, int]
    title: str
    caption: str
    axes: tuple[str, str]
    appearance: theme.Theme
    swatches: Sequence[tuple[str, str]] = ()
    scale: Scale | None = None
    strips: Strips | None = None
    bands: Sequence[tuple[float, float, float, float, str]] = ()
    frames: Sequence[tuple[float, float, float, float, str]] = ()
    texts: Sequence[tuple[int, int, str, str]] = ()
    grid: int = 0


def png(sheet: Sheet, *, worded: bool = True) -> bytes:
    """Return the sheet as PNG; ``worded`` is whether title and caption are in it."""
    layout = _Layout(sheet, worded)
    pen = PngPen(layout.width, layout.height)
    _draw(sheet, layout, pen)
    return pen.content()


def svg(sheet: Sheet) -> bytes:
    """Return the sheet as SVG."""
    layout = _Layout(sheet, worded=True)
    pen = SvgPen(layout.width, layout.height, sheet.title, sheet.caption)
    _draw(sheet, layout, pen)
    return pen.content()


def ticks(first: int, end: int, most: int = 6) -> list[int]:
    """Return round numbers in [first, end), at most ``most`` of them, and the first where there is none."""
    extent = max(1, end - first)
    power = 10 ** max(0, math.floor(math.log10(extent / most)))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if extent / (power * factor) <= most)
    return list(range(-(-first // step) * step, end, step)) or [first]


class _Layout:
    """Where the parts of a sheet are."""

    def __init__(self, sheet: Sheet, worded: bool):
        h, w = sheet.pixels.shape[:2]
        self.window = r0, r1, c0, c1 = sheet.window
        aspect = min(1.2, max(0.2, (r1 - r0) / max(1, c1 - c0)))
        self.down = max(1, round(SIDE * min(1.0, aspect) / h))
        self.across = max(1, round(SIDE * min(1.0, 1 / aspect) / w))
        self.area_w, self.area_h = w * self.across, h * self.down
        numbers = max(len(f"{x:,}") for x in (r0, r1))
        self.left = round(30 + _LETTER * _TEXT * max(numbers, len(sheet.axes[0])))
        strip = _STRIP + 20 if sheet.strips else 0
        self.width = self.left + self.area_w + (270 if sheet.strips else 60)
        letters = int((self.width - 60) / (_LETTER * _TITLE))
        self.title = textwrap.wrap(sheet.title[:1].upper() + sheet.title[1:], letters) if worded else []
        letters = int((self.width - 60) / (_LETTER * _SMALL))
        self.caption = textwrap.wrap(sheet.caption[:1].upper() + sheet.caption[1:], letters) if worded else []
        self.top = 30 + 38 * len(self.title) + 80
        self.legend = self.top + self.area_h + strip + 40
        self.swatches = _swatch_rows(sheet.swatches, self.width - 60)
        self.caption_top = self.legend + 36 * len(self.swatches) + (100 if sheet.scale else 0) + 10
        self.height = self.caption_top + 30 * len(self.caption) + 20

    def x(self, column: float) -> float:
        """Return where a column begins."""
        c0, c1 = self.window[2:]
        return self.left + (column - c0) * self.area_w / max(1, c1 - c0)

    def y(self, row: float) -> float:
        """Return where a row begins."""
        r0, r1 = self.window[:2]
        return self.top + (row - r0) * self.area_h / max(1, r1 - r0)


def _swatch_rows(swatches, width):
    """Return the swatches in rows that fit."""
    rows, used = [], width + 1.0
    for colour, words in swatches:
        needed = 80 + _LETTER * _TEXT * len(words)
        if used + needed > width:
            rows.append([])
            used = 0.0
        rows[-1].append((used, colour, words))
        used += needed
    return rows


def _draw(sheet: Sheet, layout: _Layout, pen: Pen):
    colours = theme.PALETTE[sheet.appearance]
    ink, muted = colours["ink"], colours["muted"]
    pen.box(0, 0, layout.width, layout.height, fill=colours["paper"])
    for line, words in enumerate(layout.title):
        pen.text(30, 52 + 38 * line, words, size=_TITLE, fill=ink)
    pen.pixels(layout.left, layout.top, sheet.pixels, layout.across, layout.down)
    _draw_marks(sheet, layout, pen, colours)
    pen.box(layout.left, layout.top, layout.area_w, layout.area_h, line=colours["control"], thick=2)
    _draw_axes(sheet, layout, pen, muted)
    if sheet.strips:
        _draw_strips(sheet.strips, layout, pen, colours)
    for line, row in enumerate(layout.swatches):
        for x, colour, words in row:
            y = layout.legend + 36 * line
            pen.box(30 + x, y, 28, 24, fill=colour, line=colours["control"])
            pen.text(30 + x + 38, y + 21, words, size=_TEXT, fill=ink)
    if sheet.scale:
        _draw_scale(sheet.scale, layout, pen, colours)
    for line, words in enumerate(layout.caption):
        pen.text(30, layout.caption_top + 24 + 30 * line, words, size=_SMALL, fill=muted)


def _draw_axes(sheet, layout, pen, fill):
    r0, r1, c0, c1 = sheet.window
    rows, columns = sheet.axes
    pen.text(layout.left - 14, layout.top - 50, rows, size=_TEXT, fill=fill, anchor="end")
    pen.text(layout.left + layout.area_w / 2, layout.top - 50, columns, size=_TEXT, fill=fill, anchor="middle")
    for row in ticks(r0, r1):
        y = layout.y(row + 0.5)
        pen.box(layout.left - 8, y - 1, 8, 2, fill=fill)
        pen.text(layout.left - 14, y + 8, f"{row:,}", size=_TEXT, fill=fill, anchor="end")
    for column in ticks(c0, c1):
        x = layout.x(column + 0.5)
        pen.box(x - 1, layout.top - 8, 2, 8, fill=fill)
        pen.text(x, layout.top - 14, f"{column:,}", size=_TEXT, fill=fill, anchor="middle")


def _draw_marks(sheet, layout, pen, colours):
    r0, r1, c0, c1 = sheet.window
    cell = min(layout.area_h / max(1, r1 - r0), layout.area_w / max(1, c1 - c0))
    if sheet.grid and cell * sheet.grid >= LEAST_GRID:
        for row in range(-(-(r0 + 1) // sheet.grid) * sheet.grid, r1, sheet.grid):
            pen.box(layout.left, layout.y(row), layout.area_w, 1, fill=colours["line"])
        for column in range(-(-(c0 + 1) // sheet.grid) * sheet.grid, c1, sheet.grid):
            pen.box(layout.x(column), layout.top, 1, layout.area_h, fill=colours["line"])
    for x, y, w, h, colour in _inside(sheet.bands, layout):
        pen.box(x, y, w, h, fill=colour, opacity=0.35)
    for x, y, w, h, colour in _inside(sheet.frames, layout):
        pen.box(x, y, w, h, line=colour, thick=min(max(3, cell / 12), 10))
    for row, column, words, colour in sheet.texts:
        size = cell * min(0.5, 1.4 / max(1, len(words)))
        if size >= _LEAST_LEGIBLE and r0 <= row < r1 and c0 <= column < c1:
            x, y = layout.x(column + 0.5), layout.y(row + 0.5) + 0.36 * size
            pen.text(x, y, words, size=size, fill=colour, anchor="middle")


def _inside(parts, layout):
    """Return the parts of the window that are in view, as x, y, width, height, colour."""
    r0, r1, c0, c1 = layout.window
    for a, b, c, d, colour in parts:
        a, b, c, d = max(a, r0), min(b, r1), max(c, c0), min(d, c1)
        if a < b and c < d:
            x, y = layout.x(c), layout.y(a)
            yield x, y, max(4, layout.x(d) - x), max(4, layout.y(b) - y), colour


def _draw_strips(strips, layout, pen, colours):
    left, top = layout.left + layout.area_w + 12, layout.top + layout.area_h + 12
    for lengths, axis in ((strips.rows, 0), (strips.columns, 1)):
        most = max(lengths.max(initial=0), 1e-12)
        thick = (layout.down, layout.across)[axis]
        for place in np.flatnonzero(lengths):
            length, at = _STRIP * lengths[place] / most, place * thick
            if axis:
                pen.box(layout.left + at, top, thick, length, fill=colours["accent"])
            else:
                pen.box(left, layout.top + at, length, thick, fill=colours["accent"])
    for y, lengths, line in ((layout.top - 40, strips.rows, "row"), (top + 24, strips.columns, "column")):
        pen.text(left, y, f"{strips.unit} per {line},", size=_SMALL, fill=colours["muted"])
        pen.text(left, y + 26, f"up to {lengths.max(initial=0):.4g}", size=_SMALL, fill=colours["muted"])


def _draw_scale(scale, layout, pen, colours):
    width, top = 560, layout.legend + 36 * len(layout.swatches)
    pen.text(30, top + 22, scale.label, size=_TEXT, fill=colours["ink"])
    steps = np.linspace(0, len(scale.colours) - 1, width).round().astype(int)
    pen.pixels(40, top + 36, scale.colours[steps][None], 1, 22)
    pen.box(40, top + 36, width, 22, line=colours["control"])
    for place, words in scale.ticks:
        pen.box(39 + place * width, top + 58, 2, 8, fill=colours["muted"])
        pen.text(40 + place * width, top + 88, words, size=_SMALL, fill=colours["muted"], anchor="middle")
