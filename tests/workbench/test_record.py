import errno
import json
import os

import numpy as np
import pytest

from workbench import record
from workbench.experiments import runner


@pytest.fixture
def entry(toy, places):
    return runner.run("toy", size="full")[0]


def test_round_trip(entry, places):
    path = record.write(entry)
    assert path == places / "published" / "toy" / "speeds.json"
    assert record.read("toy", "speeds") == entry
    assert record.all_records() == [entry]


def test_smaller_runs_and_other_matrices_never_touch_the_published_record(toy, entry, places):
    record.write(entry)
    tiny = record.write(runner.run("toy", size="tiny")[0])
    other = record.write(entry | {"matrix": "/data/a.mtx"})
    assert tiny == places / "home" / "results" / "toy" / "speeds-tiny.json"
    assert other == places / "home" / "results" / "toy" / "speeds-full-a.json"
    assert record.read("toy", "speeds") == entry


def test_an_own_record_goes_before_the_one_that_came_with_the_package(entry, places):
    record.write_json(places / "shipped" / "toy" / "speeds.json", entry | {"seed": 5})
    record.write_json(places / "shipped" / "toy" / "other.json", entry | {"experiment": "other"})
    assert record.read("toy", "speeds")["seed"] == 5
    record.write(entry)
    assert record.read("toy", "speeds")["seed"] == entry["seed"]
    assert [found["experiment"] for found in record.all_records()] == ["other", "speeds"]


def test_an_absent_record_says_how_to_make_it(places):
    with pytest.raises(FileNotFoundError, match="workbench run toy"):
        record.read("toy", "speeds")


def test_a_damaged_record_says_how_to_make_it_again(entry):
    record.write(entry).write_text("{")
    with pytest.raises(ValueError, match=r"not valid JSON.*workbench run toy"):
        record.read("toy", "speeds")


@pytest.mark.parametrize("change", [{"schema": 2}, {"extra": 1}, {"rows": [{}]}])
def test_a_record_outside_the_schema_is_refused(entry, change):
    with pytest.raises(ValueError, match="record"):
        record.write(entry | change)


def test_a_full_disk_leaves_the_old_record_whole(entry, monkeypatch):
    path = record.write(entry)
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"speeds\.json: No space left on device; free some space") as error:
        record.write(entry | {"seed": 9})
    assert error.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["speeds.json"]


def test_a_folder_that_cannot_be_made(entry, places):
    (places / "published").write_text("in the way")
    with pytest.raises(OSError, match=r"cannot write .* WORKBENCH_HOME"):
        record.write(entry)


def test_numpy_numbers_become_plain_ones(tmp_path):
    record.write_json(tmp_path / "a.json", {"a": np.int64(3), "b": np.float32(0.5)})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 3, "b": 0.5}
    with pytest.raises(TypeError, match="not JSON-safe"):
        record.write_json(tmp_path / "a.json", {"a": object()})
