"""What a class needs, measured and reckoned."""

import re
import sys
from subprocess import PIPE, Popen

import pytest

from tests.workbench.app.serving import ECHO, write_notebook
from workbench.app import class_size
from workbench.app.class_size import MB, need_of, private_bytes
from workbench.app.serve import ServeError, serve


@pytest.mark.slow
def test_class_is_refused_with_numbers_when_memory_is_short(tmp_path, monkeypatch):
    write_notebook(tmp_path / "dashboards" / "echo.ipynb", ECHO)
    monkeypatch.setattr(class_size, "free_memory_bytes", lambda: 500 * MB)
    lines = []
    with pytest.raises(ServeError, match=r"a class of 40 needs \d+ MB of memory, 500 MB are free"):
        serve(port=0, folder=tmp_path, open_browser=False, class_size=40, announce=lines.append)
    assert "measured on echo" in lines[0]
    assert 20 < float(re.search(r"holds (\d+) MB", lines[0])[1]) < 300


def test_class_needs_grow_with_visitors(monkeypatch):
    monkeypatch.setattr(class_size, "free_memory_bytes", lambda: 8000 * MB)
    monkeypatch.setattr(class_size, "usable_cores", lambda: 4)
    need = need_of(20, 100 * MB, "echo", True, warm=2)
    assert (need.bytes, need.cores, need.fits) == (22 * 100 * MB + class_size.SERVER_BYTES, 4, True)
    assert not need_of(21, 100 * MB, "echo", True, warm=2).fits
    assert not need_of(20, 400 * MB, "echo", True, warm=2).fits


def test_private_memory_is_what_a_process_and_its_children_alone_hold():
    held = "import os, sys; block = bytearray(os.urandom(64 << 20)); sys.stdout.write('+'); sys.stdout.flush()"
    child = f"{held}; sys.stdin.read()"
    with Popen([sys.executable, "-c", child], stdin=PIPE, stdout=PIPE) as process:
        assert process.stdout.read(1) == b"+"
        alone = private_bytes(process.pid)
        process.stdin.close()
    assert 64 * MB < alone < 100 * MB
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with Popen([sys.executable, "-c", parent], stdin=PIPE, stdout=PIPE) as process:
        assert process.stdout.read(1) == b"+"
        both = private_bytes(process.pid)
        process.stdin.close()
    assert alone < both < alone + 40 * MB
    assert private_bytes(process.pid) == 0
