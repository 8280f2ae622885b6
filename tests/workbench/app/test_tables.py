from types import SimpleNamespace

from rich.console import Console

from workbench.app.tables import claims_table, number, papers_table, rate, rows_tables, seconds


def show(rows):
    record = {"title": "Speeds", "size": "tiny", "seed": 1, "rows": rows}
    with Console(width=200, record=True, quiet=False, file=open("/dev/null", "w")) as console:
        for table in rows_tables(record):
            console.print(table)
    return console.export_text()


def make_row(quantity, value, **labels):
    return {"quantity": quantity, "value": value, "unit": "m", "kind": "counted", **labels}


def test_a_label_with_few_values_becomes_columns_and_quantities_share_them():
    rows = [make_row(q, k, version=v) for k, (q, v) in enumerate([("a", "V1"), ("a", "V2"), ("b", "V1"), ("b", "V2")])]
    tables = rows_tables({"title": "t", "size": "tiny", "seed": 1, "rows": [*rows, make_row("total", 7)]})
    assert [[c.header for c in t.columns] for t in tables] == [
        ["quantity", "V1", "V2", "unit", "kind"],
        ["quantity", "value", "unit", "kind"],
    ]
    assert list(tables[0].columns[2].cells) == ["1", "3"]


def test_the_parts_of_a_mean_take_no_columns():
    rows = [
        make_row("error", 0.5, point="a") | {"in layers.0": 0.25, "in layers.1": 0.75},
        make_row("size", 3, point="b"),
    ]
    assert [
        [c.header for c in t.columns] for t in rows_tables({"title": "t", "size": "tiny", "seed": 1, "rows": rows})
    ] == [["quantity", "point", "value", "unit", "kind"]]


def test_no_value_is_lost_when_rows_are_alike():
    text = show([make_row("a", 11, version="V1"), make_row("a", 22, version="V1"), make_row("a", 33, version="V2")])
    assert all(value in text for value in ("11", "22", "33"))


def test_markup_in_values_is_shown_as_it_is():
    assert "[bold]x[/]" in show([make_row("[bold]x[/]", 1), make_row("y", 2)])


def test_constant_labels_go_into_the_title():
    assert "Speeds, W0, size tiny, seed 1" in show([make_row("a", 1, matrix="W0"), make_row("b", 2, matrix="W0")])


def test_numbers_read_well():
    assert [number(v) for v in (1234567, 3.0, 0.123456789, "x", True)] == ["1,234,567", "3", "0.12346", "x", "True"]
    assert [seconds(v) for v in (2.5, 0.0123, 4.2e-6)] == ["2.5 s", "12.3 ms", "4.2 µs"]
    assert rate(2.5e9, "flop") == "2.5 Gflop/s" and rate(12, "flop") == "12 flop/s"


def make_claim(verdict, whose="paper"):
    told = {"statement": "It runs.", "where": "", "paper_value": "5", "tag": "published", "ours": "5"}
    return told | {"verdict": verdict, "whose": whose}


def test_only_the_papers_own_claims_are_counted():
    own, ours = SimpleNamespace(whose="paper"), SimpleNamespace(whose="workbench")
    paper = {"key": "toy", "title": "Toys", "authors": "A", "year": 2020, "family": "toys", "state": "complete"}
    paper = SimpleNamespace(**paper, notebook="papers/toy.ipynb", claims=(own, own, ours))
    record = {
        "paper": "toy",
        "claims": [make_claim("undecided"), make_claim("fitted"), make_claim("partly", "workbench")],
    }
    table = papers_table([paper], [record])
    assert list(table.columns[-1].cells) == ["2: 1 fitted, 1 undecided"]
    assert list(papers_table([paper], []).columns[-1].cells) == ["2: not run"]


def test_a_verdict_has_a_colour_and_a_claim_of_ours_says_so():
    claims = [make_claim(word) for word in ("reproduced", "partly", "not reproduced", "fitted", "undecided")]
    cells = list(claims_table([{"claims": [*claims, make_claim("partly", "workbench")]}]).columns[-1].cells)
    assert len(set(cells)) == 6 and not any("dim" in cell for cell in cells)
    assert cells[-1] == "[yellow]partly[/] (our claim)"


def test_a_reason_stands_behind_its_verdict():
    claim = make_claim("undecided", "workbench") | {"because": "attention has not learned: [bold]"}
    cell = next(iter(claims_table([{"claims": [claim]}]).columns[-1].cells))
    assert cell == "[magenta]undecided[/] (attention has not learned: \\[bold]) (our claim)"
