"""The command line: ``workbench COMMAND``.

Exit codes: 0 success, 2 the command or its input is wrong, 1 it failed all the same, 130 stopped by Ctrl-C.
An error is one sentence on stderr; ``--debug`` anywhere on the line shows the traceback.
"""

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
data = typer.Typer(no_args_is_help=True, help="Matrices on offer.")
app.add_typer(data, name="data")

WIDTH_IN_FILES = 140
IDLE_LOAD = 0.5
USER_ERROR, FAILURE, STOPPED = 2, 1, 130


class UserError(Exception):
    """What the user can put right; the message is one sentence."""


@contextmanager
def users_input():
    """Turn errors that name something wrong in the user's input into UserError."""
    try:
        yield
    except KeyError as error:
        raise UserError(error.args[0]) from error
    except (ValueError, TypeError, FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(_sentence(error)) from error


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="show the version and exit")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
):
    """Sparse kernels, models and papers: run them, time them, look at them."""
    if version:
        import workbench

        typer.echo(workbench.__version__)
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def papers():
    """List the papers: key, title, family, state of the method, notebook, claims."""
    from workbench import record
    from workbench.app import tables
    from workbench.papers import catalog

    _console().print(tables.papers_table(catalog().values(), record.all_records()))


@app.command()
def run(
    key: Annotated[str, typer.Argument(help="paper, see `workbench papers`")],
    size: Annotated[Literal["tiny", "small", "full"], typer.Option(help="full is what can be published")] = "full",
    seed: Annotated[int, typer.Option(min=0, help="seed of everything random")] = 1,
    matrix: Annotated[
        Path | None, typer.Option(help="a matrix (.mtx, .npz, .npy) in place of the paper's input")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="one experiment; may be given more than once")] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="write workbench/results and RESULTS.md instead of your own folder")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on where an interrupted run of the same code stopped")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="also write the records to this file")] = None,
):
    """Run a paper's experiments, judge its claims and write the records.

    The records go to your own folder (see `workbench doctor`); only --publish changes those that readers see.
    """
    from workbench import record
    from workbench.app import tables
    from workbench.experiments import ledger, pieces, runner
    from workbench.papers import get

    with users_input():
        for experiment in runner.chosen(get(key), only or ()):
            if size == "full" and not (matrix or resume):
                pieces.require_none(key, experiment.key)
        _check_target(json)
    console, notes, paths = _console(), [], []
    try:
        record.require_writable(size, matrix, publish)
    except ValueError as error:
        raise UserError(str(error)) from error
    with _progress(key) as (report, _), users_input() if matrix else _as_is():
        records = runner.run(
            key,
            size=size,
            seed=seed,
            matrix=str(matrix) if matrix else None,
            only=only or (),
            resume=resume,
            report=report,
            skip=lambda experiment, reason: notes.append(f"{experiment} skipped: {reason}"),
            done=lambda entry: paths.append(record.write(entry, publish=publish)),
        )
    for entry in records:
        for table in tables.rows_tables(entry):
            console.print(table)
    for note in notes:
        console.print(note, markup=False)
    if matrix:
        console.print("Claims speak of the paper's own input; they are not judged on another matrix.")
    else:
        console.print(tables.claims_table(records))
    if json:
        record.write_json(json, records)
        paths.append(json)
    if publish:
        paths += ledger.write()
    for path in paths:
        console.print(f"wrote {path}", markup=False, soft_wrap=True)


