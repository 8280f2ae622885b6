"""The command line: ``workbench COMMAND``."""

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def _root():
    """Sparse kernels, models and papers: run them, time them, look at them."""


@app.command()
def bench(
    op: Annotated[str, typer.Argument(help="operation, such as spgemm")],
    quick: Annotated[bool, typer.Option(help="fewer and smaller cases")] = False,
    case: Annotated[str, typer.Option(help="glob over case names")] = "*",
    threads: Annotated[int | None, typer.Option(min=1, max=256, help="for every contender alike")] = None,
    rounds: Annotated[int, typer.Option(min=7, help="interleaved rounds")] = 7,
    memory: Annotated[bool, typer.Option(help="also measure each contender's peak of memory")] = False,
):
    """Check an operation's results, then time it side by side with its peers."""
    from rich.console import Console
    from rich.progress import Progress

    from workbench.app import tables
    from workbench.bench import registry, runner

    console = Console()
    chosen = registry.get(op)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(op, total=1.0)
        record = runner.run(
            chosen,
            quick=quick,
            case=case,
            threads=threads,
            rounds=rounds,
            memory=memory,
            report=lambda fraction, step: progress.update(task, completed=fraction, description=step),
        )
    console.print(tables.bench_table(record))
    tables.bench_summary(record, console)


def main():
    """Run the command line."""
    app()
