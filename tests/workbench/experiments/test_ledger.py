"""The pages follow from the records: RESULTS.md with one line a paper, and a README.md beside a paper's records."""

import re
from dataclasses import replace

import pytest

from workbench import papers, record
from workbench.experiments import ledger, runner
from workbench.judging import fitted


def test_the_committed_pages_follow_from_the_committed_records():
    assert len(ledger.pages()) > 5
    assert not ledger.outdated(), "run: workbench results"


def test_every_link_of_the_pages_leads_somewhere():
    for page, text in ledger.pages().items():
        for target in re.findall(r"\]\(([^)]+)\)", text):
            assert target.startswith("https://arxiv.org/") or (page.parent / target).is_file(), (page, target)


def test_every_claim_of_the_catalog_has_a_verdict_in_the_records():
    verdicts = {
        (entry["paper"], claim["key"]): claim["verdict"] for entry in record.all_records() for claim in entry["claims"]
    }
    for paper in papers.catalog().values():
        for claim in paper.claims:
            assert verdicts.get((paper.key, claim.key)) in record.VERDICTS, f"{paper.key}: {claim.key}"


def test_committed_records_are_full_runs_on_the_papers_own_input():
    for entry in record.all_records():
        record.validate(entry)
        assert entry["size"] == "full" and entry["matrix"] is None


@pytest.fixture
def written(toy, places):
    """Return text by path of the pages of the toy's records, as they were written."""
    for entry in runner.run("toy", size="full"):
        record.write(entry, publish=True)
    return {path.relative_to(places).as_posix(): path.read_text(encoding="utf-8") for path in ledger.write()}


def test_a_paper_has_one_line_and_a_page_of_its_own(written):
    assert set(written) == {"RESULTS.md", "published/toy/README.md"}
    lines = [line for line in written["RESULTS.md"].splitlines() if "toy" in line]
    assert lines == ["| toys | [`toy`](published/toy/README.md) | Toys \\| and how they run | 1 reproduced, 1 partly |"]
    page = written["published/toy/README.md"]
    assert page.startswith("# Toys | and how they run\n\nA. Maker, 2020. State of the method here: complete.\n")
    assert "| It runs. | Table 1 | 5 m/s (published) | 5 m/s | reproduced | the paper's |" in page
    assert "| There are three. | Section 2 | 3 (from memory) | 3 | partly | the paper's |" in page
    assert "[speeds.json](speeds.json): How fast it runs; timing, 1 rows, seed 1" in page
    assert "`workbench run toy --only counts`" in page
    assert ledger.outdated() == {} and ledger.write() == []


def test_a_claim_of_ours_is_marked_and_not_counted(toy, places, monkeypatch):
    ours = replace(toy, claims=(replace(toy.claims[0], whose="workbench"), toy.claims[1]))
    monkeypatch.setattr(papers, "catalog", lambda: {"toy": ours})
    for entry in runner.run("toy", size="full"):
        record.write(entry, publish=True)
    page, results = (ledger.pages()[places / name] for name in ("published/toy/README.md", "RESULTS.md"))
    assert "| It runs. | Table 1 | 5 m/s (published) | 5 m/s | reproduced | ours, not counted |" in page
    assert "The paper's own claims: 1 partly." in page and "| 1 partly |" in results


def test_a_reason_stands_behind_its_verdict(toy, places, monkeypatch):
    judge = lambda rows: fitted("5 m/s", calibrated="the speed", on="this track")  # noqa: E731
    monkeypatch.setattr(papers, "catalog", lambda: {"toy": replace(toy, claims=(replace(toy.claims[0], judge=judge),))})
    record.write(runner.run("toy", size="full")[0], publish=True)
    page, results = (ledger.pages()[places / name] for name in ("published/toy/README.md", "RESULTS.md"))
    assert "| 5 m/s (published) | 5 m/s | fitted (the speed calibrated on this track) | the paper's |" in page
    assert "The paper's own claims: 1 fitted." in page and "| 1 fitted |" in results


def test_a_paper_without_records_says_how_to_make_them(toy, places):
    assert list(ledger.pages()) == [places / "RESULTS.md"]
    assert (
        "| toys | `toy` | Toys \\| and how they run | not run yet: `workbench run toy --publish` |"
        in ledger.pages()[places / "RESULTS.md"]
    )


def test_a_record_of_a_paper_that_left_the_catalog_stays(written, places, monkeypatch):
    monkeypatch.setattr(papers, "catalog", dict)
    assert "|  | [`toy`](published/toy/README.md) | toy |" in ledger.pages()[places / "RESULTS.md"]


def test_benches_enter_with_goals_and_missing_peers(toy, places):
    group = {"group": "f64", "cases": 2, "geometric_mean": {"best": 0.8, "SciPy": 0.8}, "worst_case": "a|b"}
    group |= {"worst_ratio": 0.5, "goals": [{"against": "best", "wanted": 2.0, "got": 0.8}]}
    group |= {"rate": 2.5e7, "work_unit": "flop", "peak_over_result": {"ours": 1.2}}
    bench = {"bench": "toss", "summary": [group], "threads": 2, "rounds": 7, "date": "2026-01-01T00:00:00"}
    bench |= {
        "load_average": 0.1,
        "machine": {"cpu": "Z80", "isa": "baseline"},
        "missing": [{"name": "MKL"}],
        "failed": [],
    }
    record.write_json(places / "published" / "bench" / "toss.json", bench)
    text = ledger.pages()[places / "published" / "bench" / "README.md"]
    assert (
        "| toss | f64 | 2 | 25 Mflop/s | 0.80 | 0.50 (a\\|b) | SciPy 0.80 | 1.20x the result | best 2: missed |" in text
    )
    assert "missing peers: MKL" in text
    line = "| [`toss`](published/bench/README.md) | 2 | 0.80 | 1 missed |"
    assert line in ledger.pages()[places / "RESULTS.md"]
    assert record.all_records() == []
