"""Writes the pages that follow from the published records: RESULTS.md, one line a paper, and a README.md per folder."""

import json
import os
from pathlib import Path

from workbench import folders, papers, record
from workbench.judging import at_least

NAME = "RESULTS.md"


def write() -> list[Path]:
    """Write the pages that are out of date and return their paths; none outside a source checkout."""
    late = outdated()
    for path, text in late.items():
        record.write_text(path, text)
    return list(late)


def outdated() -> dict[Path, str]:
    """Return path -> text of the pages that are not there or do not follow from the records."""
    return {
        path: text for path, text in pages().items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    }


def pages() -> dict[Path, str]:
    """Return path -> text of every page; none outside a source checkout."""
    root = folders.checkout()
    if root is None:
        return {}
    catalog, records = papers.catalog(), {}
    for entry in record.all_records():
        records.setdefault(entry["paper"], []).append(entry)
    benches = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted((folders.published() / "bench").glob("*.json"))
    ]
    found = {root / NAME: _results(root, catalog, records, benches)}
    found |= {_page(key): _paper_page(root, key, catalog.get(key), entries) for key, entries in records.items()}
    if benches:
        found[_page("bench")] = _bench_page(benches)
    return found


def _page(key):
    return folders.published() / key / "README.md"


def _link(text, page, start):
    return f"[{text}]({Path(os.path.relpath(page, start)).as_posix()})"


def _explained(root, start=None):
    return (
        f"What verdicts, labels and units mean: {_link('docs/labels.md', root / 'docs' / 'labels.md', start or root)}."
    )


# RESULTS.md ----------------------------------------------------------------------------------------------------------


def _results(root, catalog, records, benches):
    known = {key: (catalog[key].family, catalog[key].title) if key in catalog else ("", key) for key in records}
    known |= {key: (paper.family, paper.title) for key, paper in catalog.items()}
    lines = [
        "# Results",
        "",
        "What our experiments say of the papers' claims: made by `workbench results` from the records in",
        "`workbench/results`, never edited by hand. A paper's own claims are counted; its page shows them beside ours,",
        f"and claims of ours, too. {_explained(root)}",
        "",
        "| family | key | paper | verdicts |",
        "|---|---|---|---|",
    ]
    for key in sorted(known, key=lambda key: (known[key][0], key)):
        place, told = f"`{key}`", f"not run yet: `workbench run {key} --publish`"
        if key in records:
            place, told = _link(place, _page(key), root), _counts(records[key])
        lines.append(_row(known[key][0], place, known[key][1], told))
    if benches:
        lines += ["", "Kernels beside their peers, measured: ratio of times, peer / ours, and what was aimed at.", ""]
        lines += ["| bench | cases | best peer / ours, mean of each group | goals |", "|---|---|---|---|"]
        lines += [_bench_line(bench, root) for bench in benches]
    return "\n".join([*lines, ""])


def _counts(entries):
    counts = record.verdict_counts(claim for entry in entries for claim in entry["claims"])
    return ", ".join(f"{count} {word}" for word, count in counts.items()) or "no claim"


def _bench_line(bench, root):
    means = [group["geometric_mean"]["best"] for group in bench["summary"] if group["geometric_mean"]]
    goals = [_reached(goal) for group in bench["summary"] for goal in group["goals"] if goal["got"] is not None]
    cases = sum(group["cases"] for group in bench["summary"])
    ratio = " to ".join(dict.fromkeys(f"{mean:.2f}" for mean in (min(means), max(means)))) if means else "no peer"
    told = ", ".join(f"{goals.count(word)} {word}" for word in ("reached", "missed") if word in goals)
    return _row(_link(f"`{bench['bench']}`", _page("bench"), root), cases, ratio, told or "none")


# One paper's page ----------------------------------------------------------------------------------------------------


def _paper_page(root, key, paper, entries):
    lines = [f"# {paper.title if paper else key}", ""]
    if paper:
        arxiv = f", [arXiv:{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else ""
        lines += [f"{paper.authors}, {paper.year}{arxiv}. State of the method here: {paper.state.rstrip('.')}.", ""]
    lines += [
        f"Made by `workbench run {key} --publish` from the records in this folder, never edited by hand.",
        "Values tagged *from memory* could not be checked against the paper's text.",
        _explained(root, _page(key).parent),
        "",
    ]
    claims = [claim for entry in entries for claim in entry["claims"]]
    if claims:
        lines += [f"The paper's own claims: {_counts(entries)}.", ""]
        lines += ["| claim | where | paper | ours | verdict | whose claim |", "|---|---|---|---|---|---|"]
    for claim in claims:
        paper_value = f"{claim['paper_value']} ({claim['tag']})"
        whose = "ours, not counted" if claim["whose"] == "workbench" else "the paper's"
        word = claim["verdict"] + record.because(claim)
        lines.append(_row(claim["statement"], claim["where"], paper_value, claim["ours"], word, whose))
    lines += ["", "Records:", ""] if claims else ["Records:", ""]
    for entry in entries:
        machine, name = entry["machine"], f"{entry['experiment']}.json"
        lines.append(
            f"- [{name}]({name}): {entry['title']}; {entry['kind']}, {len(entry['rows'])} rows, seed {entry['seed']}, "
            f"{entry['wall_s']:.0f} s on {machine['cpu']} ({machine['isa']}, {machine['threads']} threads), "
            f"{entry['date'][:10]}"
        )
    only = f"`workbench run {key} --only {entries[0]['experiment']}`"
    return "\n".join([*lines, "", f"Run it again: `workbench run {key}`, or one experiment: {only}.", ""])


# The benches' page ---------------------------------------------------------------------------------------------------


def _bench_page(benches):
    lines = [
        "# Kernels beside their peers (measured)",
        "",
        "Made by `workbench bench OP --record` from the records in this folder; never edited by hand.",
        "Ratio of times, peer / ours: above 1 we are faster.",
        "",
        "| bench | group | cases | our rate | best peer | lowest | each peer | memory | goals |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for bench in benches:
        lines += [_group_row(bench["bench"], group) for group in bench["summary"] if group["cases"]]
        machine = bench["machine"]
        absent, unmeasured = (", ".join(x["name"] for x in bench[key]) or "none" for key in ("missing", "failed"))
        notes.append(
            f"- [{bench['bench']}]({bench['bench']}.json): {bench['threads']} threads, median of {bench['rounds']}, "
            f"{machine['cpu']} ({machine['isa']}), {bench['load_average']} other threads at the start, missing peers: "
            f"{absent}, cases without a figure: {unmeasured}, {bench['date'][:10]}"
        )
    return "\n".join([*lines, "", *notes, "", "Run it again: `workbench bench OP --record`", ""])


def _group_row(name, group):
    means = group["geometric_mean"]
    each = ", ".join(f"{peer} {mean:.2f}" for peer, mean in means.items() if peer != "best")
    goals = ", ".join(
        f"{goal['against']} {goal['wanted']:.3g}: {_reached(goal)}"
        for goal in group["goals"]
        if goal["got"] is not None
    )
    peak = group["peak_over_result"].get("ours")
    memory = f"{peak:.2f}x the result" if peak else "not measured"
    best, lowest = "no peer", ""
    if means:
        best, lowest = f"{means['best']:.2f}", f"{group['worst_ratio']:.2f} ({group['worst_case']})"
    rate = f"{group['rate'] / 1e6:.3g} M{group['work_unit']}/s"
    return _row(name, group["group"], group["cases"], rate, best, lowest, each, memory, goals)


def _reached(goal):
    return "reached" if at_least(goal["got"], goal["wanted"]) else "missed"


def _row(*cells):
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
