"""Real power-law matrices from text that every machine has: Python's documentation and its standard library.

The text belongs to the Python that runs, so sizes differ between Python versions; `provenance` names it and records
keep it. For one Python build, the matrices are equal on every run.
"""

import ast
import platform
import re
import sysconfig
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import scipy.sparse as sp

CORPORA = ("documentation", "sources")
WORD = re.compile(r"[a-z][a-z0-9]+(?:_[a-z0-9]+)*")
NOT_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3", "lib-dynload"}


def provenance() -> str:
    """Name the text that the matrices of this file are made from."""
    return f"{platform.python_implementation()} {platform.python_version()} documentation and standard library"


def term_document(corpus="documentation"):
    """Count how often each word stands in each document.

    Parameters
    ----------
    corpus : ``"documentation"`` (help topics of ``pydoc_data.topics``) or ``"sources"`` (standard library modules).

    Returns
    -------
    csr_array, float64, shape (documents, words); columns follow `words`, in alphabetical order.
    """
    ids, starts, vocabulary = _tokens(corpus)
    documents = np.repeat(np.arange(starts.size - 1), np.diff(starts))
    shape = (starts.size - 1, len(vocabulary))
    return _counts(documents, ids, shape)


def word_cooccurrence(corpus="documentation", window=5):
    """Count how often two words stand within ``window`` words of each other in a document.

    Parameters
    ----------
    corpus : as for `term_document`.
    window : int in [1, 50]; 1 counts neighbours only.

    Returns
    -------
    csr_array, float64, symmetric, shape (words, words).
    """
    if isinstance(window, bool) or not isinstance(window, int):
        raise TypeError(f"word_cooccurrence: window must be an int, got {type(window).__name__}")
    if not 1 <= window <= 50:
        raise ValueError(f"word_cooccurrence: window must be from 1 to 50, got {window}")
    ids, starts, vocabulary = _tokens(corpus)
    documents = np.repeat(np.arange(starts.size - 1), np.diff(starts))
    shape = (len(vocabulary), len(vocabulary))
    total = sp.csr_array(shape)
    for distance in range(1, window + 1):
        together = documents[distance:] == documents[:-distance]
        total = total + _counts(ids[:-distance][together], ids[distance:][together], shape)
    total = sp.csr_array(total + total.T)
    total.sort_indices()
    return total


def source_cooccurrence(window=5):
    """Count how often two names stand near each other in the standard library's sources; see `word_cooccurrence`."""
    return word_cooccurrence("sources", window)


def words(corpus="documentation") -> tuple[str, ...]:
    """Return the words of a corpus in the order of the matrices' columns."""
    return _tokens(corpus)[2]


def import_graph():
    """Return the import graph of the standard library: entry (i, j) is 1 when module i imports module j.

    Imports inside functions count; imports of modules outside the library do not. Takes some seconds at the first
    call, because it parses the whole library.

    Returns
    -------
    csr_array, float64, shape (modules, modules); rows follow `modules`.
    """
    rows, cols = _import_edges()
    matrix = _counts(rows, cols, (len(modules()), len(modules())))
    matrix.data[:] = 1.0
    return matrix


def modules() -> tuple[str, ...]:
    """Return the dotted names of the standard library's Python modules, in alphabetical order."""
    return tuple(_library())


@cache
def _import_edges():
    index = {name: i for i, name in enumerate(modules())}
    rows, cols = [], []
    for name, path in _library().items():
        for target in _imports(name, path):
            while target and target not in index:  # "os.path.join" is a name inside module "os.path" or "os"
                target = target.rpartition(".")[0]
            if target and target != name:
                rows.append(index[name])
                cols.append(index[target])
    return np.array(rows, dtype=np.int64), np.array(cols, dtype=np.int64)


@cache
def _library() -> dict[str, Path]:
    root = Path(sysconfig.get_path("stdlib"))
    found = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        if NOT_LIBRARY.intersection(parts) or not all(part.isidentifier() for part in parts):
            continue
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return dict(sorted(found.items()))


@cache
def _tokens(corpus):
    """Return word ids, the start of every document in them, and the vocabulary."""
    texts = _texts(corpus)
    tokens = [WORD.findall(text.lower()) for text in texts]
    vocabulary = tuple(sorted(set().union(*tokens)))
    index = {word: i for i, word in enumerate(vocabulary)}
    ids = np.fromiter((index[word] for document in tokens for word in document), dtype=np.int64)
    starts = np.concatenate(([0], np.cumsum([len(document) for document in tokens]))).astype(np.int64)
    ids.flags.writeable = starts.flags.writeable = False
    return ids, starts, vocabulary


def _texts(corpus):
    if corpus == "documentation":
        from pydoc_data.topics import topics

        return [topics[name] for name in sorted(topics)]
    if corpus == "sources":
        return [path.read_text(encoding="utf-8", errors="replace") for path in _library().values()]
    raise ValueError(f"corpus must be one of {', '.join(CORPORA)}; got {corpus!r}")


def _imports(name, path):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except SyntaxError:
        return
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - (node.level - 1)]
                base = ".".join([*parents, base] if base else parents)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _counts(rows, cols, shape):
    places = rows.astype(np.int32), cols.astype(np.int32)  # SciPy keeps the width it gets
    matrix = sp.coo_array((np.ones(rows.size), places), shape=shape).tocsr()
    matrix.sum_duplicates()
    return matrix
