"""Prints at the end of every run how much CPU time each paper's tests took, and fails a whole run over the budget.

CPU seconds count this process and the subprocesses that it waited for, so a busy machine changes them little. They
travel in each report, from the workers of pytest-xdist too. The budget is in seconds of one stated machine: a fixed
piece of work, timed again and again between the tests, says how many seconds of a slower machine one of them takes.
"""

import json
import os
import re
import statistics
import time
from collections import defaultdict
from pathlib import Path

import pytest

# 35 papers at 30 s are 17.5 minutes of CPU time: on two cores that leaves the rest of the suite most of its 30 minutes.
BUDGET_CPU_S = 30
# Median CPU time of `measure_s` within a run of the suite on the stated machine: AMD EPYC (Zen 5), 2 virtual CPUs.
STATED_MACHINE_S = 0.0072
MEASURE_EVERY_S = 5.0
TITLE = "CPU time of the tests, by paper"
REST = "everything else"
PAPERS = Path(__file__).resolve().parents[1] / "workbench" / "papers"


def pytest_configure(config):
    config.pluginmanager.register(PaperTimes(config))


def paper_keys() -> list[str]:
    """Return the keys of all papers, which are the names in their folder."""
    return sorted(path.stem for path in PAPERS.iterdir() if path.name[0].isalpha())


def paper_of(nodeid: str, keys: list[str]) -> str:
    """Return the paper whose key is a folder, ``test_<key>.py``, a notebook or a parameter in ``nodeid``, or REST."""
    parts = set(re.split(r"::|[/\[\]]", nodeid))
    return next((key for key in keys if {key, f"test_{key}.py", f"{key}.ipynb"} & parts), REST)


def measure_s() -> float:
    """Return the CPU time of a fixed piece of work, which stands for what tests mostly do: Python and small objects."""
    start = time.process_time()
    table = json.loads(json.dumps({str(number): [number, number * 0.5] for number in range(6000)}))
    sorted(table.values(), key=lambda pair: -pair[1])
    return time.process_time() - start


class PaperTimes:
    """Takes the time of each phase of each test, adds them up by paper and prints the sums."""

    def __init__(self, config):
        self.config = config
        self.keys = paper_keys()
        self.cpu_s = defaultdict(float)
        self.measured_s = []
        self.measured_at_s = float("-inf")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self):
        self.clock_s = _cpu_s()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self):
        report = yield
        before, self.clock_s = self.clock_s, _cpu_s()
        report.user_properties.append(("cpu_s", self.clock_s - before))
        if time.monotonic() - self.measured_at_s > MEASURE_EVERY_S:
            report.user_properties.append(("measured_s", measure_s()))
            self.measured_at_s, self.clock_s = time.monotonic(), _cpu_s()
        return report

    def pytest_runtest_logreport(self, report):
        taken = dict(report.user_properties)
        self.cpu_s[paper_of(report.nodeid, self.keys)] += taken.get("cpu_s", 0.0)
        if "measured_s" in taken:
            self.measured_s.append(taken["measured_s"])

    def slowness(self) -> float:
        """Return how many CPU seconds of this machine make one of the stated machine, at least 1."""
        return max(1.0, statistics.median(self.measured_s) / STATED_MACHINE_S) if self.measured_s else 1.0

    def budget_cpu_s(self) -> float:
        """Return the budget of a paper in CPU seconds of this machine."""
        return BUDGET_CPU_S * self.slowness()

    def over_budget(self) -> list[str]:
        return [key for key, cpu_s in self.cpu_s.items() if key != REST and cpu_s > self.budget_cpu_s()]

    def is_whole_suite(self) -> bool:
        chosen = self.config.option
        return self.config.args_source is pytest.Config.ArgsSource.TESTPATHS and not (chosen.keyword or chosen.markexpr)

    def pytest_sessionfinish(self, session, exitstatus):
        if exitstatus == pytest.ExitCode.OK and self.is_whole_suite() and self.over_budget():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        if not self.cpu_s:
            return
        terminalreporter.section(TITLE)
        over, budget = self.over_budget(), f"{self.budget_cpu_s():.3g}"
        if self.slowness() > 1:
            terminalreporter.line(
                f"One CPU second of the stated machine takes {self.slowness():.2f} s here, so the budget of "
                f"{BUDGET_CPU_S} s is {budget} s."
            )
        for key in [*(key for key in self.keys if key in self.cpu_s), REST]:
            mark = f"  over the budget of {budget} s" if key in over else ""
            terminalreporter.line(f"{key:<24}{self.cpu_s[key]:>8.1f} s{mark}", red=bool(mark))
        if over and self.is_whole_suite():
            terminalreporter.line(
                f"The run fails because the tests of {', '.join(sorted(over))} take over {budget} CPU seconds; "
                "let them share their tiny experiments or use smaller inputs.",
                red=True,
            )


def _cpu_s() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system
