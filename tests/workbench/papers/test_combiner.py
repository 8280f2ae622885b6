"""Combiner: every claim can fail, and what the rows of its experiments promise."""

import pytest

from workbench.models.attention.combiner import PATTERNS
from workbench.papers.combiner.claims import CLAIMS, growth

JUDGES = {claim.key: claim.judge for claim in CLAIMS}


def matrix(empty=0, future=0.0, error=1e-15):
    names = {"pairs without weight": empty, "weight on the future": future, "rows' sums from one": 1e-16,
             "matrix against method": error}  # fmt: skip
    return [{"quantity": name, "value": value} for name, value in names.items()]


def bits(full=1.97, alone=2.15, fixed=2.04, logsparse=2.04, mixture=2.0, rows=1.98, others=2.05, seed=1):
    values = {
        "full attention": full,
        "own row alone": 2.2,
        **{f"{p} alone": alone for p in ("fixed", "logsparse", "axial_mixture")},
        "Combiner fixed": fixed,
        "Combiner logsparse": logsparse,
        "Combiner axial_mixture": mixture,
        "Combiner axial_rowmajor": rows,
        "Combiner axial_rowmajor, proj": others,
        "Combiner axial_vertical": others,
    }
    return [{"quantity": "bits per pixel", "method": name, "value": x, "seed": seed} for name, x in values.items()]


def grown(fixed, logsparse, dense, by_count=(1.5, 1.1)):
    rows = []
    times = {"fixed": fixed, "logsparse": logsparse, "axial_mixture": 1.5, "dense (torch)": dense}
    counts = dict(zip(("fixed", "logsparse"), by_count, strict=True))
    for quantity, exponents in (("time", times), ("operations", counts)):
        for method, exponent in exponents.items():
            rows += [{"quantity": quantity, "method": method, "tokens": n, "value": float(n) ** exponent}
                     for n in (1024, 2048, 4096)]  # fmt: skip
    return rows


CASES = [
    ("support", matrix(), "reproduced"),
    ("support", matrix(empty=3), "partly"),
    ("support", matrix(future=0.1), "not reproduced"),
    ("support", matrix(error=1e-3), "not reproduced"),
    ("fixed", bits(), "reproduced"),
    ("fixed", bits(fixed=2.12), "partly"),
    ("fixed", bits(fixed=2.2), "not reproduced"),
    ("fixed", bits(fixed=1.9) + bits(fixed=2.15, seed=2), "not reproduced"),  # 0.125 ± 0.125 over seeds
    ("logsparse", bits(), "reproduced"),
    ("logsparse", bits(logsparse=2.12), "partly"),
    ("logsparse", bits(logsparse=2.2), "not reproduced"),
    ("axial", bits(), "reproduced"),
    ("axial", bits(rows=2.12), "partly"),
    ("axial", bits(rows=2.2, mixture=1.97), "not reproduced"),  # the mixture is another Combiner
    ("near-full", bits(mixture=2.1), "reproduced"),  # fixed closes 61 per cent of the gap, row-major 94
    ("near-full", bits(rows=2.0), "partly"),  # 61 and 83
    ("near-full", bits(fixed=2.09), "partly"),  # 33 and 94
    ("near-full", bits(fixed=2.09, rows=2.0), "not reproduced"),
    ("near-full", bits(fixed=1.97, rows=2.1) + bits(fixed=2.1, rows=2.1, seed=2), "not reproduced"),  # 64 ± 36 per cent
    ("images", bits(rows=2.05), "reproduced"),
    ("images", bits(others=1.99), "partly"),
    ("images", bits(rows=1.9) + bits(rows=2.08, seed=2), "reproduced"),  # 0.010 ± 0.090 ahead of the mixture
    ("images", bits(mixture=2.3), "not reproduced"),
    ("cost", grown(1.5, 1.1, 2.0), "reproduced"),
    ("cost", grown(1.9, 1.1, 2.0), "partly"),
    ("cost", grown(1.9, 1.1, 2.0, by_count=(2.0, 1.1)), "not reproduced"),
]

