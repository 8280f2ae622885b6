"""Prints catalog, rows, verdicts and benches as tables in the terminal."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from workbench import folders
from workbench.judging import at_least
from workbench.record import WITHIN, because, verdict_counts

BUSY = 0.3
MOST_COLUMNS, MOST_LETTERS = 8, 90
COLOURS = {"reproduced": "green", "partly": "yellow", "not reproduced": "red", "fitted": "cyan", "undecided": "magenta"}


def seconds(value: float) -> str:
    """Write a time with a unit that suits it."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if value * factor >= 1 or unit == "µs":
            return f"{value * factor:.3g} {unit}"
    raise AssertionError


def rate(value: float, unit: str) -> str:
    """Write work per second with a prefix that suits it."""
    for prefix, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}/s"
    return f"{value:.3g} {unit}/s"


def papers_table(papers, records) -> Table:
    """Return one row per paper; its own claims with the verdicts that its published records hold."""
    judged = {}
    for record in records:
        judged.setdefault(record["paper"], []).extend(record["claims"])
    table = Table(title="Papers")
    for name in ("key", "title", "family", "state", "notebook", "claims"):
        table.add_column(name, overflow="fold")
    for paper in papers:
        counts = verdict_counts(judged.get(paper.key, []))
        told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "not run"
        own = sum(claim.whose == "paper" for claim in paper.claims)
        title = f"{paper.title} ({paper.authors}, {paper.year})"
        notebook = paper.notebook if (folders.notebooks() / paper.notebook).is_file() else "none yet"
        cells = paper.key, title, paper.family, paper.state, notebook, f"{own}: {told}"
        table.add_row(*map(escape, cells))
    return table


def rows_tables(record: dict) -> list[Table]:
    """Return an experiment's rows as few short tables.

    One label (versions, dataflows) is laid across as columns, the one that saves most lines; quantities with the same
    columns share a table; labels that never change go into the title.
    """
    rows = record["rows"]
    values = {name: list(dict.fromkeys(row.get(name, "") for row in rows)) for name in _labels(rows)}
    fixed = [str(found[0]) for name, found in values.items() if len(found) == 1]
    labels = [name for name, found in values.items() if len(found) > 1]
    across = _label_across(rows, labels)
    labels = [name for name in labels if name != across]
    lines, shapes = {}, {}
    for k, row in enumerate(rows):
        key = _line(row, labels), None if across else k  # rows that are alike stay apart
        lines.setdefault(key, {})[row.get(across, "")] = number(row["value"])
    for (line, _), cells in lines.items():
        shapes.setdefault(tuple(cells), []).append((line, cells))
    title = ", ".join([record["title"], *fixed, f"size {record['size']}", f"seed {record['seed']}"])
    return [_table(title, labels, columns, found) for columns, found in shapes.items()]


def _labels(rows):
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if name not in ("value", "unit", "kind") and not name.startswith(WITHIN)]


def _line(row, labels):
    return tuple(str(row.get(name, "")) for name in (*labels, "unit", "kind"))


def _label_across(rows, labels):
    """Return the label whose values, as columns, leave the fewest lines; None if none saves a line."""
    least, across = len(rows), None
    for name in labels:
        others = [label for label in labels if label != name]
        lines = {}
        for row in rows:
            lines.setdefault(_line(row, others), []).append(row.get(name, ""))
        fits = all(len(set(found)) == len(found) <= MOST_COLUMNS for found in lines.values())
        letters = sum(max(len(str(value)), 8) for value in {row.get(name, "") for row in rows})
        if name != "quantity" and fits and letters <= MOST_LETTERS and len(lines) < least:
            least, across = len(lines), name
    return across


def _table(title, labels, columns, lines):
    table = Table(title=escape(title))
    for name in labels:
        if any(line[labels.index(name)] for line, _ in lines):
            table.add_column(escape(name))
    shown = [k for k, name in enumerate(labels) if any(line[k] for line, _ in lines)]
    for name in columns:
        table.add_column(escape(str(name)) or "value", justify="right")
    table.add_column("unit")
    table.add_column("kind")
    for line, cells in lines:
        told = [line[k] for k in shown]
        table.add_row(*map(escape, (*told, *cells.values(), line[-2], line[-1])))
    return table


def claims_table(records: list[dict]) -> Table:
    """Return every claim: the paper's value, ours, the verdict; a claim of ours says so."""
    table = Table(title="Claims")
    for name in ("claim", "where", "paper", "ours", "verdict"):
        table.add_column(name, overflow="fold")
    for record in records:
        for claim in record["claims"]:
            colour = COLOURS.get(claim["verdict"], "dim")
            whose = "" if claim["whose"] == "paper" else " (our claim)"
            paper = f"{claim['paper_value']} ({claim['tag']})"
            cells = map(escape, (claim["statement"], claim["where"], paper, claim["ours"]))
            table.add_row(*cells, f"[{colour}]{claim['verdict']}[/]{escape(because(claim))}{whose}")
    return table


