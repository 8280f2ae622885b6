"""Pictures for the gallery's cards, drawn without a browser: a file, a matrix's pattern, or a record's numbers."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from html import escape
from pathlib import Path

from workbench.app.gallery import records_of
from workbench.app.shelf import find, shelf

WIDTH, HEIGHT = 320, 160
INK, SOFT, PAPER = "#0b5f8a", "#7fa6ba", "#f2f5f7"
MIMES = {".svg": "image/svg+xml", ".png": "image/png"}
_drawn: OrderedDict = OrderedDict()


@dataclass(frozen=True)
class Picture:
    mime: str
    content: bytes


def thumbnail(folder: Path, kind: str, name: str) -> Picture:
    """Return the picture of one card; what cannot be drawn becomes a plain tile with the name."""
    asked = (str(folder), kind, name)
    if asked not in _drawn:
        try:
            _drawn[asked] = _draw(folder, kind, name)
        except Exception:
            return _svg(_tile(name))
        if len(_drawn) > 200:
            _drawn.popitem(last=False)
    return _drawn[asked]


def _draw(folder: Path, kind: str, name: str) -> Picture:
    notebook = next((n for n in shelf(folder) if (n.kind, n.name) == (kind, name)), None)
    wanted = notebook.thumbnail if notebook else ""
    if wanted.startswith("matrix:"):
        return _svg(_pattern(wanted.removeprefix("matrix:")))
    if wanted and Path(wanted).suffix in MIMES and find(folder, kind, name):
        file = ((folder / notebook.path).parent / wanted).resolve()
        if file.is_relative_to(folder.resolve()):
            return Picture(MIMES[file.suffix], file.read_bytes())
    papers = [name] if kind == "papers" else list(notebook.papers if notebook else ())
    rows = [row for key in papers for record in records_of(key) for row in record["rows"]]
    return _svg(_bars(rows) or _tile(notebook.title if notebook else name))


def _svg(body: str) -> Picture:
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>{body}</svg>'
    )
    return Picture("image/svg+xml", text.encode())


def _pattern(key: str) -> str:
    """Shade the nonzeros of one of the workbench's matrices, rows downward, in 64 x 64 squares."""
    from kernels.raster import raster
    from workbench.data.matrices import MATRICES

    matrix = MATRICES[key].load()
    m, n = matrix.shape
    squares = 64
    counts = raster(matrix, window=(0, m, 0, n), shape=(min(squares, m), min(squares, n)))
    side = HEIGHT / max(counts.shape)
    top = math.log1p(float(counts.max())) or 1.0
    left = (WIDTH - side * counts.shape[1]) / 2
    return "".join(
        f'<rect x="{left + j * side:.1f}" y="{i * side:.1f}" width="{side:.2f}" height="{side:.2f}" '
        f'fill="{INK}" opacity="{0.15 + 0.85 * math.log1p(float(counts[i, j])) / top:.2f}"/>'
        for i, j in zip(*counts.nonzero(), strict=True)
    )


def _bars(rows: list[dict]) -> str:
    """Draw the quantity with the most rows as bars, largest scale at full width; empty without two numbers."""
    by_quantity: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        value = row.get("value")
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
            by_quantity.setdefault((row["quantity"], row.get("unit", "")), []).append(row)
    if not by_quantity:
        return ""
    (quantity, unit), chosen = max(by_quantity.items(), key=lambda item: len(item[1]))
    chosen = chosen[:6]
    if len(chosen) < 2:
        return ""
    largest = max(row["value"] for row in chosen)
    shown = [f'<text x="12" y="22" font-size="13" fill="#222">{escape(quantity)} [{escape(unit)}]</text>']
    step = (HEIGHT - 40) / len(chosen)
    for number, row in enumerate(chosen):
        y = 32 + number * step
        label = next((str(v) for k, v in row.items() if isinstance(v, str) and k not in NOT_LABELS), "")
        width = 180 * row["value"] / largest
        shown.append(
            f'<rect x="12" y="{y:.0f}" width="{width:.1f}" height="{step * 0.7:.0f}" fill="{INK}"/>'
            f'<text x="{18 + width:.0f}" y="{y + step * 0.55:.0f}" font-size="11" fill="#222">'
            f"{escape(label[:14])} {row['value']:.3g}</text>"
        )
    return "".join(shown)


NOT_LABELS = {"quantity", "unit", "kind"}


def _tile(name: str) -> str:
    words = name.replace("_", " ").split("/")[-1]
    squares = "".join(
        f'<rect x="{130 + 12 * i}" y="{36 + 12 * j}" width="9" height="9" fill="{INK if i == j else SOFT}"/>'
        for i in range(5)
        for j in range(5)
        if (i * j + i + j) % 3 == 0 or i == j
    )
    return f'{squares}<text x="160" y="130" font-size="15" text-anchor="middle" fill="#222">{escape(words[:36])}</text>'
