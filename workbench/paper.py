"""How a paper enters the workbench: three frozen dataclasses, and what experiments and their judges work with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from typing import Any, Literal

__all__ = [
    "Claim",
    "Experiment",
    "Paper",
    "Report",
    "loaded_later",
    "made_now",
    "row",
    "rows_of",
    "rows_with",
    "values",
    "view_in",
]

Row = dict[str, Any]
Verdict = Literal["reproduced", "partly", "not reproduced", "fitted", "undecided"]
Judged = tuple[str, Verdict] | tuple[str, Verdict, str]
Size = Literal["tiny", "small", "full"]


class Report:
    """Tells a progress bar how far a run is: ``report(fraction, step)``, with a fraction from 0 to 1.

    Parameters
    ----------
    tell : called as ``tell(fraction, step)``; None tells nobody.
    """

    def __init__(self, tell: Callable[[float, str], None] | None = None):
        self._tell = tell or (lambda fraction, step: None)

    def __call__(self, fraction: float, step: str = "") -> None:
        """Say that so much is done, and what comes next; a fraction outside of 0 to 1 is taken for the nearer end."""
        self._tell(min(max(fraction, 0.0), 1.0), step)

    def part(self, index: int, count: int, label: str = "") -> "Report":
        """Return the report of part ``index`` of ``count`` equal ones; its steps stand behind its label."""

        def tell(fraction, step):
            self((index + fraction) / count, ": ".join(filter(None, (label, step))))

        return Report(tell)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement of a paper that our experiment can confirm or not.

    Parameters
    ----------
    key : short name, unique within the paper.
    statement : the claim, in one sentence of ours.
    where : where the paper says it (section, table, abstract).
    paper_value : the paper's value as shown to readers, with unit.
    tag : how sure we are of it: "published" (read there) or "from memory" (unverified).
    experiment : key of the experiment that tests it.
    judge : rows of that experiment -> (our value as shown, verdict). "fitted" and "undecided" come with a third part,
        the reason: what was calibrated on what, or which baseline has not learned (`workbench.judging`).
    whose : "workbench" for a claim of our own, which is shown but does not count as one of the paper's.
    """

    key: str
    statement: str
    where: str
    paper_value: str
    tag: Literal["published", "from memory"]
    experiment: str
    judge: Callable[[Sequence[Row]], Judged]
    whose: Literal["paper", "workbench"] = "paper"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One run that yields rows of numbers.

    Parameters
    ----------
    key, title : name of the record file, and what readers see.
    kind : "accuracy", "timing" (measured) or "modelled" (from a machine model); never mixed.
    run : ``run(size, seed, report)`` -> list of rows. A row is a flat, JSON-safe dict with at least ``quantity``,
        ``value``, ``unit`` and ``kind`` ("measured", "modelled" or "counted") plus labels; ``report`` is a `Report`.
        One that also has a parameter ``matrix`` can be run on a matrix from a file in place of its own input; it is
        given the file's path, or None. One that has a parameter ``keep`` is made of pieces that take long, such as
        trainings: ``keep(labels, make)`` returns the rows of ``make()``, or those that an interrupted run kept under
        these labels.
    """

    key: str
    title: str
    kind: Literal["accuracy", "timing", "modelled"]
    run: Callable[..., list[Row]]


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Everything the workbench offers about one paper.

    Parameters
    ----------
    key : name of the folder in ``workbench/papers``, and everywhere else (notebook, results, tests).
    summary : the claim in three sentences.
    family : group in the catalog, such as "matrix products" or "attention".
    state : how complete the method is: "complete", or one sentence that says what is missing.
    view : ``view(**state)`` -> the interactive view.
    """

    key: str
    title: str
    authors: str
    year: int
    arxiv: str
    family: str
    summary: str
    state: str
    claims: tuple[Claim, ...]
    view: Callable[..., Any]
    experiments: tuple[Experiment, ...]

    @property
    def notebook(self) -> str:
        """Path of the paper's notebook inside the notebooks folder."""
        return f"papers/{self.key}.ipynb"


def row(quantity: str, value, unit: str, kind: str, **labels) -> Row:
    """Return one row of a record; labels come first, so that tables start with them."""
    return {**labels, "quantity": quantity, "value": value, "unit": unit, "kind": kind}


def rows_with(rows: Sequence[Row], quantity: str, **labels) -> list[Row]:
    """Return the rows of a quantity that carry these labels; LookupError if there are none."""
    found = [r for r in rows if r["quantity"] == quantity and all(r.get(key) == x for key, x in labels.items())]
    if not found:
        raise LookupError(f"no row of {quantity!r} with {labels}")
    return found


def values(rows: Sequence[Row], quantity: str, **labels) -> list:
    """Return the values of the rows that `rows_with` finds."""
    return [r["value"] for r in rows_with(rows, quantity, **labels)]


def loaded_later(module: str, function: str) -> Callable[..., list[Row]]:
    """Return an experiment's ``run`` whose module, with torch and all, is imported when it runs.

    Parameters
    ----------
    module : below ``workbench/papers``, such as "smash.versions".
    function : an experiment's ``run``, see `Experiment`.
    """

    def run(size, seed, report=None, matrix=None, keep=made_now):
        found = getattr(import_module(f"workbench.papers.{module}"), function)
        return rows_of(found, size, seed, Report(report), matrix, keep)

    return run


def made_now(labels: Row, make: Callable[[], list[Row]]) -> list[Row]:
    """Return what ``make`` returns: the ``keep`` of a run that keeps nothing."""
    return make()


def rows_of(
    run: Callable[..., list[Row]], size: Size, seed: int, report: Report, matrix: str | None, keep=made_now
) -> list[Row]:
    """Return the rows of an experiment's ``run``; it is given a matrix and ``keep`` if it has parameters for them.

    Raises
    ------
    ValueError : a matrix for an experiment that has its own input.
    """
    offered = {name: x for name, x in (("matrix", matrix), ("keep", keep)) if name in signature(run).parameters}
    if matrix is not None and "matrix" not in offered:
        raise ValueError(f"{run.__name__} has its own input; a matrix cannot take its place, leave out --matrix")
    return run(size=size, seed=seed, report=report, **offered)


def view_in(topic: str, **start) -> Callable[..., Any]:
    """Return a paper's ``view``: an explorer, imported when it is opened, in the state that shows this paper.

    Parameters
    ----------
    topic : folder in ``workbench/explorers``.
    start : state of the explorer's knobs; what the caller of the view names goes before it.
    """

    def view(**state):
        explorer = import_module(f"workbench.explorers.{topic}.explorer").explorer
        return explorer(**(state if "query" in state else start | state))

    return view
