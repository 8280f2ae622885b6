"""Gives a learner an own copy of a notebook, which no update and no second copy overwrites."""

import shutil
from pathlib import Path

from workbench import folders
from workbench.gathered import find


def notebook_paths() -> dict[str, Path]:
    """Return every notebook by the key that ``workbench copy`` takes: papers, dashboards and the tour."""
    root = folders.notebooks()
    found = {path.stem: path for part in ("dashboards", "papers") for path in sorted((root / part).glob("*.ipynb"))}
    return found | {path.stem: path for path in sorted(root.glob("*.ipynb"))}


def make_copy(key: str, folder: Path) -> Path:
    """Copy a notebook to ``folder/my_KEY.ipynb`` and return that path; a number is added to a name that is taken.

    Raises
    ------
    KeyError : no such notebook; names the nearest.
    FileNotFoundError : no such folder.
    """
    notebook = find("notebook", key, notebook_paths())
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"copy: there is no folder {folder}; make it first")
    number = 1
    while True:
        target = folder / (f"my_{key}.ipynb" if number == 1 else f"my_{key}_{number}.ipynb")
        try:
            with target.open("xb") as copy, notebook.open("rb") as original:
                shutil.copyfileobj(original, copy)
        except FileExistsError:
            number += 1
        else:
            return target
