"""How a paper enters the workbench: four frozen dataclasses, of which `Knob` lives with the controls that draw it.

Beside them, what experiments make rows with, and judges read them with.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from widgets.controls.knob import Knob

__all__ = ["Claim", "Experiment", "Knob", "Paper", "loaded_later", "row", "rows_with", "values"]

Row = dict[str, Any]
Verdict = Literal["reproduced", "partly", "not reproduced"]
Report = Callable[[float, str], None]
Size = Literal["tiny", "small", "full"]


@dataclass(frozen=True)
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
    judge : rows of that experiment -> (our value as shown, verdict).
    """

    key: str
    statement: str
    where: str
    paper_value: str
    tag: Literal["published", "from memory"]
    experiment: str
    judge: Callable[[Sequence[Row]], tuple[str, Verdict]]


@dataclass(frozen=True)
class Experiment:
    """One run that yields rows of numbers.

    Parameters
    ----------
    key, title : name of the record file, and what readers see.
    kind : "accuracy", "timing" (measured) or "modelled" (from a machine model); never mixed.
    run : ``run(size=..., seed=..., matrix=None, report=...) -> list of rows``. A row is a flat, JSON-safe dict with
        at least ``quantity``, ``value``, ``unit`` and ``kind`` ("measured", "modelled" or "counted") plus labels.
        ``report(fraction, step)`` feeds the progress bar. ``matrix`` is a path to a Matrix Market file that takes the
        place of the default input; an experiment that cannot use one raises ValueError.
    """

    key: str
    title: str
    kind: Literal["accuracy", "timing", "modelled"]
    run: Callable[..., list[Row]]


@dataclass(frozen=True)
class Paper:
    """Everything the workbench offers about one paper.

    Parameters
    ----------
    key : file name in ``workbench/papers`` and name everywhere else (notebook, results, tests).
    summary : the claim in three sentences.
    family : group in the catalog, such as "matrix products" or "attention".
    state : how complete the method is: "complete", or one sentence that says what is missing.
    sample : ``sample(**knobs)`` -> the real input that ``run`` takes.
    run : ``run(sample, **knobs)`` -> the method's result, plain arrays in a frozen dataclass.
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
    knobs: tuple[Knob, ...]
    sample: Callable[..., Any]
    run: Callable[..., Any]
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
    module : in ``workbench/papers``.
    function : ``function(size, seed, report)`` -> rows. It takes no matrix.
    """

    def run(size, seed, matrix=None, report=lambda fraction, step: None):
        if matrix is not None:
            raise ValueError(f"{function} has its own input; a matrix cannot take its place, leave out --matrix")
        return getattr(import_module(f"workbench.papers.{module}"), function)(size, seed, report)

    return run
