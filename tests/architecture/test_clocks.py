"""Times that are results come from one clock, `workbench.machines.stopwatch`; a few others read how long they took."""

import ast

import pytest

READINGS = {"perf_counter", "process_time", "monotonic", "thread_time"}
# Files of the workbench that read a clock, and why that is no measurement of a method.
MAY_READ = {
    "workbench/machines/stopwatch.py": "it is the clock",
    "workbench/machines/piuma_tables.py": "cuts work into steps that can be stopped soon",
    "workbench/experiments/runner.py": "how long an experiment took",
    "workbench/experiments/pieces.py": "how long a piece of an experiment took",
    "workbench/bench/runner.py": "how long a bench took",
    "workbench/models/attention/ponet_training.py": "how long a training took",
    "workbench/models/attention/sea_training.py": "how long a training took",
    "workbench/models/compression/masked_training.py": "how long an epoch took",
    "workbench/models/fine_tuning/training.py": "how long a training took, and when to save",
    "workbench/models/language/train_small_encoder.py": "how long a training took",
    "workbench/models/language/train_tiny_lm.py": "how long a training took, and when to save",
    "workbench/models/language/model_card.py": "how long a card's figures took",
}


def clocks_read(tree) -> list[int]:
    """Return the lines of a module that name a clock of the standard library."""
    lines = []
    for node in ast.walk(tree):
        imported = node.names if isinstance(node, ast.ImportFrom | ast.Import) else ()
        names = [getattr(node, "attr", None), getattr(node, "id", None), *(each.name for each in imported)]
        if {name.removesuffix("_ns") for name in names if name} & READINGS or "timeit" in names:
            lines.append(node.lineno)
    return lines


def test_measured_times_come_from_one_clock(modules):
    readers = {path.as_posix() for path, tree in modules.items() if path.parts[0] == "workbench" and clocks_read(tree)}
    assert readers == set(MAY_READ), "time it with workbench.machines.stopwatch.measure"
    assert not [path for path in MAY_READ if path.startswith(("workbench/papers/", "workbench/explorers/"))]


@pytest.mark.parametrize(
    "source",
    [
        "time.perf_counter()",
        "from time import process_time",
        "perf_counter_ns()",
        "x = time.monotonic",
        "import timeit",
    ],
)
def test_a_clock_is_seen(source):
    assert clocks_read(ast.parse(source))


def test_waiting_reads_no_clock():
    assert not clocks_read(ast.parse("import time\ntime.sleep(1)\nperf = timing.median_s"))
