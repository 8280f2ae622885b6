"""Text that every machine with Python has: the documentation topics and the sources of the standard library.

The library's own tests are a third corpus, absent from some Python packages; training uses them where they are.

Each document is held out, or not, by a hash of its name: the split does not move when files come and go. Topics quote
one another, so paragraphs of held-out documents are cut from the training documents.
The text belongs to the Python that runs; `provenance` names it and records keep it.
"""

import hashlib
import platform
import re
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CORPORA = ("documentation", "library", "tests")
SPLITS = ("train", "held_out")
NOT_TEXT = {"site-packages", "dist-packages", "__pycache__", "lib-dynload"}
TESTS = {"test", "tests", "idle_test"}
TABLES = {"encodings", "pydoc_data"}  # code tables, and the topics once more as one source file
MOST_FILE_BYTES = 400_000
MOST_CORPUS_BYTES = 24_000_000
HELD_OUT_OF_256 = 16
SHARED_PARAGRAPH_CHARACTERS = 80


@dataclass(frozen=True)
class Document:
    """One text with the name that decides its split, and the corpus it comes from."""

    name: str
    text: str
    corpus: str


def provenance() -> str:
    """Name the text that this file reads."""
    return f"{platform.python_implementation()} {platform.python_version()} documentation topics and standard library"


def split_of(name: str) -> str:
    """Return ``"train"`` or ``"held_out"`` from a hash of a document's name; about 1 name in 16 is held out."""
    return "held_out" if hashlib.sha256(name.encode()).digest()[0] < HELD_OUT_OF_256 else "train"


def documents(corpora=("documentation", "library"), split=None) -> tuple[Document, ...]:
    """List documents in order of their names.

    Parameters
    ----------
    corpora : names among ``"documentation"`` (help topics), ``"library"`` (sources but code tables) and ``"tests"``.
    split : ``"train"``, ``"held_out"``, or None for all documents as they stand. Documents of ``"train"`` lack the
        paragraphs of at least 80 characters that a held-out document has too.

    Returns
    -------
    tuple of Document; at most 24 MB of text per corpus, files above 400 kB left out.

    Raises
    ------
    ValueError : unknown corpus or split.
    """
    corpora = (corpora,) if isinstance(corpora, str) else tuple(corpora)
    for corpus in corpora:
        if corpus not in CORPORA:
            raise ValueError(f"documents: corpora must be among {CORPORA}, got {corpus!r}")
    if split is not None and split not in SPLITS:
        raise ValueError(f"documents: split must be among {SPLITS} or None, got {split!r}")
    if split is None:
        return tuple(document for corpus in corpora for document in _corpus(corpus))
    return tuple(document for document in _split(split) if document.corpus in corpora)


def sample(characters: int, corpora: str | Sequence[str] = "documentation", split: str = "held_out") -> tuple[str, str]:
    """Return the first ``characters`` characters of a split's documents, joined by blank lines, and their names.

    Raises
    ------
    ValueError : the split holds less text than asked for.
    """
    taken, names, length = [], [], 0
    for document in documents(corpora, split):
        if length >= characters:
            break
        taken.append(document.text)
        names.append(document.name)
        length += len(document.text) + 2
    text = "\n\n".join(taken)
    if len(text) < characters:
        raise ValueError(f"sample: {split} {corpora} has {len(text)} characters, {characters} asked for; add a corpus")
    return text[:characters], ", ".join(names)


@cache
def _corpus(corpus):
    return {"documentation": _topics, "library": _sources, "tests": _sources}[corpus](corpus)


@cache
def _split(split):
    everything = documents(CORPORA)
    held_out = tuple(document for document in everything if split_of(document.name) == "held_out")
    if split == "held_out":
        return held_out
    shared = {paragraph for document in held_out for paragraph in _long_paragraphs(document.text)}
    return tuple(
        Document(document.name, _without(document.text, shared), document.corpus)
        for document in everything
        if split_of(document.name) == "train"
    )


def _topics(corpus):
    from pydoc_data.topics import topics

    return tuple(Document(f"topics/{name}", text, corpus) for name, text in sorted(topics.items()))


def _sources(corpus):
    root, found, total = Path(sysconfig.get_path("stdlib")), [], 0
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        parts = path.relative_to(root).parts
        if (
            NOT_TEXT & set(parts)
            or parts[0] in TABLES
            or parts[0].startswith(("config-", "_sysconfigdata", "__phello__"))
        ):
            continue
        if bool(TESTS & set(parts)) != (corpus == "tests"):
            continue
        try:
            text = path.read_bytes().decode("utf-8")
        except (UnicodeDecodeError, OSError):
            continue
        if not 0 < len(text) <= MOST_FILE_BYTES:
            continue
        total += len(text)
        if total > MOST_CORPUS_BYTES:
            break
        found.append(Document("lib/" + "/".join(parts), text.replace("\r\n", "\n"), corpus))
    return tuple(found)


def _long_paragraphs(text):
    return [part.strip() for part in re.split(r"\n\s*\n", text) if len(part.strip()) >= SHARED_PARAGRAPH_CHARACTERS]


def _without(text, shared):
    parts = re.split(r"(\n\s*\n)", text)  # paragraphs at even places, the gaps between them at odd ones
    kept = [
        part + (parts[i + 1] if i + 1 < len(parts) else "")
        for i, part in enumerate(parts)
        if i % 2 == 0 and part.strip() not in shared
    ]
    return "".join(kept)
