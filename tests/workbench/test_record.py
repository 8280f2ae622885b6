import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from workbench import record
from workbench.experiments import runner


@pytest.fixture
def entry(toy, places):
    return runner.run("toy", size="full")[0]


def test_round_trip(entry, places):
    path = record.write(entry, publish=True)
    assert path == places / "published" / "toy" / "speeds.json"
    assert record.read("toy", "speeds") == entry
    assert record.all_records() == [entry]


def test_smaller_runs_and_other_matrices_never_touch_the_published_record(toy, entry, places):
    record.write(entry, publish=True)
    tiny = record.write(runner.run("toy", size="tiny")[0])
    other = record.write(entry | {"matrix": "/data/a.mtx"})
    assert tiny == places / "home" / "results" / "toy" / "speeds-tiny.json"
    assert other == places / "home" / "results" / "toy" / "speeds-full-a.json"
    assert record.read("toy", "speeds") == entry


def test_an_own_record_goes_before_the_one_that_came_with_the_package(entry, places):
    record.write_json(places / "shipped" / "toy" / "speeds.json", entry | {"seed": 5})
    record.write_json(places / "shipped" / "toy" / "other.json", entry | {"experiment": "other"})
    assert record.read("toy", "speeds")["seed"] == 5
    record.write(entry, publish=True)
    assert record.read("toy", "speeds")["seed"] == entry["seed"]
    assert [found["experiment"] for found in record.all_records()] == ["other", "speeds"]
    assert [found["experiment"] for found in record.all_records(("speeds", "none"))] == ["speeds"]


def test_an_absent_record_says_how_to_make_it(places):
    with pytest.raises(FileNotFoundError, match="workbench run toy"):
        record.read("toy", "speeds")


def test_a_damaged_record_says_how_to_make_it_again(entry):
    record.write(entry, publish=True).write_text("{")
    with pytest.raises(ValueError, match=r"not valid JSON.*workbench run toy"):
        record.read("toy", "speeds")


def test_a_record_of_an_older_schema_says_how_to_make_it_again(entry):
    path = record.write(entry, publish=True)
    record.write_json(path, entry | {"schema": 1})
    with pytest.raises(ValueError, match=r"has schema 1, wanted 2; make it again: workbench run toy"):
        record.read("toy", "speeds")


@pytest.mark.parametrize("change", [{"schema": 1}, {"extra": 1}, {"rows": [{}]}])
def test_a_record_outside_the_schema_is_refused(entry, change):
    with pytest.raises(ValueError, match="record"):
        record.write(entry | change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"whose": "nobody"}, "claim fast: whose must be one of paper, workbench; got 'nobody'"),
        (
            {"verdict": "good"},
            "verdict must be one of reproduced, partly, not reproduced, fitted, undecided; got 'good'",
        ),
        ({"verdict": "not judged"}, "undecided; got 'not judged'"),
        ({"sure": True}, "missing \\[\\], unknown \\['sure'\\]"),
        ({"verdict": "fitted"}, "claim fast: fitted and undecided have a reason, .* got 'fitted' because ''"),
        ({"verdict": "undecided", "because": ""}, "got 'undecided' because ''; use workbench.judging.fitted or"),
        ({"because": "of all that"}, "other verdicts have none; got 'reproduced' because 'of all that'"),
    ],
)
def test_a_claim_keeps_to_its_words(entry, change, words):
    claim = entry["claims"][0] | change
    with pytest.raises(ValueError, match=words):
        record.validate(entry | {"claims": [claim]})
    if claim["verdict"] == "not judged":
        record.validate(entry | {"claims": [claim], "size": "tiny"})


@pytest.mark.parametrize("word", record.REASONED)
def test_a_claim_with_a_reason_is_kept_and_said(entry, word):
    claim = entry["claims"][0] | {"verdict": word, "because": "size calibrated on this"}
    record.write(entry | {"claims": [claim]}, publish=True)
    assert record.read("toy", "speeds")["claims"] == [claim]
    assert record.because(claim) == " (size calibrated on this)" and not record.because(entry["claims"][0])


