"""Two pens that draw the same shapes, one as SVG and one as PNG; lengths are in pixels of the PNG."""

import base64
import html
import unicodedata
from functools import cache
from typing import Literal, Protocol

import numpy as np

from widgets import theme
from widgets.canvas import image

Anchor = Literal["start", "middle", "end"]
FONTS = ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "arial.ttf", "Helvetica.ttc")
_PLAIN = {"×": "x", "–": "-", "—": "-", "−": "-", "≤": "<=", "≥": ">=", "·": ".", "“": '"', "”": '"', "’": "'"}


class Pen(Protocol):
    """What a picture is drawn with."""

    def box(self, x: float, y: float, w: float, h: float, *, fill="", line="", opacity=1.0, thick=1.0) -> None:
        """Draw a rectangle: filled, outlined or both."""
        ...

    def text(self, x: float, y: float, words: str, *, size: float, fill: str, anchor: Anchor = "start") -> None:
        """Write one line whose baseline is at ``y``."""
        ...

    def pixels(self, x: float, y: float, rgb: np.ndarray, across: int, down: int) -> None:
        """Draw uint8 (h, w, 3) pixels, each ``across`` x ``down`` large."""
        ...


class SvgPen:
    """Draws as SVG, half as large on a screen, with text as text."""

    def __init__(self, width: float, height: float, title: str, alt: str):
        font = html.escape(theme.FONT.replace('"', "'"))
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width / 2:g}" height="{height / 2:g}" '
            f'viewBox="0 0 {width:g} {height:g}" role="img" font-family="{font}">'
            f"<title>{html.escape(title)}</title><desc>{html.escape(alt)}</desc>"
        ]

    def box(self, x, y, w, h, *, fill="", line="", opacity=1.0, thick=1.0):
        drawn = f'fill="{fill or "none"}"' + (f' stroke="{line}" stroke-width="{thick:g}"' if line else "")
        drawn += f' opacity="{opacity:g}"' if opacity < 1 else ""
        self._parts.append(f'<rect x="{x:.2f}" y="{y:.2f}" width="{w:.2f}" height="{h:.2f}" {drawn}/>')

    def text(self, x, y, words, *, size, fill, anchor="start"):
        self._parts.append(
            f'<text x="{x:.2f}" y="{y:.2f}" font-size="{size:g}" fill="{fill}" text-anchor="{anchor}">'
            f"{html.escape(words)}</text>"
        )

    def pixels(self, x, y, rgb, across, down):
        content = base64.b64encode(image.png(rgb)).decode()
        h, w = rgb.shape[:2]
        self._parts.append(
            f'<image x="{x:.2f}" y="{y:.2f}" width="{w * across}" height="{h * down}" preserveAspectRatio="none" '
            f'style="image-rendering:pixelated" href="data:image/png;base64,{content}"/>'
        )

    def content(self) -> bytes:
        """Return the file."""
        return "".join([*self._parts, "</svg>"]).encode()


class PngPen:
    """Draws as PNG."""

    def __init__(self, width: float, height: float):
        from PIL import Image, ImageDraw

        self._image = Image.new("RGB", (round(width), round(height)))
        self._draw = ImageDraw.Draw(self._image, "RGBA")

    def box(self, x, y, w, h, *, fill="", line="", opacity=1.0, thick=1.0):
        def shade(colour):
            return (*theme.rgb(colour), round(255 * opacity)) if colour else None

        left, top = round(x), round(y)
        corners = (left, top, max(left, round(x + w) - 1), max(top, round(y + h) - 1))
        self._draw.rectangle(corners, fill=shade(fill), outline=shade(line), width=max(1, round(thick)))

    def text(self, x, y, words, *, size, fill, anchor="start"):
        font, has_all = _font(round(size))
        words = words if has_all else _in_ascii(words)
        self._draw.text(
            (x, y), words, font=font, fill=fill, anchor={"start": "ls", "middle": "ms", "end": "rs"}[anchor]
        )

    def pixels(self, x, y, rgb, across, down):
        from PIL import Image

        self._image.paste(Image.fromarray(rgb.repeat(down, axis=0).repeat(across, axis=1)), (round(x), round(y)))

    def content(self) -> bytes:
        """Return the file."""
        return image.png(np.asarray(self._image))


@cache
def _font(size: int):
    """Return a font, and whether it has more than ASCII letters: this machine's, else the one inside Pillow."""
    from PIL import ImageFont

    for name in FONTS:
        try:
            return ImageFont.truetype(name, size), True
        except OSError:
            continue
    return ImageFont.load_default(size), False


def _in_ascii(words: str) -> str:
    plain = "".join(_PLAIN.get(letter, letter) for letter in words)
    return unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
