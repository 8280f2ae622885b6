from pathlib import Path

from workbench import record
from workbench.experiments import ledger, runner

ROOT = Path(__file__).resolve().parents[3]


def test_results_follow_from_the_committed_records():
    assert (ROOT / ledger.NAME).read_text(encoding="utf-8") == ledger.render(), "run: workbench results"


def test_every_claim_of_the_catalog_has_a_verdict_in_the_records():
    from workbench.papers import catalog

    verdicts = {
        (entry["paper"], claim["key"]): claim["verdict"] for entry in record.all_records() for claim in entry["claims"]
    }
    for paper in catalog().values():
        for claim in paper.claims:
            assert verdicts.get((paper.key, claim.key)) in ("reproduced", "partly", "not reproduced"), claim.key


def test_committed_records_are_full_runs_on_the_papers_own_input():
    for entry in record.all_records():
        record.validate(entry)
        assert entry["size"] == "full" and entry["matrix"] is None


def test_a_claim_stands_beside_ours(toy, places):
    for entry in runner.run("toy", size="full"):
        record.write(entry)
    text = ledger.render()
    assert "## Toys \\| and how they run (A. Maker, 2020)" in text
    assert "| It runs. | Table 1 | 5 m/s (published) | 5 m/s | reproduced |" in text
    assert "| There are three. | Section 2 | 3 (from memory) | 3 | partly |" in text
    assert "workbench run toy" in text
    ledger.write()
    assert (places / ledger.NAME).read_text(encoding="utf-8") == text


def test_without_records_the_ledger_says_how_to_make_one(toy, places):
    assert "workbench run PAPER" in ledger.render()


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
    text = ledger.render()
    assert (
        "| toss | f64 | 2 | 25 Mflop/s | 0.80 | 0.50 (a\\|b) | SciPy 0.80 | 1.20x the result | best 2: missed |" in text
    )
    assert "missing peers: MKL" in text
    assert record.all_records() == []
