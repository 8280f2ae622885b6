"""The one way to find entries in a folder: papers, methods, sources, benches. Adding a file adds an entry."""

import difflib
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["exporting", "find", "gathered", "no_such"]


def gathered(package: str, attribute: str, *, file: str = "", problems: dict[str, str] | None = None) -> dict[str, Any]:
    """Return what the modules of a package export, by key, in alphabetical order.

    Parameters
    ----------
    package : dotted name of the folder, such as "workbench.papers".
    attribute : name that an entry's module exports, such as "PAPER"; a module without it is no entry. What is exported
        has a ``key``.
    file : where each entry is a folder, the module inside it that exports; a folder without it is no entry.
    problems : takes the names of entries that cannot be loaded, each with one line on why; without it the error is
        raised.

    Raises
    ------
    ImportError : an entry whose key differs from the name of its file or folder.
    """
    found = {}
    for name in exporting(package, file):
        try:
            entry = getattr(importlib.import_module(f"{package}.{name}.{file}".rstrip(".")), attribute, None)
            if entry is not None and entry.key != name:
                place = f"folder {name}" if file else f"file {name}.py"
                raise ImportError(f"{package}: the {place} has key {entry.key!r}; the key must equal the name.")
        except Exception as error:
            if problems is None:
                raise
            problems[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            if entry is not None:
                found[name] = entry
    return found


def exporting(package: str, file: str = "") -> list[str]:
    """Return the names of a package's modules, or of its folders that hold a module called ``file``, in order."""
    modules = sorted(pkgutil.iter_modules(importlib.import_module(package).__path__), key=lambda module: module.name)
    if not file:
        return [module.name for module in modules if not module.ispkg]
    return [m.name for m in modules if m.ispkg and (Path(m.module_finder.path) / m.name / f"{file}.py").is_file()]


def find(what: str, key: str, entries: Mapping[str, Any]) -> Any:
    """Return the entry of a key; KeyError names the nearest key, ``what`` says in words what it is."""
    if key in entries:
        return entries[key]
    raise no_such(what, key, entries)


def no_such(what: str, key: str, known: Iterable[str]) -> KeyError:
    """Return the KeyError that answers a misspelt key with the nearest one, or with all there are."""
    known = list(known)
    near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known) or 'none'}."
    return KeyError(f"no {what} {key!r}; {hint}")
