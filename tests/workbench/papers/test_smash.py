"""SMASH: experiments yield rows, and every claim can fail."""

import bz2

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from kernels.matrix_bytes import matrix_bytes
from workbench.papers.smash.claims import CLAIMS
from workbench.papers.smash.entry import PAPER

EXPERIMENTS = {experiment.key: experiment.run for experiment in PAPER.experiments}
JUDGES = {claim.key: claim.judge for claim in CLAIMS}


def versions(quantity, values, **labels):
    rows = zip(("V1", "V2", "V3"), values, strict=True)
    return [
        {"matrix": "W0", "version": v, "quantity": quantity, "value": x, "kind": "modelled"} | labels for v, x in rows
    ]


def counted(**values):
    names = {"a": "nnz(A)", "b": "nnz(B)", "c": "nnz(C)"}
    return [{"matrix": "W0", "quantity": names[k], "value": x, "kind": "counted"} for k, x in values.items()]


def moved(row, outer, inner, products=(7, 7, 7)):
    rows = []
    for dataflow, elements, f in zip(("row", "outer", "inner"), (row, outer, inner), products, strict=True):
        rows.append({"dataflow": dataflow, "quantity": "elements moved", "value": elements})
        rows.append({"dataflow": dataflow, "quantity": "products F", "value": f})
    return rows


def exactness(error, wrong):
    return [{"quantity": "largest error", "value": error}, {"quantity": "entries too many or missing", "value": wrong}]


def inputs(*times):
    rows = []
    for place, each in enumerate(times):
        for v, ms in zip(("V1", "V2", "V3"), each, strict=True):
            label = {"matrix": f"input {place}", "log2_slots": 17, "version": v, "hash": "low"}
            rows.append(label | {"quantity": "time", "value": ms})
        rows.append(rows[-1] | {"hash": "multiplicative", "value": 0.001})
    return rows


def probes(high, low, differing=0):
    rows = versions("extra probes", (high, low, low), kind="counted")
    return [*rows, {"quantity": "products whose probes differ, V2 to V3", "value": differing, "matrix": "W0"}]


CASES = [
    ("exact", exactness(1e-14, 0), "reproduced"),
    ("exact", exactness(1e-9, 0), "not reproduced"),
    ("exact", exactness(0.0, 1), "not reproduced"),
    ("input", counted(a=254_968, b=254_893, c=5_222_541), "fitted"),
    ("input", counted(a=254_968, b=254_893, c=5_500_000), "fitted"),
    ("input", counted(a=254_968, b=254_893, c=9_000_000), "not reproduced"),
    ("speedup", versions("time", (940, 400, 100)), "fitted"),
    ("speedup", versions("time", (300, 200, 100)), "not reproduced"),
    ("speedup", versions("time", (90, 95, 100)), "not reproduced"),
    ("tokens", versions("time", (230, 100, 90)), "fitted"),
    ("tokens", versions("time", (400, 100, 90)), "not reproduced"),
    ("tokens", versions("time", (90, 100, 90)), "not reproduced"),
    ("overlap", versions("time", (900, 410, 100)), "fitted"),
    ("overlap", versions("time", (900, 110, 100)), "not reproduced"),
    ("overlap", versions("time", (900, 90, 100)), "not reproduced"),
    ("times", versions("time", (1000, 430, 100)), "fitted"),
    ("times", versions("time", (600, 430, 100)), "not reproduced"),
    ("times", versions("time", (400, 430, 100)), "not reproduced"),
    ("ipc", versions("instructions per cycle", (0.95, 1.6, 2.2)), "fitted"),
    ("ipc", versions("instructions per cycle", (1.27, 1.55, 2.32)), "fitted"),
    ("ipc", versions("instructions per cycle", (2.4, 1.55, 2.32)), "not reproduced"),
    ("bandwidth", versions("DRAM bandwidth in use", (0.5, 0.7, 0.92)), "fitted"),
    ("bandwidth", versions("DRAM bandwidth in use", (0.12, 0.23, 0.92)), "fitted"),
    ("bandwidth", versions("DRAM bandwidth in use", (0.92, 0.23, 0.12)), "not reproduced"),
    ("hit-rate", versions("L1 hit rate", (0.89, 0.9, 0.92)), "fitted"),
    ("hit-rate", versions("L1 hit rate", (0.82, 0.84, 0.84)), "fitted"),
    ("hit-rate", versions("L1 hit rate", (0.5, 0.9, 0.9)), "not reproduced"),
    ("collisions", probes(6.9, 0.15), "fitted"),
    ("collisions", probes(6.9, 0.15, differing=3), "not reproduced"),
    ("collisions", probes(0.1, 0.15), "not reproduced"),
    ("balance", versions("threads busy", (0.31, 0.4, 0.93)), "fitted"),
    ("balance", versions("threads busy", (0.5, 0.6, 0.8)), "not reproduced"),
    ("balance", versions("threads busy", (0.9, 0.6, 0.8)), "not reproduced"),
    ("traffic", moved(11, 17, 8000), "reproduced"),
    ("traffic", moved(17, 11, 8000), "partly"),
    ("traffic", moved(11, 17, 8000, products=(7, 8, 7)), "partly"),
    ("traffic", moved(17, 11, 8), "not reproduced"),
    ("any-input", inputs((3, 2, 1), (9, 5, 4)), "reproduced"),
    ("any-input", inputs((3, 2, 1), (3, 8, 7)), "partly"),
    ("any-input", inputs((3, 8, 7)), "not reproduced"),
]

