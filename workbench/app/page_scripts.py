"""All script pieces that a page needs, in one file: one request instead of a hundred before the first widget.

Voila and the widget extensions ship as small pieces that fetch each other. Each piece only pushes its modules onto a
list that its loader reads at its start, so the pieces may be sent ahead, in any order, in one response.
"""

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

FORMULAS = "@jupyterlab/mathjax-extension"
LOADERS = ("remoteEntry", "voila.js", "treepage.js", "voila-style.js", "style.js")
PUSHES = ("webpackChunk", "rspackChunk")


@dataclass(frozen=True)
class PageScripts:
    """The joined pieces and the name that changes with their content."""

    content: bytes

    @cached_property
    def name(self) -> str:
        return f"{hashlib.sha256(self.content).hexdigest()[:16]}.js"

    @cached_property
    def zipped(self) -> bytes:
        return gzip.compress(self.content, 6)


def voila_pieces(voila_static: Path) -> list[Path]:
    """Return the pieces of Voila that a page with widgets and formulas asks for, by number.

    These are all that ``voila.js`` names: it starts with some and holds a loader for each module that it shares with
    the extensions. MathJax is the exception that is named one step later, in the piece that the extension for formulas
    is made of. Pieces that others name (a hundred highlighters of languages, for example) are left to be asked for.
    A ``voila.js`` of another form names nothing: then nothing is sent ahead, and the page asks for each piece itself.
    """
    voila = (voila_static / "voila.js").read_text(encoding="utf-8")
    formulas = re.search(rf'"{FORMULAS}"(.*?)\.then', voila)
    pieces = _named(voila, voila_static)
    for piece in _named(formulas[1] if formulas else "", voila_static):
        pieces |= _named(piece.read_text(encoding="utf-8"), voila_static)
    return sorted(pieces, key=lambda piece: int(piece.name.partition(".")[0]))


def _named(script: str, folder: Path) -> set[Path]:
    """Return the pieces that a script fetches by ``loader.e(number)``; numbers of shared modules have no file."""
    files = {folder / f"{number}.voila.js" for number in re.findall(r"\.e\((\d+)\)", script)}
    return {file for file in files if file.is_file()}


@cache
def join_pieces(voila_static: Path, extensions: tuple[Path, ...]) -> PageScripts:
    """Join Voila's own pieces and those of the given extensions; each keeps its own strictness and names."""
    files = voila_pieces(voila_static)
    files += [file for extension in extensions for file in sorted((extension / "static").glob("*.js"))]
    joined = []
    for file in files:
        if file.name.startswith(LOADERS):
            continue
        text = file.read_text(encoding="utf-8")
        if any(mark in text[:400] for mark in PUSHES):
            joined.append(f"(() => {{{text}\n}})();\n")
    return PageScripts("".join(joined).encode())
