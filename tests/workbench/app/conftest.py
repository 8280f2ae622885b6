"""Servers of the tests: one for a whole file, others for tests that need their own."""

import pytest

from tests.workbench.app.serving import BROKEN, ECHO, Running, write_notebook


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    told = {"title": "Echo", "description": "Says what was asked.", "papers": ["smash"]}
    write_notebook(folder / "dashboards" / "echo.ipynb", ECHO, told)
    write_notebook(folder / "dashboards" / "broken.ipynb", BROKEN)
    (folder / "dashboards" / "torn.ipynb").write_text("{")
    (folder / "secret.txt").write_text("secret")
    return folder


@pytest.fixture
def start(folder):
    started = []

    def run(**options):
        started.append(Running(options.pop("folder", folder), **options))
        return started[-1]

    yield run
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def server(folder):
    running = Running(folder)
    yield running
    running.stop()
