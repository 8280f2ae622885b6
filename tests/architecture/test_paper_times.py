"""Each run says what every paper's tests cost in CPU time; a whole run over the budget fails."""

import os
import re
import subprocess
import sys

import pytest

from tests.paper_times import REST, measure_s, paper_keys, paper_of

SUITE = {
    "pytest.ini": "[pytest]\naddopts = --import-mode=importlib\ntestpaths = .\n",
    "conftest.py": "import paper_times\npaper_times.BUDGET_CPU_S = 0.3\n"
    "paper_times.STATED_MACHINE_S = {stated_s}\npytest_plugins = ['paper_times']\n",
    "test_smash.py": (
        "import subprocess, sys\n"
        "def test_a_subprocess_works():\n"
        "    code = 'import time\\nwhile time.process_time() < 0.5: pass'\n"
        "    subprocess.run([sys.executable, '-c', code], check=True)\n"
    ),
    "test_sea.py": "import time\ndef test_nobody_works(): time.sleep(0.5)\n",
    "test_other.py": "import time\ndef test_it_works():\n    while time.process_time() < 0.5: pass\n",
}


@pytest.fixture
def run(root, tmp_path):
    """Return a function that runs a suite of three tests and returns its exit status and what it printed."""

    def run(*options, stated_s=1e9):
        for name, text in SUITE.items():
            (tmp_path / name).write_text(text.replace("{stated_s}", str(stated_s)))
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
        environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(root / "tests")}
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    return run


@pytest.mark.parametrize(
    ("nodeid", "paper"),
    [
        ("tests/workbench/papers/test_toy.py::test_it", "toy"),
        ("tests/workbench/papers/toy/test_training.py::test_it[tiny]", "toy"),
        ("tests/workbench/papers/test_catalog.py::test_card[toy]", "toy"),
        ("tests/workbench/papers/test_catalog.py::test_card[toy]@a group of xdist", "toy"),
        ("tests/notebooks/test_run.py::test_it_runs_whole[papers/toy.ipynb]", "toy"),
        ("tests/workbench/app/exercises/test_every_exercise.py::test_it[toy/rank]", "toy"),
        ("tests/workbench/data/test_toys.py::test_it[toys]", REST),
        ("tests/notebooks/test_run.py::test_it_runs_whole[start_here.ipynb]", REST),
    ],
)
def test_a_test_belongs_to_the_paper_that_its_name_carries(nodeid, paper):
    assert paper_of(nodeid, ["ponet", "toy"]) == paper


def test_every_paper_of_the_catalog_is_counted():
    from workbench.papers import catalog

    assert paper_keys() == sorted(catalog())


@pytest.mark.parametrize("workers", [(), pytest.param(("-p", "xdist", "-n2"), marks=pytest.mark.slow)])
def test_a_whole_run_over_the_budget_fails_with_one_sentence(run, workers):
    status, text = run(*workers)
    assert status == 1 and "3 passed" in text
    cpu_s = {name: float(s) for name, s in re.findall(r"^([\w ]+?) +([\d.]+) s", text, flags=re.MULTILINE)}
    assert list(cpu_s) == ["sea", "smash", REST]
    assert cpu_s["smash"] >= 0.5 and cpu_s["sea"] < 0.3
    assert re.findall(r"(\w+) .*over the budget", text) == ["smash"]
    assert text.count("The run fails because the tests of smash take over 0.3 CPU seconds") == 1


def test_a_part_of_the_suite_is_only_told(run):
    status, text = run("-k", "works")
    assert status == 0 and "over the budget of 0.3 s" in text and "The run fails" not in text


def test_the_budget_is_in_seconds_of_the_stated_machine(run):
    """A machine that takes twice the time of the stated one has twice the budget, and a faster one has no less."""
    status, text = run(stated_s=min(measure_s() for _ in range(5)) / 4)
    told = re.search(r"takes ([\d.]+) s here, so the budget of 0.3 s is ([\d.]+) s", text)
    slowness, budget = map(float, told.groups())
    assert status == 0 and "over the budget" not in text
    assert slowness > 1.9 and budget == pytest.approx(0.3 * slowness, rel=0.01)