@app.command()
def bench(
    op: Annotated[str, typer.Argument(help="operation, such as spgemm")],
    quick: Annotated[bool, typer.Option(help="fewer and smaller cases")] = False,
    case: Annotated[str, typer.Option(help="glob over case names, such as 'rmat-*/f64/sorted'")] = "*",
    threads: Annotated[int | None, typer.Option(min=1, max=256, help="for every contender alike")] = None,
    rounds: Annotated[int, typer.Option(min=7, help="interleaved rounds; the median is shown")] = 7,
    memory: Annotated[bool, typer.Option(help="also measure each contender's peak of memory")] = False,
    record: Annotated[bool, typer.Option(help="publish: write workbench/results/bench and RESULTS.md")] = False,
    json: Annotated[Path | None, typer.Option(help="also write the record to this file")] = None,
):
    """Check an operation's results, then time it side by side with its peers.

    The record goes to your own folder (see `workbench doctor`); only --record publishes it.
    """
    from workbench import folders
    from workbench.app import tables
    from workbench.bench import registry, runner
    from workbench.experiments import ledger
    from workbench.record import write_json

    with users_input():
        chosen = registry.get(op)
        _check_target(json)
        runner.chosen_specs(chosen, quick, case)
    if record and (quick or case != "*"):
        raise UserError("bench: --record publishes the whole suite; leave out --quick and --case")
    console = _console()
    with _progress(op, alive=False) as (report, tell):
        result = runner.run(
            chosen,
            quick=quick,
            case=case,
            threads=threads,
            rounds=rounds,
            memory=memory,
            report=report,
            done=lambda row: tell(tables.bench_line(row)),
        )
    console.print(tables.bench_table(result))
    tables.bench_summary(result, console)
    place = folders.published() if record else folders.home() / "results"
    paths = [place / "bench" / f"{op}.json", *([json] if json else [])]
    for path in paths:
        write_json(path, result)
    if record:
        paths += ledger.write()
    for path in paths:
        console.print(f"wrote {path}", markup=False, soft_wrap=True)
    if any(timing_name == "ours" for row in result["cases"] for timing_name in row["wrong"]):
        raise RuntimeError(f"bench {op}: our results are wrong in at least one case, see above")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="address to listen on; any but loopback demands a token")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port")] = 8866,
    token: Annotated[str | None, typer.Option(help="secret that visitors need")] = None,
    browser: Annotated[bool, typer.Option(help="open the gallery in this machine's browser")] = True,
    visitors: Annotated[int | None, typer.Option("--class", min=1, help="visitors at the same time")] = None,
    force: Annotated[bool, typer.Option(help="start although this machine is too small for the class")] = False,
    base_path: Annotated[str, typer.Option(help="path under which a proxy offers the server, such as /sparse")] = "/",
    allow_host: Annotated[
        list[str] | None, typer.Option(help="name under which a proxy offers the server; may be given more than once")
    ] = None,
):
    """Serve the gallery and the dashboards."""
    from workbench.app import serve as server

    with _server_cannot_start(server.ServeError):
        server.serve(
            host=host,
            port=port,
            token=token,
            open_browser=browser,
            class_size=visitors,
            force=force,
            base_path=base_path,
            allow_hosts=allow_host or (),
            announce=typer.echo,
        )


