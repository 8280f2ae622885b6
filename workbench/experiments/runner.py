"""Runs a paper's experiments, judges its claims and makes the records."""

import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import get_args

from workbench import papers
from workbench.experiments import labels
from workbench.experiments.pieces import Pieces, require_none
from workbench.machines.host import machine, versions
from workbench.paper import Claim, Experiment, Paper, Report, Size, made_now, rows_of
from workbench.record import NOT_JUDGED, SCHEMA, rounded, validate, validate_rows

SIZES = get_args(Size)


def run(
    paper_key: str,
    *,
    size: Size = "full",
    seed: int = 1,
    matrix: str | None = None,
    only: Collection[str] = (),
    resume: bool = False,
    report: Callable[[float, str], None] | None = None,
    skip: Callable[[str, str], None] = lambda experiment, reason: None,
    done: Callable[[dict], None] = lambda record: None,
) -> list[dict]:
    """Run a paper's experiments and return one record each; nothing is written here.

    Parameters
    ----------
    size : "tiny" for tests, "small" for a first look, "full" for the published record.
    matrix : path of a file with a matrix that takes the place of the paper's input. Claims speak of the paper's own
        input, so they are not judged then.
    only : keys of the experiments to run; empty runs all.
    resume : use what an interrupted run of the same code has kept; a full run keeps its long pieces until its record
        is given to ``done``.
    report : ``report(fraction, step)``, fraction over all experiments.
    skip : told about each experiment that cannot use ``matrix``, with the reason.
    done : given each record as soon as it is made, so that what comes later cannot lose it.

    Raises
    ------
    KeyError : no such paper. ValueError : wrong size or seed, no such experiment, unreadable matrix, no experiment
        can use the matrix, or an interrupted run left pieces and ``resume`` was not asked for.
    """
    if size not in SIZES:
        raise ValueError(f"run: size must be one of {', '.join(SIZES)}; got {size!r}")
    if seed < 0:
        raise ValueError(f"run: seed must be >= 0, got {seed}")
    paper = papers.get(paper_key)
    experiments = chosen(paper, only)
    if matrix is not None:
        _check_matrix(matrix)
    keeps = size == "full" and matrix is None
    for experiment in experiments if keeps and not resume else ():
        require_none(paper.key, experiment.key)
    made_by = {"seed": seed, "cpu": machine()["cpu"], "versions": versions()}
    report, records, skipped = Report(report), [], []
    for i, experiment in enumerate(experiments):
        part = report.part(i, len(experiments), experiment.title)
        pieces = Pieces(paper.key, experiment.key, made_by) if keeps else None
        try:
            records.append(_record(paper, experiment, size, seed, matrix, part, pieces))
        except ValueError as error:
            if matrix is None:
                raise
            skipped.append(f"{experiment.key}: {error}")
            skip(experiment.key, str(error))
            continue
        done(records[-1])
        if pieces:
            pieces.drop()
    if not records:
        raise ValueError(f"run: no experiment of {paper_key} takes {matrix} ({'; '.join(skipped)})")
    report(1.0, "done")
    return records


def chosen(paper: Paper, only: Collection[str] = ()) -> list[Experiment]:
    """Return a paper's experiments, or those of them whose keys are named; ValueError names a key that is none."""
    known = [experiment.key for experiment in paper.experiments]
    for key in only:
        if key not in known:
            raise ValueError(f"{paper.key} has the experiments {', '.join(known)}; got {key!r}")
    return [experiment for experiment in paper.experiments if not only or experiment.key in only]


def judge(claim: Claim, rows: list[dict], size: Size = "full") -> dict:
    """Return a claim as a record keeps it: the paper's value beside ours, and the verdict.

    At sizes below "full" an experiment may lack the rows that a claim needs; the verdict is then "not judged".
    """
    try:
        ours, verdict, *because = claim.judge(rows)
    except (LookupError, StopIteration, ValueError, ZeroDivisionError):
        if size == "full":
            raise
        ours, verdict, because = f"needs size full, ran {size}", NOT_JUDGED, []
    return {
        "key": claim.key,
        "statement": claim.statement,
        "where": claim.where,
        "paper_value": claim.paper_value,
        "tag": claim.tag,
        "whose": claim.whose,
        "ours": ours,
        "verdict": verdict,
        **({"because": because[0]} if because else {}),
    }


def _record(paper: Paper, experiment: Experiment, size, seed, matrix, report, pieces=None):
    start = time.perf_counter()
    name = f"experiment {paper.key}/{experiment.key}"
    rows = rows_of(experiment.run, size, seed, report, matrix, pieces or made_now)
    validate_rows(name, rows)
    rows = rounded(rows)  # before judging: a verdict can be checked from the record alone
    labels.check(name, rows, experiment.kind)
    claims = [] if matrix else [judge(c, rows, size) for c in paper.claims if c.experiment == experiment.key]
    record = {
        "schema": SCHEMA,
        "paper": paper.key,
        "experiment": experiment.key,
        "title": experiment.title,
        "kind": experiment.kind,
        "size": size,
        "seed": seed,
        "matrix": matrix,
        "rows": rows,
        "claims": claims,
        "machine": machine(),
        "versions": versions(),
        "wall_s": round(time.perf_counter() - start + (pieces.earlier_s if pieces else 0), 2),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    validate(record)
    return record


def _check_matrix(path):
    from workbench.data.matrix_files import check_matrix

    check_matrix(path, real=True)