# Both sides equal on paper: the word is the one that the judge's docstring says.
TIES = [
    ("exact", exactness(1e-12, 0), "reproduced"),
    ("input", counted(a=254_211 * 1.01, b=254_211, c=5_174_841), "fitted"),
    ("input", counted(a=254_211, b=254_211, c=5_174_841 * 0.9), "fitted"),
    ("speedup", versions("time", (700.0, 200.0, 100.0)), "fitted"),
    ("speedup", versions("time", (1100.0, 200.0, 100.0)), "fitted"),
    ("speedup", versions("time", (100.0, 90.0, 100.0)), "not reproduced"),
    ("tokens", versions("time", (170.0, 100.0, 90.0)), "fitted"),
    ("overlap", versions("time", (900.0, 470.0, 100.0)), "fitted"),
    ("times", versions("time", (986.7 * 1.15, 432.5, 105.4 * 0.85)), "fitted"),
    ("times", versions("time", (300.0, 300.0, 100.0)), "not reproduced"),
    ("ipc", versions("instructions per cycle", (0.9 * 1.2, 1.7 * 0.8, 2.3)), "fitted"),
    ("ipc", versions("instructions per cycle", (1.5, 1.5, 2.3)), "not reproduced"),
    ("bandwidth", versions("DRAM bandwidth in use", (0.44, 0.74, 0.96)), "fitted"),
    ("hit-rate", versions("L1 hit rate", (0.88, 0.9, 0.93)), "fitted"),
    ("hit-rate", versions("L1 hit rate", (0.78, 0.9, 0.93)), "fitted"),
    ("collisions", probes(1.5, 0.15), "not reproduced"),
    ("collisions", probes(0.15, 0.15), "not reproduced"),
    ("balance", versions("threads busy", (0.4, 0.5, 0.9)), "fitted"),
    ("balance", versions("threads busy", (0.4, 0.4, 0.95)), "not reproduced"),
    ("any-input", inputs((3.0, 1.0, 1.0)), "reproduced"),
    ("any-input", inputs((3.0, 1.0, 1.0), (3.0, 1.0, 2.0)), "partly"),
]