# Both sides equal on paper: the word is the one that the judge's docstring says.
TIES = [
    ("support", matrix(error=1e-12), "reproduced"),
    ("fixed", bits(alone=2.15, fixed=2.1), "reproduced"),
    ("fixed", bits(alone=2.15, fixed=2.15), "not reproduced"),
    ("logsparse", bits(alone=2.15, logsparse=2.1), "reproduced"),
    ("axial", bits(alone=2.15, rows=2.15), "not reproduced"),
    ("near-full", bits(full=1.72, alone=2.5, fixed=2.16, rows=1.73), "reproduced"),  # 0.34 of 0.78, as in the paper
    ("near-full", bits(full=0.44, alone=4.0, fixed=2.0, rows=0.74), "reproduced"),  # 3.26 of 3.56, as in the paper
    ("images", bits(mixture=2.0, rows=2.0, others=2.0), "reproduced"),
    ("images", bits(mixture=2.15, alone=2.15), "not reproduced"),
    ("cost", grown(1.7, 1.1, 2.0), "partly"),
    ("cost", grown(1.5, 1.3, 2.0), "partly"),
    ("cost", grown(1.6, 1.1, 1.6), "partly"),
    ("cost", grown(1.4, 1.1, 1.5), "partly"),
]


@pytest.mark.parametrize("key, rows, verdict", CASES)
def test_claims_judge_both_ways(key, rows, verdict):
    ours, got = JUDGES[key](rows)
    assert got == verdict, ours
    assert ours and isinstance(ours, str)


@pytest.mark.parametrize("key, rows, verdict", TIES)
def test_no_verdict_hangs_on_a_tie(words_at_a_tie, key, rows, verdict):
    assert words_at_a_tie(JUDGES[key], rows) == {verdict}


def test_every_claim_is_tried_both_ways():
    tried = {key: {verdict for k, _, verdict in CASES if k == key} for key in JUDGES}
    assert all({"reproduced", "not reproduced"} <= verdicts for verdicts in tried.values())
    assert set().union(*tried.values()) == {"reproduced", "partly", "not reproduced"}


def test_claims_need_the_rows_they_speak_of():
    with pytest.raises(LookupError):
        JUDGES["fixed"]([row for row in bits() if row["method"] != "Combiner fixed"])
    with pytest.raises(LookupError):
        growth(grown(1.5, 1.1, 2.0), "time", "axial_vertical")


def test_patterns_that_are_compared_have_equal_parameters(tiny_run):
    rows = [row for row in tiny_run("combiner", "pictures").rows if row["quantity"] == "parameters"]
    size = {row["method"]: row["value"] for row in rows}
    own = {"Combiner fixed, DeepSets", "Combiner axial_rowmajor, proj"}
    assert len({value for name, value in size.items() if name not in own}) == 1
    assert all(size[name] > size["full attention"] for name in own)


def test_every_pattern_is_trained(tiny_run):
    methods = {row["method"] for row in tiny_run("combiner", "pictures").rows}
    assert {f"Combiner {pattern}" for pattern in PATTERNS} <= methods


def test_what_a_pattern_loses_is_a_share_and_distances_are_bounded(tiny_run):
    for row in tiny_run("combiner", "lost").rows:
        assert 0 <= row["value"] <= (1 if row["unit"] == "fraction" else 2), row


def test_cost_times_and_counts_every_pattern_at_every_length(tiny_run):
    rows = tiny_run("combiner", "cost").rows
    found = {(r["quantity"], r["tokens"], r["method"]) for r in rows}
    quantities, methods = ("time", "operations", "largest tensor"), (*PATTERNS, "dense (torch)")
    assert found == {(q, t, m) for q in quantities for t in (256, 512) for m in methods} and len(rows) == len(found)
    assert all(0 <= r["spread_ms"] < 1e3 and r["rounds"] == 2 for r in rows if r["quantity"] == "time")
