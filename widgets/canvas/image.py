"""Pixels to files without an imaging library: PNG by zlib, SVG by hand."""

import base64
import html
import struct
import zlib
from collections.abc import Sequence

import numpy as np


def levels(counts: np.ndarray, areas: np.ndarray) -> tuple[np.ndarray, float]:
    """Return shade levels (uint8, 0 only where nothing is) and the density that has level 255.

    Levels rise with the square root of the density, so that sparse regions stay apart from empty ones.
    """
    density = counts / np.maximum(areas, 1)
    top = float(density.max(initial=0.0))
    if top == 0:
        return np.zeros(counts.shape, np.uint8), 0.0
    return np.where(counts > 0, 1 + np.rint(254 * np.sqrt(density / top)), 0).astype(np.uint8), top


def png(rgb: np.ndarray) -> bytes:
    """Return uint8 RGB pixels (h, w, 3) as a PNG file."""
    h, w, _ = rgb.shape
    lines = np.zeros((h, 1 + 3 * w), np.uint8)
    lines[:, 1:] = rgb.reshape(h, 3 * w)

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)
    body = zlib.compress(lines.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def svg(
    rgb: np.ndarray,
    window: tuple[int, int, int, int],
    row_sums: Sequence[int],
    column_sums: Sequence[int],
    *,
    title: str,
    alt: str,
    colours: dict[str, str],
    font: str,
) -> bytes:
    """Return a figure: the pixels, scales of rows and columns, marginal strips, title and description."""
    h, w, _ = rgb.shape
    scale = 512 / max(h, w)
    width, height = w * scale, h * scale
    left, top, strip = 70, 60, 40
    r0, r1, c0, c1 = window
    image = base64.b64encode(png(rgb)).decode()
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + strip + 30:g}" '
        f'height="{top + height + strip + 30:g}" role="img" font-family="{html.escape(font)}" font-size="13">',
        f"<title>{html.escape(title)}</title><desc>{html.escape(alt)}</desc>",
        f'<rect width="100%" height="100%" fill="{colours["paper"]}"/>',
        f'<text x="{left}" y="20" font-size="15" fill="{colours["ink"]}">{html.escape(title)}</text>',
        f'<image x="{left}" y="{top}" width="{width:g}" height="{height:g}" preserveAspectRatio="none" '
        f'style="image-rendering:pixelated" href="data:image/png;base64,{image}"/>',
        f'<rect x="{left}" y="{top}" width="{width:g}" height="{height:g}" fill="none" stroke="{colours["control"]}"/>',
    ]
    text = f'fill="{colours["muted"]}"'
    parts += [
        f'<text x="{left}" y="{top - 8}" {text}>{c0}</text>',
        f'<text x="{left + width:g}" y="{top - 8}" text-anchor="end" {text}>{c1 - 1}</text>',
        f'<text x="{left - 8}" y="{top + 12}" text-anchor="end" {text}>{r0}</text>',
        f'<text x="{left - 8}" y="{top + height:g}" text-anchor="end" {text}>{r1 - 1}</text>',
    ]
    most_row, most_column = max(1, *row_sums, 1), max(1, *column_sums, 1)
    rows = "".join(
        f"M{left + width + 6:g} {top + (i + 0.5) * height / h:.2f}h{strip * s / most_row:.2f}"
        for i, s in enumerate(row_sums)
    )
    columns = "".join(
        f"M{left + (j + 0.5) * width / w:.2f} {top + height + 6:g}v{strip * s / most_column:.2f}"
        for j, s in enumerate(column_sums)
    )
    for path, thick in ((rows, height / h), (columns, width / w)):
        parts.append(f'<path d="{path}" stroke="{colours["accent"]}" stroke-width="{thick:.3f}" fill="none"/>')
    return "".join([*parts, "</svg>"]).encode()