@app.command()
def lab(
    headless: Annotated[bool, typer.Option(help="print the address, open no browser")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8888,
):
    """Open JupyterLab with the tour, the notebooks and the dashboards."""
    from workbench.app import lab as laboratory
    from workbench.app.serve import ServeError

    with _server_cannot_start(ServeError):
        laboratory.lab(headless=headless, port=port, announce=typer.echo)


@app.command()
def copy(
    key: Annotated[str, typer.Argument(help="notebook: a paper's key, or start_here")],
    to: Annotated[Path, typer.Option(help="folder of the copy")] = Path("."),
):
    """Make your own copy of a notebook; nothing ever overwrites it."""
    from workbench.app.notebook_copies import make_copy

    with users_input():
        path = make_copy(key, to)
    _console().print(f"wrote {path}", markup=False, soft_wrap=True)


@app.command()
def doctor():
    """Examine this installation: versions, processor, threads, names, extras, ports, notebooks, folders."""
    from workbench.app import tables
    from workbench.app.doctor import examine

    findings = examine()
    _console().print(tables.findings_table(findings))
    bad = [finding for finding in findings if finding.state == "bad"]
    if bad:
        raise RuntimeError(f"doctor: {len(bad)} thing(s) to put right: {', '.join(f.subject for f in bad)}")


@app.command()
def peaks():
    """Measure how fast this machine copies and computes, once, and store it: modelled times in pictures rest on it."""
    from workbench.bench.runner import load_average
    from workbench.machines.peaks import measure_peaks

    busy = load_average() or 0
    for each in measure_peaks():
        peak = each.ceilings
        rates = f"copies {peak.copy_gbps:.1f} GB/s, {peak.fma_gflops_f32:.0f} GFLOP/s in float32, "
        told = f"{each.origin}: {rates}{peak.fma_gflops_f64:.0f} in float64"
        _console().print(told, markup=False, soft_wrap=True)
    if busy > IDLE_LOAD:
        _console().print(f"The load average was {busy:.1f}: measure again when no other work runs on this machine.")


@app.command()
def results(
    check: Annotated[bool, typer.Option(help="only compare; fails when a page is out of date")] = False,
):
    """Write RESULTS.md and the README.md of every results folder from the published records."""
    from workbench import folders
    from workbench.experiments import ledger

    if folders.checkout() is None:
        raise UserError("results: RESULTS.md belongs to a source checkout, and this is an installed package")
    if check:
        late = ", ".join(map(str, ledger.outdated()))
        if late:
            raise RuntimeError(f"results: out of date: {late}; write again: workbench results")
        return
    for path in ledger.write():
        _console().print(f"wrote {path}", markup=False, soft_wrap=True)


@data.command("list")
def data_list():
    """List the matrices on offer: made here, and suggestions from the SuiteSparse collection."""
    from workbench.app import tables
    from workbench.data import suitesparse, text_matrices
    from workbench.data.matrices import MATRICES

    console = _console()
    console.print(tables.matrices_table(MATRICES))
    console.print(f"Texts: {text_matrices.provenance()}")
    console.print(tables.suitesparse_table(suitesparse))
    console.print(f"Any other: workbench data fetch Group/name. Cache: {suitesparse.folder()}", soft_wrap=True)


@data.command("fetch")
def data_fetch(name: Annotated[str, typer.Argument(help="Group/name in the SuiteSparse collection")]):
    """Download a matrix of the SuiteSparse collection into the cache folder, once."""
    from workbench.data import suitesparse
    from workbench.data.matrices import MATRICES

    if name in MATRICES:
        raise UserError(f"data fetch: {name} is made on this machine, there is nothing to download")
    with _progress(name) as (report, _), users_input():
        was_there = suitesparse.cached(name)
        matrix = suitesparse.suitesparse(
            name, lambda done, total: report(done / total if total else 0.0, f"{name}: {done / 1e6:.1f} MB")
        )
    digest, source = suitesparse.known_hash(name)
    m, n = matrix.shape
    state = "was in the cache" if was_there else "downloaded"
    console = _console()
    console.print(f"{name}: {m:,} x {n:,}, {matrix.nnz:,} entries, {state}", markup=False)
    console.print(f"sha256 {digest} ({source})", markup=False, soft_wrap=True)
    console.print(f"{suitesparse.cached(name)}", markup=False, soft_wrap=True)


def main(arguments=None):
    """Run the command line and exit with its code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        code = app(args=arguments, prog_name="workbench", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        _complain("stopped", debug)
        sys.exit(STOPPED)
    except UserError as error:
        _complain(str(error), debug)
        sys.exit(USER_ERROR)
    except Exception as error:
        usage = getattr(error, "format_message", None)
        if usage:  # the parser's own complaint: unknown command, bad option, help
            _complain(usage(), debug)
            sys.exit(USER_ERROR)
        hint = "" if debug else " (--debug shows where)"
        _complain(f"{_sentence(error)}{hint}", debug)
        sys.exit(FAILURE)
    if code == STOPPED:  # the parser turns Ctrl-C into this code
        _complain("stopped", debug)
    sys.exit(code or 0)


def _complain(sentence, debug):
    if debug and sys.exc_info()[0] not in (None, KeyboardInterrupt):
        import traceback

        traceback.print_exc()
    typer.echo(f"workbench: {' '.join(sentence.split())}", err=True)


def _sentence(error):
    if isinstance(error, OSError) and error.strerror:
        missing = {FileNotFoundError: "no such file", IsADirectoryError: "is a folder, not a file"}
        if error.filename:
            return f"{error.filename}: {missing.get(type(error), error.strerror)}"
        return error.strerror
    if isinstance(error, MemoryError):
        return "out of memory; take a smaller input or --size small"
    return str(error) or type(error).__name__


def _check_target(path):
    """Refuse a target file before the work is done, not after."""
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"--json {path}: is a folder, not a file")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"--json {path}: there is no folder {path.absolute().parent}")


def _console():
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH_IN_FILES
    return console


@contextmanager
def _server_cannot_start(kind):
    try:
        yield
    except kind as error:
        raise UserError(str(error)) from error


@contextmanager
def _as_is():
    yield


@contextmanager
def _progress(title, alive=True):
    """Yield ``report(fraction, step)``, which drives a progress bar on stderr, and ``tell(line)``, which writes above.

    Where stderr is no terminal, neither shows anything. A bar that is not ``alive`` is drawn only when something is
    reported: no thread of ours runs while a bench measures.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"), TimeElapsedColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, auto_refresh=alive, refresh_per_second=4) as bar:
        task = bar.add_task(title, total=1.0)

        def report(fraction, step):
            bar.update(task, completed=fraction, description=escape(step), refresh=not alive)

        def tell(line):
            if bar.console.is_terminal:
                bar.console.print(line, markup=False, highlight=False)

        yield report, tell
