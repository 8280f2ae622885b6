import importlib.metadata
import socket

import pytest

from workbench import folders
from workbench.app import doctor
from workbench.machines import host


def find(subject):
    return next(finding for finding in doctor.examine() if finding.subject == subject)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    return tmp_path


def test_everything_is_examined_and_every_trouble_has_a_cure():
    findings = doctor.examine()
    subjects = {finding.subject for finding in findings}
    assert {"Python", "processor", "threads", "name `kernels`", "port 8866", "notebooks", "downloads"} <= subjects
    for finding in findings:
        assert finding.found and (finding.state == "good" or finding.cure), finding


def test_another_package_called_kernels_is_found(monkeypatch):
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.4" if name == "kernels" else real(name))
    finding = find("name `kernels`")
    assert finding.state == "bad" and "0.4" in finding.found and "pip uninstall kernels" in finding.cure


def test_missing_extras_are_named_and_missing_packages_are_bad(monkeypatch):
    asked = ["numpy>=2", "absent-thing>=1", 'pytest; extra == "bench"', 'absent-peer>=2 ; extra == "bench"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: asked)
    finding = find("extra 'bench'")
    assert (finding.state, finding.found) == ("note", "missing: absent-peer") and "[bench]" in finding.cure
    finding = find("packages")
    assert (finding.state, finding.found) == ("bad", "missing: absent-thing")


def test_a_taken_port_is_noted(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finding = doctor._port("workbench serve", port)
    assert finding.state == "note" and "--port" in finding.cure
    assert doctor._port("workbench serve", port).state == "good"


def test_too_many_threads_are_noted(monkeypatch):
    monkeypatch.setattr(host, "usable_cpus", lambda: 0)
    assert find("threads").state == "note"


def test_a_home_that_cannot_be_written_is_bad(home):
    (home / "home").write_text("in the way")
    assert find("your records").state == "bad" and "WORKBENCH_HOME" in find("downloads").cure


def test_no_notebooks_is_bad(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "notebooks", lambda: tmp_path)
    assert find("notebooks").state == "bad"


def test_the_machine_describes_itself():
    told = host.machine()
    assert told["cpu"] and told["cpus"] >= 1 and told["threads"] >= 1
    assert host.versions(["numpy", "no-such-package"]).keys() == {"python", "numpy", "sparse-workbench"}
