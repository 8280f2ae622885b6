"""Which pieces of Voila's script are sent ahead, found in the files of the installed Voila."""

import re
from pathlib import Path

import pytest
from jupyter_core.paths import jupyter_path

from workbench.app.page_scripts import join_pieces, voila_pieces

STATIC = next(Path(path) for path in jupyter_path("voila/templates/base/static") if (Path(path) / "voila.js").is_file())
PIECE = '"use strict";(self.webpackChunk=self.webpackChunk||[]).push([[{number}],{{}}]);'


def numbers(pieces):
    return {int(piece.name.partition(".")[0]) for piece in pieces}


def named(script):
    return {int(number) for number in re.findall(r"\.e\((\d+)\)", script)}


@pytest.fixture
def static(tmp_path):
    """Return a function that writes a small Voila: its loader's text, and its pieces' additional text by number."""

    def write(loader, pieces):
        (tmp_path / "voila.js").write_text(loader)
        for number, text in pieces.items():
            (tmp_path / f"{number}.voila.js").write_text(PIECE.format(number=number) + text)
        return tmp_path

    return write


def test_all_that_the_start_of_the_page_needs_is_sent():
    """Follow the loader from its first pieces through the modules that they share, and the loaders of those."""
    loader = (STATIC / "voila.js").read_text()
    shared = {int(piece): modules.split(",") for piece, modules in re.findall(r"\b(\d+):\[([\d,]+)\]", loader)}
    loaders = dict(re.findall(r'\b(\d+):\(\)=>\w+\("default",(.*?)\.then', loader))
    needed, open_ones = set(), named(loader.partition(".then")[0])
    while open_ones:
        needed |= open_ones
        modules = [module for piece in open_ones for module in shared.get(piece, ())]
        open_ones = set().union(*(named(loaders[module]) for module in modules)) - needed
    needed = {piece for piece in needed if (STATIC / f"{piece}.voila.js").is_file()}
    assert len(needed) > 20
    assert needed <= numbers(voila_pieces(STATIC))


def test_not_everything_is_sent():
    everything = [file for file in STATIC.glob("*.voila.js") if file.name.partition(".")[0].isdigit()]
    sent = voila_pieces(STATIC)
    assert set(sent) < set(everything)
    assert sum(file.stat().st_size for file in sent) < 0.7 * sum(file.stat().st_size for file in everything)


def test_formulas_are_sent():
    first = named((STATIC / "voila.js").read_text())
    later = [piece for piece in voila_pieces(STATIC) if not numbers([piece]) <= first]
    assert any("MathJax" in piece.read_text() for piece in later)


def test_a_piece_of_the_formulas_is_looked_into_and_no_other(static):
    loader = 'r.e(10),r.e(2),r.e(77); i("@jupyterlab/mathjax-extension","1",(()=>r.e(3).then(f)))'
    folder = static(loader, {2: "r.e(5)", 3: "r.e(4)", 4: "r.e(6)", 5: "", 6: "", 10: ""})
    assert [piece.name for piece in voila_pieces(folder)] == [f"{n}.voila.js" for n in (2, 3, 4, 10)]


def test_a_loader_of_another_form_sends_nothing_ahead(static):
    folder = static("import('./2.voila.js')", {2: ""})
    assert voila_pieces(folder) == []
    assert join_pieces(folder, ()).content == b""
