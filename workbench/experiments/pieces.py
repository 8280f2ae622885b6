"""The pieces of a long run: each is kept when it is done, so an interrupted run loses the piece it was at and no more.

A piece is what an experiment makes at one call of its ``keep``, such as one trained network. Full runs keep theirs in
the home folder, ``results/<paper>/<experiment>-pieces``, until the record that they make is written.
"""

import json
import re
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from workbench import folders, record
from workbench.paper import Row

__all__ = ["Pieces", "require_none"]


def require_none(paper: str, experiment: str) -> None:
    """Raise ValueError, which says how to go on, where an interrupted run has left pieces."""
    folder = _folder(paper, experiment)
    if any(folder.glob("*.json")):
        raise ValueError(
            f"run: an interrupted run of {paper}/{experiment} left {len(list(folder.glob('*.json')))} pieces in "
            f"{folder}; add --resume to go on with them, or delete that folder to begin again"
        )


class Pieces:
    """The ``keep`` of one full run of an experiment; call it with a piece's labels and what makes its rows.

    Parameters
    ----------
    paper, experiment : keys; they name the folder.
    made_by : what the pieces of one record must share: seed, processor, versions. JSON-safe.

    Attributes
    ----------
    earlier_s : seconds that the pieces took which an earlier run had made.
    """

    def __init__(self, paper: str, experiment: str, made_by: dict):
        self.folder, self.made_by, self.earlier_s = _folder(paper, experiment), made_by, 0.0

    def __call__(self, labels: Row, make: Callable[[], list[Row]]) -> list[Row]:
        """Return the rows that are kept under these labels, or those of ``make()``, which are kept then.

        Raises
        ------
        ValueError : the piece was made with another seed, on another processor or by other versions.
        OSError : the piece cannot be written.
        """
        path = self.path(labels)
        wanted = record.rounded({"labels": labels} | self.made_by)
        if path.is_file():
            piece = json.loads(path.read_text(encoding="utf-8"))
            differ = [key for key, value in wanted.items() if piece["of"].get(key) != value]
            if differ:
                raise ValueError(f"run: {path} was made with other {', '.join(differ)}; delete it to make it again")
            self.earlier_s += piece["wall_s"]
            return piece["rows"]
        start = time.perf_counter()
        rows = record.rounded(make())
        wall_s, date = round(time.perf_counter() - start, 2), datetime.now(UTC).isoformat(timespec="seconds")
        record.write_json(path, {"of": wanted, "wall_s": wall_s, "date": date, "rows": rows})
        return rows

    def path(self, labels: Row) -> Path:
        """Return the file of a piece."""
        return self.folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', '-'.join(map(str, labels.values())))}.json"

    def drop(self) -> None:
        """Delete the pieces: the record holds them now."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _folder(paper, experiment) -> Path:
    return folders.home() / "results" / paper / f"{experiment}-pieces"
