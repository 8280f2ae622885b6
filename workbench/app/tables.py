"""Prints catalog, rows, verdicts and benches as tables in the terminal."""

from rich.console import Console
from rich.table import Table


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
        floor = f"{row['fraction_of_floor']:.2f}" if row.get("fraction_of_floor") else "-"
        table.add_row(row["name"], *mine, *theirs, ratio, floor)
    return table


def bench_summary(record: dict, console: Console) -> None:
    """Print geometric means per group, goals, missing peers and wrong results."""
    for group in record["summary"]:
        if not group["cases"]:
            continue
        means = ", ".join(f"{name} {value:.2f}" for name, value in group["geometric_mean"].items())
        console.print(f"[bold]{group['group']}[/]: geometric mean of peer / ours over {group['cases']} cases: {means}")
        console.print(f"  lowest ratio to the best peer: {group['worst_ratio']:.2f} ({group['worst_case']})")
        for goal in group["goals"]:
            if goal["got"] is not None:
                verdict = "reached" if goal["got"] >= goal["wanted"] else "missed"
                console.print(f"  goal {goal['wanted']}x {goal['against']}: {verdict} ({goal['got']:.2f}x)")
    for row in record["cases"]:
        for name, reason in row["wrong"].items():
            console.print(f"[red]wrong[/] {row['name']}, {name}: {reason}")
    for peer in record["missing"]:
        console.print(f"[yellow]missing peer[/] {peer['name']}: {peer['reason']}. Cure: {peer['cure']}", markup=True)
    for row in record["cases"]:
        peaks = [(t["name"], t["peak_bytes"]) for t in row["timings"] if t.get("peak_bytes") is not None]
        if peaks:
            shares = ", ".join(f"{name} {peak / 1e6:.1f} MB" for name, peak in peaks)
            console.print(f"peak of memory, {row['name']}: result {row['result_bytes'] / 1e6:.1f} MB; {shares}")
    machine = record["machine"]
    console.print(f"{machine['cpu']}, {machine['isa']}, {record['wall_s']:.0f} s")


def _peer_cell(name, times, wrong):
    if name in times:
        return seconds(times[name]["median_s"])
    return "wrong" if name in wrong else "-"
