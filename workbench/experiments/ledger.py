"""Writes RESULTS.md from the published records: what each paper claims, what we get, and how far that agrees."""

import json
from pathlib import Path

from workbench import folders, papers, record

NAME = "RESULTS.md"


def render() -> str:
    """Return RESULTS.md as it follows from the published records."""
    records = record.all_records()
    lines = [
        "# Results",
        "",
        "Made by `workbench results` from the records in `workbench/results`; never edited by hand.",
        "*measured* was timed on the machine named, *modelled* comes from a machine model, *counted* is exact.",
        "Values tagged *from memory* could not be checked against the paper's text.",
        "",
    ]
    by_paper = {}
    for entry in records:
        by_paper.setdefault(entry["paper"], []).append(entry)
    for key, entries in by_paper.items():
        lines += _paper_section(key, entries)
    lines += _bench_section()
    if len(lines) == 6:
        lines += ["No record yet: `workbench run PAPER` makes one.", ""]
    return "\n".join(lines)


def write() -> Path | None:
    """Write RESULTS.md into the checkout and return its path; None when there is no checkout."""
    root = folders.checkout()
    if root is None:
        return None
    record.write_text(root / NAME, render())
    return root / NAME


def _paper_section(key, entries):
    paper = papers.catalog().get(key)
    title = f"{paper.title} ({paper.authors}, {paper.year})" if paper else key
    lines = [f"## {_cell(title)}", ""]
    claims = [claim for entry in entries for claim in entry["claims"]]
    if claims:
        lines += ["| claim | where | paper | ours | verdict |", "|---|---|---|---|---|"]
    for claim in claims:
        paper_value = f"{claim['paper_value']} ({claim['tag']})"
        cells = claim["statement"], claim["where"], paper_value, claim["ours"], claim["verdict"]
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    lines.append("")
    for entry in entries:
        machine = entry["machine"]
        lines.append(
            f"- {_cell(entry['title'])}: {len(entry['rows'])} rows, {entry['kind']}, seed {entry['seed']}, "
            f"{entry['wall_s']:.0f} s on {machine['cpu']} ({machine['isa']}, {machine['threads']} threads), "
            f"{entry['date'][:10]}; [record](workbench/results/{key}/{entry['experiment']}.json)"
        )
    return [*lines, "", f"Again: `workbench run {key}`", ""]


def _bench_section():
    paths = sorted((folders.published() / "bench").glob("*.json"))
    if not paths:
        return []
    lines = ["## Kernels beside their peers (measured)", "", "Ratio of times, peer / ours: above 1 we are faster.", ""]
    lines += [
        "| bench | group | cases | our rate | best peer | lowest | each peer | memory | goals |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for path in paths:
        bench = json.loads(path.read_text(encoding="utf-8"))
        for group in bench["summary"]:
            if not group["cases"]:
                continue
            means = group["geometric_mean"]
            each = ", ".join(f"{name} {mean:.2f}" for name, mean in means.items() if name != "best")
            goals = ", ".join(
                f"{goal['against']} {goal['wanted']:.3g}: {'reached' if goal['got'] >= goal['wanted'] else 'missed'}"
                for goal in group["goals"]
                if goal["got"] is not None
            )
            peak = group["peak_over_result"].get("ours")
            memory = f"{peak:.2f}x the result" if peak else "not measured"
            best, lowest = "no peer", ""
            if means:
                best, lowest = f"{means['best']:.2f}", f"{group['worst_ratio']:.2f} ({group['worst_case']})"
            rate = f"{group['rate'] / 1e6:.3g} M{group['work_unit']}/s"
            cells = bench["bench"], group["group"], group["cases"], rate, best, lowest, each, memory, goals
            lines.append(f"| {' | '.join(_cell(str(cell)) for cell in cells)} |")
        machine = bench["machine"]
        absent, unmeasured = (", ".join(x["name"] for x in bench[key]) or "none" for key in ("missing", "failed"))
        notes.append(
            f"- {bench['bench']}: {bench['threads']} threads, median of {bench['rounds']}, {machine['cpu']} "
            f"({machine['isa']}), {bench['load_average']} other threads at the start, missing peers: {absent}, "
            f"cases without a figure: {unmeasured}, {bench['date'][:10]}"
        )
    return [*lines, "", *notes, "", "Again: `workbench bench OP --record`", ""]


def _cell(text):
    return text.replace("|", "\\|").replace("\n", " ")
