"""A machine that lacks something is told so in one sentence, before anything is installed."""

import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")


@pytest.fixture
def machine(root, tmp_path):
    """Return a function that checks a machine where ``programs`` (name -> shell script) come first on the path."""

    def check(programs=None, **variables):
        for name, script in (programs or {}).items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)
        environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
        environment = {key: value for key, value in environment.items() if key not in ("CXX", "MAKEFLAGS", "MAKELEVEL")}
        arguments = [f"{key}={value}" for key, value in variables.items()]
        command = ["make", "-f", str(root / "Makefile"), "machine", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return check


def _sentence(done):
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode != 0 and len(lines) == 1, done.stderr
    return lines[0]


def test_a_good_machine_passes_in_silence(machine):
    done = machine(PYTHON=sys.executable)
    assert done.returncode == 0 and not done.stderr and not done.stdout


def test_no_python(machine):
    assert "Python 3.11 or newer is needed" in _sentence(machine(PYTHON="nowhere/python3"))


def test_an_old_python(machine):
    old = "exit 1"  # what `sys.exit(sys.version_info < (3, 11))` comes to
    assert "Python 3.11 or newer is needed" in _sentence(machine({"python3.9": old}, PYTHON="python3.9"))


def test_a_python_without_venv(machine):
    bare = f'case "$2" in *venv*) exit 1;; esac; exec "{sys.executable}" "$@"'
    assert "cannot make virtual environments" in _sentence(machine({"barepython": bare}, PYTHON="barepython"))


def test_a_python_without_headers(machine):
    bare = f'case "$2" in *Python.h*) exit 1;; esac; exec "{sys.executable}" "$@"'
    assert "lacks its C headers" in _sentence(machine({"barepython": bare}, PYTHON="barepython"))


def test_no_compiler(machine):
    assert "no C++ compiler found" in _sentence(machine(PYTHON=sys.executable, CXX="nowhere/g++"))


def test_an_old_compiler(machine):
    old = 'case "$1" in --version) echo "g++ 4.8"; exit 0;; esac; exit 1'
    sentence = _sentence(machine({"oldcxx": old}, PYTHON=sys.executable, CXX="oldcxx"))
    assert "too old for C++20" in sentence and "g++ 4.8" in sentence


def test_no_room(machine):
    full = 'printf "Filesystem 1024-blocks Used Available Capacity Mounted\\nx 9 9 2500000 99%% /\\n"'
    assert "2 GB are free" in _sentence(machine({"df": full}, PYTHON=sys.executable))
