"""All script pieces that a page needs, in one file: one request instead of a hundred before the first widget.

Voila and the widget extensions ship as small pieces that fetch each other. Each piece only pushes its modules onto a
list that its loader reads at its start, so the pieces may be sent ahead, in any order, in one response.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

LOADERS = ("remoteEntry", "voila.js", "treepage.js", "voila-style.js", "style.js")
VOILA_STARTS_WITH = {  # pieces that a page of Voila 0.5 asks for; others come when needed
    73,
    143,
    225,
    431,
    457,
    614,
    630,
    1187,
    1601,
    1621,
    1670,
    1996,
    2121,
    2296,
    2772,
    2829,
    2930,
    3144,
    3249,
    3307,
    3311,
    3459,
    3649,
    3916,
    3989,
    3992,
    4041,
    4135,
    4173,
    4222,
    4371,
    4486,
    4653,
    4729,
    4875,
    4972,
    5044,
    5312,
    5688,
    5764,
    5767,
    5992,
    6008,
    6049,
    6074,
    6305,
    6382,
    6468,
    6573,
    7155,
    7245,
    7259,
    7393,
    7483,
    7556,
    7598,
    7770,
    7883,
    8017,
    8135,
    8487,
    8766,
    8773,
    8862,
    8925,
    9081,
    9151,
    9212,
    9582,
    9684,
    9890,
    9981,
}
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


@cache
def join_pieces(voila_static: Path, extensions: tuple[Path, ...]) -> PageScripts:
    """Join Voila's own pieces and those of the given extensions; each keeps its own strictness and names."""
    files = [file for number in sorted(VOILA_STARTS_WITH) for file in voila_static.glob(f"{number}.voila.js")]
    files += [file for extension in extensions for file in sorted((extension / "static").glob("*.js"))]
    joined = []
    for file in files:
        if file.name.startswith(LOADERS):
            continue
        text = file.read_text(encoding="utf-8")
        if any(mark in text[:400] for mark in PUSHES):
            joined.append(f"(() => {{{text}\n}})();\n")
    return PageScripts("".join(joined).encode())
