"""Pictures for the gallery's cards, drawn without a browser: a file, a matrix's pattern, or a record's numbers."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import parse_qsl

from workbench.app.gallery import records_of
from workbench.app.notebook_index import find, notebook_index

WIDTH, HEIGHT = 320, 160
INK, SOFT, PAPER, DARK = "#0b5f8a", "#7fa6ba", "#f2f5f7", "#222222"
BAR_WIDTH = 135
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
    notebook = next((n for n in notebook_index(folder) if (n.kind, n.name) == (kind, name)), None)
    wanted = notebook.thumbnail if notebook else ""
    if wanted.startswith("matrix:"):
        return _svg(_pattern(wanted.removeprefix("matrix:")))
    if wanted and Path(wanted).suffix in MIMES and find(folder, kind, name):
        file = ((folder / notebook.path).parent / wanted).resolve()
        if file.is_relative_to(folder.resolve()):
            return Picture(MIMES[file.suffix], file.read_bytes())
    papers = [name] if kind == "papers" else list(notebook.papers if notebook else ())
    named, _, labels = wanted.removeprefix("record:").partition("?") if wanted.startswith("record:") else [""] * 3
    experiment, _, quantity = named.partition("/")
    chosen = {label: choices.split("|") for label, choices in parse_qsl(labels)}
    rows = [
        {**row, "of": record["experiment"]}
        for key in papers
        for record in records_of(key)
        for row in record["rows"]
        if experiment in ("", record["experiment"]) and quantity in ("", row["quantity"])
        if all(str(row.get(label)) in choices for label, choices in chosen.items())
    ]
    return _svg(_bars(rows, chosen) or _tile(notebook.title if notebook else name))


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


def _bars(rows: list[dict], wanted: dict[str, list[str]]) -> str:
    """Draw rows as bars, the largest at full width; empty where there are none.

    A label with several choices in ``wanted`` names the bars; without one, rows that differ in one label only are
    looked for.
    """
    label = next((label for label, choices in wanted.items() if len(choices) > 1), None)
    if label:
        series = label, sorted(rows, key=lambda row: wanted[label].index(str(row[label])))
    else:
        series = max(_series(rows), key=_worth, default=None)
    if series is None or not series[1]:
        return ""
    label, chosen = series
    largest = max(row["value"] for row in chosen)
    unit = chosen[0]["unit"]
    title = chosen[0]["quantity"] if unit == "number" else f"{chosen[0]['quantity']} [{unit}]"
    shown = [
        f'<text x="12" y="22" font-size="13" fill="{DARK}">{escape(title[:34])}</text>'
        f'<text x="308" y="22" font-size="11" text-anchor="end" fill="{DARK}">{escape(chosen[0]["kind"])}</text>'
    ]
    step = (HEIGHT - 40) / len(chosen)
    for number, row in enumerate(chosen):
        y = 32 + number * step
        width = BAR_WIDTH * row["value"] / largest
        middle = y + step * 0.35 + 4
        shown.append(
            f'<text x="118" y="{middle:.0f}" font-size="11" text-anchor="end" fill="{DARK}">'
            f"{escape(str(row[label])[:18])}</text>"
            f'<rect x="124" y="{y:.0f}" width="{width:.1f}" height="{step * 0.7:.0f}" fill="{INK}"/>'
            f'<text x="{128 + width:.0f}" y="{middle:.0f}" font-size="11" fill="{DARK}">{_short(row["value"])}</text>'
        )
    return "".join(shown)


def _series(rows: list[dict]):
    """Yield (label, rows) for all sets of 2 to 6 positive rows that are alike but for that one label."""
    positive = [row for row in rows if isinstance(row.get("value"), int | float) and 0 < row["value"] < math.inf]
    for label in sorted({key for row in positive for key in row} - NOT_LABELS):
        alike: dict[tuple, list[dict]] = {}
        for row in positive:
            if label in row:
                rest = tuple(sorted((key, str(value)) for key, value in row.items() if key not in ("value", label)))
                alike.setdefault(rest, []).append(row)
        yield from ((label, group) for group in alike.values() if 2 <= len(group) <= 6)


def _worth(series: tuple[str, list[dict]]) -> tuple:
    """Order series: run times, then bytes; methods before inputs; names before numbers; the plainest rows first."""
    label, rows = series
    values = [row["value"] for row in rows]
    unit, quantity = rows[0]["unit"], rows[0]["quantity"]
    told_apart = max(values) > 1.2 * min(values)
    named = label != "matrix" and isinstance(rows[0][label], str)
    return unit in ("ms", "s"), unit == "bytes", named, told_apart, -len(rows[0]), -len(quantity), len(rows)


def _short(value: float) -> str:
    """Write a positive number in at most seven characters: 0.107, 907, 66.7 G."""
    for factor, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e4, " k")):
        if value >= factor:
            return f"{value / (1e3 if letter == ' k' else factor):.3g}{letter}"
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


NOT_LABELS = {"quantity", "unit", "kind", "value", "of", "spread_ms"}


def _tile(name: str) -> str:
    words = name.replace("_", " ").split("/")[-1]
    squares = "".join(
        f'<rect x="{130 + 12 * i}" y="{36 + 12 * j}" width="9" height="9" fill="{INK if i == j else SOFT}"/>'
        for i in range(5)
        for j in range(5)
        if (i * j + i + j) % 3 == 0 or i == j
    )
    return (
        f'{squares}<text x="160" y="130" font-size="15" text-anchor="middle" fill="{DARK}">{escape(words[:36])}</text>'
    )
