"""Runs kernels on every instruction set of this CPU, in this process: a process of its own for each costs seconds.

``test_native.py`` tests that a process takes the instruction set that it is told.
"""

import importlib
import sys

import pytest

from kernels import _native

LEVELS = _native.LEVELS[: _native.LEVELS.index(_native._native_baseline.cpu_level()) + 1]


@pytest.fixture
def levels():
    """All instruction sets of this CPU."""
    return LEVELS


@pytest.fixture
def use_level(monkeypatch):
    """Return ``use_level(name)``: until the test ends, every kernel calls the code compiled for that level."""

    def use(name):
        before, core = _native.core, importlib.import_module(f"kernels._native_{name}")
        users = [module for module in list(sys.modules.values()) if vars(module).get("core") is before]
        assert _native in users and len(users) > 1
        core.set_num_threads(before.get_num_threads())
        for module in users:
            monkeypatch.setattr(module, "core", core)
        monkeypatch.setattr(_native, "_level", name)

    return use


@pytest.fixture(params=LEVELS)
def level(request, use_level):
    """Run the test once on each instruction set."""
    use_level(request.param)
    return request.param
