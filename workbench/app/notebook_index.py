"""The notebooks on offer: dashboards, walk-throughs of papers and the tour, found by looking into the folder."""

import json
from dataclasses import dataclass
from pathlib import Path

KINDS = ("dashboards", "papers")


@dataclass(frozen=True)
class Notebook:
    """A notebook of the folder and what its metadata say of it."""

    kind: str
    name: str
    path: str
    title: str
    description: str
    papers: tuple[str, ...]
    thumbnail: str


def notebook_index(folder: Path) -> list[Notebook]:
    """Return the notebooks of the folder, dashboards first; an unreadable one is listed with the reason."""
    return [
        _read(kind, file, folder)
        for kind in KINDS
        for file in sorted((folder / kind).rglob("*.ipynb"))
        if ".ipynb_checkpoints" not in file.parts
    ]


def find(folder: Path, kind: str, name: str) -> Path | None:
    """Return the path, relative to the folder, of one notebook of the folder; None if there is none."""
    asked = Path(kind) / f"{name}.ipynb"
    inside = (folder / asked).resolve().is_relative_to(folder.resolve())
    return asked if inside and (folder / asked).is_file() else None


def _read(kind: str, file: Path, folder: Path) -> Notebook:
    name = file.relative_to(folder / kind).with_suffix("").as_posix()
    path = file.relative_to(folder).as_posix()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        told = content["metadata"].get("workbench", {})
        title = told.get("title") or _heading(content) or name.replace("_", " ").capitalize()
        return Notebook(
            kind,
            name,
            path,
            str(title),
            str(told.get("description", "")),
            tuple(map(str, told.get("papers", ()))),
            str(told.get("thumbnail", "")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Notebook(kind, name, path, name, f"This notebook cannot be read: {error}", (), "")


def _heading(content: dict) -> str:
    for cell in content["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and source.lstrip().startswith("# "):
            return source.lstrip().splitlines()[0].removeprefix("# ").strip()
    return ""
