"""Prints at the end of every run how much CPU time each paper's tests took, and fails a whole run over the budget.

CPU seconds count this process and the subprocesses that it waited for, so a busy machine changes them little. They
travel in each report, from the workers of pytest-xdist too.
"""

import os
import re
import time
from collections import defaultdict
from pathlib import Path

import pytest

# 35 papers at 30 s are 17.5 minutes of CPU time: on two cores that leaves the rest of the suite most of its 30 minutes.
BUDGET_CPU_S = 30
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


class PaperTimes:
    """Takes the time of each phase of each test, adds them up by paper and prints the sums."""

    def __init__(self, config):
        self.config = config
        self.keys = paper_keys()
        self.cpu_s = defaultdict(float)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self):
        self.clock_s = _cpu_s()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self):
        report = yield
        before, self.clock_s = self.clock_s, _cpu_s()
        report.user_properties.append(("cpu_s", self.clock_s - before))
        return report

    def pytest_runtest_logreport(self, report):
        self.cpu_s[paper_of(report.nodeid, self.keys)] += dict(report.user_properties).get("cpu_s", 0.0)

    def over_budget(self) -> list[str]:
        return [key for key, cpu_s in self.cpu_s.items() if key != REST and cpu_s > BUDGET_CPU_S]

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
        over = self.over_budget()
        for key in [*(key for key in self.keys if key in self.cpu_s), REST]:
            mark = f"  over the budget of {BUDGET_CPU_S} s" if key in over else ""
            terminalreporter.line(f"{key:<24}{self.cpu_s[key]:>8.1f} s{mark}", red=bool(mark))
        if over and self.is_whole_suite():
            terminalreporter.line(
                f"The run fails because the tests of {', '.join(sorted(over))} take over {BUDGET_CPU_S} CPU seconds; "
                "let them share their tiny experiments or use smaller inputs.",
                red=True,
            )


def _cpu_s() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system
