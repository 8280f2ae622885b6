"""Stored peaks: the nearest machine is read and named, measuring is asked for, and a picture never measures."""

import json

import pytest

from workbench.machines import peaks, roofline
from workbench.machines.peaks import measure_peaks, stored_peaks
from workbench.machines.roofline import Ceilings


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Be a machine of which nothing is stored, whose peaks can be measured at once."""
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path))
    monkeypatch.setattr(peaks, "_processor", lambda: "Some CPU")
    monkeypatch.setattr(peaks, "isa", lambda: "avx2")
    monkeypatch.setattr(peaks, "get_num_threads", lambda: 2)
    monkeypatch.setattr(peaks.host, "usable_cpus", lambda: 4)
    rates = {"fma_gflops_f32": 200.0, "fma_gflops_f64": 100.0, "isa": "avx2"}
    monkeypatch.setattr(peaks, "ceilings", lambda n: Ceilings(copy_gbps=10.0 * n, threads=n, **rates))
    return tmp_path


def test_what_ships_stands_in_and_is_named():
    found = stored_peaks()
    assert not found.own and found.ceilings.isa == "avx2" and found.ceilings.threads == 2
    assert found.origin == (
        f"the peaks of {found.cpu} (avx2, 2 threads), measured on {found.date}; `workbench peaks` measures those of "
        "this machine"
    )


def test_measured_peaks_are_read_from_then_on(machine, monkeypatch):
    assert [each.ceilings.threads for each in measure_peaks()] == [1, 2, 4]
    monkeypatch.setattr(peaks, "ceilings", lambda n: pytest.fail("measured again"))
    for threads in (1, 2, 4):
        found = stored_peaks(threads)
        assert found.own and found.cpu == "Some CPU" and found.ceilings.copy_gbps == 10.0 * threads
    assert stored_peaks() == stored_peaks(2) and ";" not in stored_peaks().origin
    near = stored_peaks(7)
    assert not near.own and near.cpu == "Some CPU" and near.ceilings.threads == 4
    assert "(avx2, 1 thread)" in stored_peaks(1).origin


def test_a_second_measurement_takes_the_place_of_the_first(machine, monkeypatch):
    measure_peaks()
    rates = {"fma_gflops_f32": 1.0, "fma_gflops_f64": 1.0, "isa": "avx2", "copy_gbps": 1 / 3}
    monkeypatch.setattr(peaks, "ceilings", lambda n: Ceilings(threads=n, **rates))
    measure_peaks()
    assert len(json.loads((machine / "peaks.json").read_text())) == 3
    assert stored_peaks().ceilings.copy_gbps == 0.333333


def test_a_spoilt_file_counts_as_none_and_is_written_again(machine):
    (machine / "peaks.json").write_text("[{")
    assert not stored_peaks().own
    measure_peaks()
    assert stored_peaks().own


def test_the_processor_counts_before_the_instruction_set_and_that_before_threads(machine, tmp_path, monkeypatch):
    rates = {"copy_gbps": 1.0, "fma_gflops_f32": 1.0, "fma_gflops_f64": 1.0, "date": "2026-01-01"}
    machines = [("Other", "avx2", 2), ("Some CPU", "baseline", 8), ("Other", "baseline", 2), ("Other", "avx2", 4)]
    file = tmp_path / "shipped.json"
    monkeypatch.setattr(peaks, "SHIPPED", file)
    while machines:
        file.write_text(json.dumps([dict(zip(("cpu", "isa", "threads"), m, strict=True)) | rates for m in machines]))
        found = stored_peaks()
        nearest = (found.cpu, found.ceilings.isa, found.ceilings.threads)
        wanted = [("Some CPU", "baseline", 8), ("Other", "avx2", 2), ("Other", "avx2", 4), ("Other", "baseline", 2)]
        assert nearest == next(m for m in wanted if m in machines)
        machines.remove(nearest)


def test_every_instruction_set_has_a_shipped_machine():
    shipped = json.loads(peaks.SHIPPED.read_text())
    assert {entry["isa"] for entry in shipped} == {"baseline", "avx2", "avx512"}
    for entry in shipped:
        assert min(entry["copy_gbps"], entry["fma_gflops_f32"], entry["fma_gflops_f64"]) > 1, entry


def test_reading_starts_no_measurement(monkeypatch):
    monkeypatch.setattr(roofline, "measure", lambda *a, **k: pytest.fail("a clock was started"))
    assert stored_peaks().ceilings.floor_s(1e9, 0) > 0
