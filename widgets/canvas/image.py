"""Pixels to files without an imaging library: PNG by zlib, SVG by hand."""

import base64
import html
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from kernels.raster import bin_edges


def levels(counts: np.ndarray, areas: np.ndarray, top: float | None = None) -> tuple[np.ndarray, float]:
    """Return shade levels (uint8, 0 only where nothing is) and the density that has level 255.

    Levels rise with the square root of the density, so that sparse regions stay apart from empty ones. The largest
    density has level 255, unless ``top`` says which has; what is denser has it, too.
    """
    density = counts / np.maximum(areas, 1)
    top = float(density.max(initial=0.0)) if top is None else top
    if top == 0:
        return np.zeros(counts.shape, np.uint8), 0.0
    shades = 1 + np.rint(254 * np.sqrt(np.minimum(density / top, 1)))
    return np.where(counts > 0, shades, 0).astype(np.uint8), top


def strip(sums: Sequence[int], first: int, end: int) -> np.ndarray:
    """Return the length of each bar of a marginal strip, float64 from 0 to 1: means over bins, the largest 1.

    Bins of rows first .. end - 1 differ by one row, so bars of sums would show bands that are not in the matrix.

    Parameters
    ----------
    sums : entries in every bin of rows (or columns).
    """
    means = np.asarray(sums) / np.maximum(np.diff(bin_edges(end - first, len(sums))), 1)
    return means / max(float(means.max(initial=0.0)), 1e-300)


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
    left, top = 70, 60
    r0, r1, c0, c1 = window
    image = base64.b64encode(png(rgb)).decode()
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 70:g}" '
        f'height="{top + height + 70:g}" role="img" font-family="{html.escape(font)}" font-size="13">',
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
    right, below = left + width + 6, top + height + 6
    sides = [f"M{right:g} {top}", f"M{left} {below:g}"]
    for i, bar in enumerate(strip(row_sums, r0, r1)):  # outlines of whole strips: no seams between bars
        sides[0] += f"H{right + 40 * bar:.2f}V{top + (i + 1) * height / h:.2f}"
    for j, bar in enumerate(strip(column_sums, c0, c1)):
        sides[1] += f"V{below + 40 * bar:.2f}H{left + (j + 1) * width / w:.2f}"
    ends = (f"H{right:g}Z", f"V{below:g}Z")
    parts += [f'<path d="{side}{end}" fill="{colours["accent"]}"/>' for side, end in zip(sides, ends, strict=True)]
    return "".join([*parts, "</svg>"]).encode()