def findings_table(findings) -> Table:
    """Return what the doctor found."""
    marks = {"good": "[green]good[/]", "note": "[yellow]note[/]", "bad": "[red]bad[/]"}
    table = Table(title="This installation")
    for name in ("", "subject", "found", "what to do"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        table.add_row(marks[finding.state], *map(escape, (finding.subject, finding.found, finding.cure)))
    return table


def matrices_table(matrices: dict) -> Table:
    """Return the matrices that are made on this machine."""
    table = Table(title="Made on this machine")
    for name in ("key", "title", "what it is"):
        table.add_column(name, overflow="fold")
    for key, source in matrices.items():
        table.add_row(*map(escape, (key, source.title, source.description)))
    return table


def suitesparse_table(suitesparse) -> Table:
    """Return the suggested matrices of the SuiteSparse collection and what we know of each file."""
    table = Table(title="From the SuiteSparse collection (workbench data fetch NAME)")
    for name in ("name", "what it is", "cache", "hash"):
        table.add_column(name, overflow="fold")
    for name, entry in suitesparse.registry().items():
        state = "here" if suitesparse.cached(name) else "not yet"
        source = suitesparse.known_hash(name)[1] or "recorded on first use"
        table.add_row(*map(escape, (name, entry["about"], state, source)))
    return table


def number(value) -> str:
    """Write a value: whole numbers with thousands separators, others with five digits."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:.5g}"


def bench_table(record: dict) -> Table:
    """Return one row per case: our time and rate, every peer's time, the ratio to the best peer."""
    peers = list(dict.fromkeys(t["name"] for row in record["cases"] for t in row["timings"] if not t["ours"]))
    table = Table(title=f"{record['title']} (measured, {record['threads']} threads, median of {record['rounds']})")
    table.add_column("case", no_wrap=True)
    for name in ("ours", "spread", "rate", *peers, "best / ours", "of floor"):
        table.add_column(name, justify="right")
    for row in record["cases"]:
        times = {t["name"]: t for t in row["timings"]}
        ours = next((t for t in row["timings"] if t["ours"]), None)
        mine = ("wrong", "", "")
        if ours:
            share = f"±{50 * ours['spread_s'] / ours['median_s']:.0f} %"
            mine = (seconds(ours["median_s"]), share, rate(ours["work_per_s"], row["work_unit"]))
        theirs = [_peer_cell(name, times, row["wrong"]) for name in peers]
        ratio = f"{row['ratios']['best']:.2f}" if row["ratios"] else "-"
        floor = f"{row['fraction_of_floor']:.1%}" if row["fraction_of_floor"] else "-"
        table.add_row(row["name"], *mine, *theirs, ratio, floor)
    return table


def bench_line(row: dict) -> str:
    """Return one finished case in a line, for those who watch a long bench."""
    ours = next((t["median_s"] for t in row["timings"] if t["ours"]), None)
    if ours is None:
        return f"{row['name']}: our result is wrong"
    if not row["ratios"]:
        return f"{row['name']}: {seconds(ours)}"
    return f"{row['name']}: {seconds(ours)}, {row['ratios']['best']:.2f}x {row['best_peer']}"


def bench_summary(record: dict, console: Console) -> None:
    """Print geometric means per group, goals, missing cases and peers, and wrong results."""
    for group in record["summary"]:
        if not group["cases"]:
            continue
        title = f"[bold]{escape(group['group'])}[/], {group['cases']} cases, geometric means"
        console.print(f"{title}: {rate(group['rate'], group['work_unit'])}")
        if group["geometric_mean"]:
            means = ", ".join(f"{name} {value:.2f}" for name, value in group["geometric_mean"].items())
            console.print(f"  peer / ours: {means}")
            console.print(f"  lowest ratio to the best peer: {group['worst_ratio']:.2f} ({group['worst_case']})")
        if group["peak_over_result"]:
            peaks = ", ".join(f"{name} {ratio:.2f}" for name, ratio in group["peak_over_result"].items())
            console.print(f"  largest peak of memory over size of the result: {peaks}")
        for goal in group["goals"]:
            if goal["got"] is not None:
                verdict = "reached" if at_least(goal["got"], goal["wanted"]) else "missed"
                wanted, got = (f"{value:.3g}" for value in (goal["wanted"], goal["got"]))
                console.print(f"  goal {goal['against']} {wanted}: {verdict} ({got})")
    for row in record["cases"]:
        for name, reason in row["wrong"].items():
            console.print(f"[red]wrong[/] {row['name']}, {name}: {reason}")
    fewer = {t["name"]: t["threads"] for row in record["cases"] for t in row["timings"]}
    for name, threads in fewer.items():
        if threads < record["threads"]:
            console.print(f"{name} runs on {threads} thread{'s' if threads > 1 else ''} only")
    for case in record["failed"]:
        console.print(f"[red]no figure[/] {case['reason']}. Cure: {case['cure']}", markup=True)
    for peer in record["missing"]:
        console.print(f"[yellow]missing peer[/] {peer['name']}: {peer['reason']}. Cure: {peer['cure']}", markup=True)
    machine, load = record["machine"], record["load_average"]
    if load is not None and load > BUSY * machine["cpus"]:
        console.print(
            f"[yellow]busy machine[/]: before the run {load} threads wanted the {machine['cpus']} CPUs; "
            "contenders with more threads suffer more"
        )
    console.print(f"{machine['cpu']}, {machine['isa']}, {record['wall_s']:.0f} s")


def _peer_cell(name, times, wrong):
    if name in times:
        return seconds(times[name]["median_s"])
    return "wrong" if name in wrong else "-"