def test_a_row_and_a_claim_have_a_line_of_their_own(entry, tmp_path):
    rows = [{"a": "x\ny", "b": [1]}, {"a": 2}]
    record.write_json(tmp_path / "a.json", {"rows": rows, "none": [], "machine": {"cpu": "Z80", "cpus": [1, 2]}})
    assert (tmp_path / "a.json").read_text().splitlines() == [
        *("{", ' "rows": [', '  {"a": "x\\ny", "b": [1]},', '  {"a": 2}', " ],", ' "none": [],', ' "machine": {'),
        *('  "cpu": "Z80",', '  "cpus": [', "   1,", "   2", "  ]", " }", "}"),
    ]
    lines = record.write(entry, publish=True).read_text().splitlines()
    assert sum('"quantity"' in line for line in lines) == len(entry["rows"])
    assert sum('"verdict"' in line for line in lines) == len(entry["claims"])


def test_writing_what_was_read_gives_the_same_bytes(tmp_path):
    folder = Path(record.__file__).parent / "results"
    paths = sorted(folder.glob("*/*.json"))
    assert len(paths) > 30
    for path in paths:
        record.write_json(tmp_path / "again.json", json.loads(path.read_text(encoding="utf-8")))
        assert (tmp_path / "again.json").read_bytes() == path.read_bytes(), path


def test_rows_keep_six_digits_and_all_else_as_it_is():
    row = {"a": 1 / 3, "b": 1234567.0, "c": np.float32(0.1), "d": -1.23456789e-12, "e": {"f": [2 / 3]}}
    exact = {"g": 123456789, "h": np.int64(7), "i": True, "j": "0.1234567"}
    found = record.rounded([row | exact])[0]
    assert found == {"a": 0.333333, "b": 1234570.0, "c": 0.1, "d": -1.23457e-12, "e": {"f": [0.666667]}} | exact
    assert [type(found[key]) for key in "cghi"] == [float, int, int, bool]
    assert record.rounded(found) == found


def test_what_is_written_has_six_digits(entry):
    record.write(entry | {"rows": [entry["rows"][0] | {"value": 2 / 3}]}, publish=True)
    assert record.read("toy", "speeds")["rows"][0]["value"] == 0.666667


def test_only_a_papers_own_claims_are_counted():
    claims = [{"whose": "paper", "verdict": word} for word in ("fitted", "partly", "reproduced", "partly", "undecided")]
    claims += [{"whose": "workbench", "verdict": "not reproduced"}, {"whose": "paper", "verdict": "not judged"}]
    assert list(record.verdict_counts(claims).items()) == [
        *(("reproduced", 1), ("partly", 2), ("fitted", 1), ("undecided", 1), ("not judged", 1)),
    ]


def test_a_full_disk_leaves_the_old_record_whole(entry, monkeypatch):
    path = record.write(entry, publish=True)
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"speeds\.json: No space left on device; free some space") as error:
        record.write(entry | {"seed": 9}, publish=True)
    assert error.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["speeds.json"]


def test_a_folder_that_cannot_be_made(entry, places):
    (places / "published").write_text("in the way")
    with pytest.raises(OSError, match=r"cannot write .* WORKBENCH_HOME"):
        record.write(entry, publish=True)


def test_numpy_numbers_become_plain_ones(tmp_path):
    record.write_json(tmp_path / "a.json", {"a": np.int64(3), "b": np.float32(0.5)})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 3, "b": 0.5}
    record.write_json(tmp_path / "a.json", [{"a": 1}, {"a": 2}])
    assert json.loads((tmp_path / "a.json").read_text()) == [{"a": 1}, {"a": 2}]
    with pytest.raises(TypeError, match="not JSON-safe"):
        record.write_json(tmp_path / "a.json", {"a": object()})