@pytest.mark.parametrize("key, rows, verdict", CASES)
def test_claims_judge_both_ways(key, rows, verdict):
    ours, got, *because = JUDGES[key](rows)
    assert got == verdict and bool(because) == (got == "fitted")
    assert ours and isinstance(ours, str)


@pytest.mark.parametrize("key, rows, verdict", TIES)
def test_no_verdict_hangs_on_a_tie(words_at_a_tie, key, rows, verdict):
    assert words_at_a_tie(JUDGES[key], rows) == {verdict}


def test_every_claim_is_tried_both_ways():
    tried = {key: {verdict for k, _, verdict in CASES if k == key} for key in JUDGES}
    for verdicts in tried.values():
        assert "not reproduced" in verdicts and verdicts & {"reproduced", "fitted"}
        assert not {"reproduced", "fitted"} <= verdicts


def test_a_fit_says_whether_it_is_near():
    assert "the order only" not in JUDGES["ipc"](versions("instructions per cycle", (0.9 * 1.2, 1.7 * 0.8, 2.3)))[0]
    assert "the order only" in JUDGES["ipc"](versions("instructions per cycle", (0.9 * 1.21, 1.7 * 0.8, 2.3)))[0]
    assert "within 10 points" in JUDGES["hit-rate"](versions("L1 hit rate", (0.87, 0.9, 0.93)))[0]


def test_claims_about_the_reference_workload_need_it():
    rows = [row | {"matrix": "another"} for row in versions("time", (940, 400, 100))]
    with pytest.raises(LookupError):
        JUDGES["speedup"](rows)


@pytest.mark.parametrize("name", ("mine.npz", "mine.npy", "mine.mtx.bz2"))
def test_a_users_matrix_may_be_in_any_known_form(name, tmp_path):
    path, matrix = tmp_path / name, sp.random_array((20, 20), density=0.1, rng=np.random.default_rng(1), format="csc")
    with path.open("wb") as file:
        if name.endswith("npy"):
            np.save(file, matrix.toarray())
        elif name.endswith("npz"):
            sp.save_npz(file, matrix)
        else:
            file.write(bz2.compress(matrix_bytes(matrix, ".mtx")))
    rows = EXPERIMENTS["traffic"](size="full", seed=1, matrix=str(path))
    assert {row["value"] for row in rows if row["quantity"] == "nnz(A)"} == {matrix.nnz}


def test_whole_numbers_that_lose_digits_are_refused(tmp_path):
    path = tmp_path / "mine.mtx"
    path.write_text(f"%%MatrixMarket matrix coordinate integer general\n1 1 1\n1 1 {2**53 + 1}\n")
    with pytest.raises(ValueError, match=r"mine\.mtx: 9007199254740993 has more digits"):
        EXPERIMENTS["traffic"](size="full", seed=1, matrix=str(path))


@pytest.mark.parametrize("key", EXPERIMENTS)
def test_a_users_matrix_takes_the_place_of_the_input(key, tmp_path):
    path = tmp_path / "mine.mtx"
    scipy.io.mmwrite(path, sp.random_array((20, 30), density=0.1, rng=np.random.default_rng(1)))
    rows = EXPERIMENTS[key](size="full", seed=1, matrix=str(path))
    assert {row["matrix"].split(",")[0] for row in rows} == {str(path)}


def test_versions_at_tiny_size_tell_the_modelled_from_the_counted(tiny_run):
    rows = tiny_run("smash", "versions").rows
    kinds = {row["quantity"]: row["kind"] for row in rows}
    assert kinds["time"] == kinds["time, closed form"] == kinds["DRAM bytes, B"] == "modelled"
    assert kinds["extra probes"] == kinds["nnz(C)"] == kinds["tokens"] == "counted"


@pytest.mark.slow
def test_reference_workload_shows_the_claims():
    rows = EXPERIMENTS["versions"](size="full", seed=1)
    assert {c.judge(rows)[1] for c in CLAIMS if c.experiment == "versions"} == {"fitted"}
