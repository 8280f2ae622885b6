import json
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from workbench import judging, papers, record
from workbench.experiments import runner
from workbench.paper import Experiment, row


def test_a_run_gives_one_valid_record_per_experiment(toy):
    steps = []
    records = runner.run("toy", size="full", seed=1, report=lambda fraction, step: steps.append((fraction, step)))
    assert [entry["experiment"] for entry in records] == ["speeds", "counts"]
    assert steps[0] == (0.25, "How fast it runs: half") and steps[-1] == (1.0, "done")
    first = records[0]
    assert first["rows"][0]["value"] == 5.0
    assert first["claims"] == [
        {
            "key": "fast",
            "statement": "It runs.",
            "where": "Table 1",
            "paper_value": "5 m/s",
            "tag": "published",
            "whose": "paper",
            "ours": "5 m/s",
            "verdict": "reproduced",
        }
    ]
    assert first["machine"]["isa"] in ("baseline", "avx2", "avx512") and first["versions"]["numpy"]
    assert json.loads(json.dumps(records)) == records


def test_a_judge_sees_the_rows_that_the_record_keeps(toy, monkeypatch):
    made = [row("speed", 2 / 3, "products per second", "measured", share=np.float64(1 / 7))]
    monkeypatch.setattr(papers, "catalog", lambda: {"toy": _with(toy, made, lambda rows: (repr(rows), "reproduced"))})
    entry = runner.run("toy", only=["speeds"])[0]
    assert entry["rows"][0]["value"] == 0.666667 and entry["rows"][0]["share"] == 0.142857
    assert entry["claims"][0]["ours"] == repr(entry["rows"])


def test_a_claim_of_ours_is_marked(toy):
    assert runner.judge(replace(toy.claims[1], whose="workbench"), [])["whose"] == "workbench"


def test_a_reason_goes_into_the_record_and_a_bare_word_that_needs_one_is_refused(toy, monkeypatch):
    made = [row("speed", 1.0, "products per second", "measured")]
    judges = {word: lambda rows, word=word: ("1", word) for word in record.REASONED}
    for judge in judges.values():
        monkeypatch.setattr(papers, "catalog", lambda judge=judge: {"toy": _with(toy, made, judge)})
        with pytest.raises(ValueError, match="claim fast: fitted and undecided have a reason"):
            runner.run("toy", only=["speeds"])
    judge = lambda rows: judging.undecided("1", baseline="attention", figure="1 m/s, standing still 1 m/s")  # noqa: E731
    monkeypatch.setattr(papers, "catalog", lambda: {"toy": _with(toy, made, judge)})
    claim = runner.run("toy", only=["speeds"])[0]["claims"][0]
    assert claim["because"] == "attention has not learned: 1 m/s, standing still 1 m/s"


def _with(paper, rows, judge):
    experiment = replace(paper.experiments[0], run=lambda size, seed, matrix, report: rows)
    return replace(paper, experiments=(experiment,), claims=(replace(paper.claims[0], judge=judge),))


def test_a_smaller_run_says_that_a_claim_was_not_judged(toy):
    claim = runner.run("toy", size="tiny")[0]["claims"][0]
    assert (claim["verdict"], claim["ours"]) == ("not judged", "needs size full, ran tiny")


def test_a_judge_that_fails_on_the_full_run_is_an_error(toy):
    with pytest.raises(StopIteration):
        runner.judge(toy.claims[0], [{"value": 0}], "full")


@pytest.mark.parametrize("name", ("a.mtx", "a.npz"))
def test_another_matrix_skips_what_cannot_use_it_and_judges_nothing(toy, tmp_path, name):
    path = tmp_path / name
    (scipy.io.mmwrite if name == "a.mtx" else sp.save_npz)(path, sp.csr_array([[1.0]]))
    skipped = []
    records = runner.run("toy", matrix=str(path), skip=lambda *told: skipped.append(told))
    assert [entry["experiment"] for entry in records] == ["speeds"]
    assert records[0]["claims"] == [] and records[0]["matrix"] == str(path)
    assert skipped == [("counts", "takes no other matrix")]


def test_one_experiment_alone(toy):
    assert [entry["experiment"] for entry in runner.run("toy", only=["counts"])] == ["counts"]
    with pytest.raises(ValueError, match="toy has the experiments speeds, counts; got 'count'"):
        runner.run("toy", only=["count"])


def test_a_record_is_given_away_before_the_next_experiment(toy):
    given = []
    records = runner.run("toy", report=lambda fraction, step: given.append(step), done=lambda r: given.append(r))
    assert [x for x in given if isinstance(x, dict)] == records and given.index(records[0]) < len(given) - 2


def test_wrong_arguments(toy, tmp_path):
    with pytest.raises(KeyError, match="did you mean 'toy'"):
        runner.run("toi")
    with pytest.raises(ValueError, match="tiny, small, full"):
        runner.run("toy", size="huge")
    with pytest.raises(ValueError, match="seed"):
        runner.run("toy", seed=-1)
    with pytest.raises(FileNotFoundError):
        runner.run("toy", matrix=str(tmp_path / "absent.mtx"))
    (tmp_path / "bad.mtx").write_text("1 2 3")
    with pytest.raises(ValueError, match=r"bad\.mtx: line 1"):
        runner.run("toy", matrix=str(tmp_path / "bad.mtx"))


@pytest.mark.parametrize("value", [math.nan, math.inf, None, [1]])
def test_rows_hold_finite_numbers(toy, monkeypatch, value):
    row = {"quantity": "speed", "value": value, "unit": "m/s", "kind": "measured"}
    experiment = Experiment(key="speeds", title="t", kind="timing", run=lambda size, seed, matrix, report: [row])
    with pytest.raises(ValueError, match="row 0: value"):
        runner._record(toy, experiment, "tiny", 1, None, None)


@pytest.mark.parametrize("missing", record.ROW_KEYS)
def test_rows_say_what_unit_and_how(toy, missing):
    row = {"quantity": "speed", "value": 1, "unit": "m/s", "kind": "measured"}
    row.pop(missing)
    experiment = Experiment(key="speeds", title="t", kind="timing", run=lambda size, seed, matrix, report: [row])
    with pytest.raises(ValueError, match=f"lacks {missing}"):
        runner._record(toy, experiment, "tiny", 1, None, None)


def test_an_experiment_that_takes_too_few_arguments_is_named(toy):
    experiment = Experiment(key="speeds", title="t", kind="timing", run=lambda size, seed: [])
    with pytest.raises(TypeError, match="report"):
        runner._record(toy, experiment, "tiny", 1, None, None)
