"""Shades of pixels, and pixels as a PNG file."""

import struct
import zlib

import numpy as np


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
