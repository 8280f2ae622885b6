import json

import pytest

from workbench.bench import registry, runner
from workbench.bench.memory import rise_of_resident_set
from workbench.bench.own_process import peak_bytes, timed_row
from workbench.bench.timing import Bench, Case, CaseSpec, Contender, Goal, Peer


def _absent():
    raise ImportError("no such library")


def make_bench(results, **options):
    """Return a bench whose contenders return what ``results`` says, by name."""

    def build(loaded):
        contenders = [Contender("ours", lambda: results["ours"], 2, ours=True)]
        contenders += [Contender(name, lambda name=name: results[name], 1) for name in loaded]

        def check(name, result):
            if result != 42:
                raise ValueError(f"got {result}")

        return Case(10.0, "flop", tuple(contenders), check, facts={"n": 3}, result_bytes=100)

    def specs(quick, threads, loaded):
        names = ["one/f64", "two/f64", "one/f32"]
        return [CaseSpec(name, name.split("/")[1], lambda: build(loaded)) for name in names]

    peers = [Peer(name, lambda: None, "pip install it") for name in results if name != "ours"]
    peers.append(Peer("absent", _absent, "pip install absent"))
    return Bench("toy", "Toys", tuple(peers), specs, lambda threads, loaded: None, **options)


def test_the_record_holds_times_ratios_goals_and_missing_peers():
    promised = {"best": 1e9, "peer": 0.0, "lowest": 1e9, "rate": 1.0}
    goals = tuple(Goal("f64", against, least) for against, least in promised.items())
    bench = make_bench({"ours": 42, "peer": 42}, goals=goals)
    done = []
    record = runner.run(bench, threads=2, done=done.append)
    assert json.loads(json.dumps(record)) == record
    assert record["missing"] == [
        {"name": "absent", "reason": "ImportError: no such library", "cure": "pip install absent"}
    ]
    assert [row["name"] for row in done] == ["one/f64", "two/f64", "one/f32"]
    row = record["cases"][0]
    ours, peer = row["timings"]
    assert row["ratios"]["best"] == row["ratios"]["peer"] == peer["median_s"] / ours["median_s"]
    assert row["best_peer"] == "peer" and row["fraction_of_floor"] is None
    assert ours["work_per_s"] == 10.0 / ours["median_s"] and (ours["threads"], peer["threads"]) == (2, 1)
    group = record["summary"][0]
    ratios = [r["ratios"]["best"] for r in record["cases"][:2]]
    assert group["geometric_mean"]["best"] == pytest.approx((ratios[0] * ratios[1]) ** 0.5)
    assert group["worst_ratio"] == min(ratios)
    assert [goal["got"] >= goal["wanted"] for goal in group["goals"]] == [False, True, False, True]
    assert group["goals"][2]["got"] == group["worst_ratio"]
    assert group["rate"] == pytest.approx(group["goals"][3]["got"])


def test_memory_is_measured_in_a_process_of_its_own(monkeypatch):
    asked = []

    def peak(*arguments):
        asked.append(arguments)
        return {"ours": 150, "peer": None}[arguments[2]]

    monkeypatch.setattr(runner, "peak_bytes", peak)
    record = runner.run(make_bench({"ours": 42, "peer": 42}), case="one/f64", threads=1, memory=True)
    assert asked == [("toy", "one/f64", name, False, 1) for name in ("ours", "peer")]
    assert record["summary"][0]["peak_over_result"] == {"ours": 1.5}


@pytest.mark.slow
def test_a_child_measures_a_real_case():
    peak = peak_bytes("spgemm", "rmat-12x8 A*A/f64/sorted", "SciPy", True, 1)
    assert peak is None or 13e6 < peak < 60e6


@pytest.mark.slow
def test_a_case_in_a_process_of_its_own_has_the_same_row():
    row = timed_row("spgemm", "rmat-12x8 A*A/f64/sorted", True, 1, 7)
    assert row["name"] == "rmat-12x8 A*A/f64/sorted" and not row["wrong"]
    assert row["facts"]["products"] == row["work"] / 2
    assert {t["name"] for t in row["timings"]} >= {"ours", "SciPy"}


def test_a_case_whose_process_ends_is_named_and_the_others_stay(monkeypatch):
    def timed(bench, case, quick, threads, rounds):
        if case == "two/f64":
            raise RuntimeError("two/f64: its process ended without an answer (exit status -9)")
        return runner.measured_row(next(s for s in toy.specs(quick, threads, []) if s.name == case), rounds)

    toy = make_bench({"ours": 42}, own_process=True)
    monkeypatch.setattr(runner, "timed_row", timed)
    record = runner.run(toy, threads=1)
    assert [row["name"] for row in record["cases"]] == ["one/f64", "one/f32"]
    assert [(case["name"], case["reason"]) for case in record["failed"]] == [
        ("two/f64", "two/f64: its process ended without an answer (exit status -9)")
    ]


def test_a_process_that_cannot_answer_says_why():
    with pytest.raises(RuntimeError, match=r"no-case: .* without an answer \(StopIteration"):
        timed_row("spgemm", "no-case", True, 1, 7)


def test_a_wrong_peer_is_named_and_leaves_the_comparison():
    record = runner.run(make_bench({"ours": 42, "peer": 42, "liar": 41}), case="one/f64", threads=1)
    row = record["cases"][0]
    assert row["wrong"] == {"liar": "ValueError: got 41"}
    assert set(row["ratios"]) == {"best", "peer"}


def test_our_wrong_result_gets_no_ratio():
    row = runner.run(make_bench({"ours": 41, "peer": 42}), case="one/f64", threads=1)["cases"][0]
    assert row["wrong"] == {"ours": "ValueError: got 41"} and row["ratios"] == {}


def test_a_glob_chooses_cases_and_a_wrong_one_names_the_nearest():
    bench = make_bench({"ours": 42})
    assert [s.name for s in runner.chosen_specs(bench, False, "one/*")] == ["one/f64", "one/f32"]
    with pytest.raises(ValueError, match="none of 3 cases matches 'oen/f64'; nearest: one/f64"):
        runner.chosen_specs(bench, False, "oen/f64")


def test_every_bench_of_the_folder_is_found_by_its_name():
    assert set(registry.benches()) >= {"piuma", "raster", "spgemm"}
    with pytest.raises(KeyError, match="did you mean 'spgemm'"):
        registry.get("spgem")


@pytest.mark.parametrize("key", sorted(registry.benches()))
def test_case_names_are_unique_and_goals_name_real_groups(key):
    bench = registry.get(key)
    for quick in (True, False):
        specs = bench.specs(quick, 1, [])
        assert len({spec.name for spec in specs}) == len(specs) > 0
        groups = {spec.group for spec in specs}
    assert {goal.group for goal in bench.goals} <= groups
    assert {goal.against for goal in bench.goals} <= {"best", "lowest", "rate", *(peer.name for peer in bench.peers)}


def test_the_rise_of_the_resident_set_sees_what_is_allocated_and_freed():
    rise = rise_of_resident_set(lambda: len(bytearray(b"x") * 50_000_000))
    assert rise is None or 45e6 < rise < 120e6
    assert rise_of_resident_set(lambda: None) in (None, *range(2_000_000))
