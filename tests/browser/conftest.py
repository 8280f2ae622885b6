"""Real Chromium against our own server and JupyterLab: everything off this machine is blocked and recorded.

Fixtures
--------
``page`` : a Playwright page; the test fails at its end on a console error, a failed request or a request that would
    have left this machine. ``page.watch.allow("text")`` lets messages with that text pass.
``open_dashboard(name, query="", folder=None)`` : opens a dashboard and waits until its widgets are painted.
``open_lab(notebook, folder=None)`` : opens a notebook in JupyterLab, runs all cells, waits for the widgets.
``notebook_folder({"dashboards/x": [cells]})`` : writes notebooks (text cells start with ``md:``), returns the folder.
``view_folder({...})`` : the same, into one folder of all tests, whose two servers start once.
``start_server(...)`` : starts another server, for tests that need their own.
``axe(page)`` : critical and serious accessibility violations, as text.
"""

import os
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest

from tests.browser.chromium import CHROMIUM_ARGUMENTS, PATIENCE_S, Server, find_chromium, is_local, start_process

RUN_ALL_CELLS = """async () => {
  const app = window.jupyterapp;
  const panel = app.shell.currentWidget;
  await panel.context.ready;
  await panel.sessionContext.ready;
  await panel.sessionContext.session.kernel.info;
  await app.commands.execute("notebook:run-all-cells");
}"""


def pytest_collection_modifyitems(items):
    """Mark the browser tests."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def start_server(tmp_path_factory):
    """Start ``workbench serve`` on a free port: ``start_server(folder, "--idle-s", "5")``; stopped at the end."""
    started = []

    def start(folder=None, *options: str) -> Server:
        command = [sys.executable, "-m", "workbench.app.serve", "--port", "0", *options]
        command += ["--folder", str(folder)] if folder else []
        server = start_process(command, "Serving", tmp_path_factory.mktemp("serve") / "log")
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def start_lab(tmp_path_factory):
    """Start ``workbench lab`` without a window on a free port: ``start_lab(folder)``; stopped at the end."""
    started = []

    def start(folder=None) -> Server:
        command = [sys.executable, "-m", "workbench.app.lab", "--port", "0"]
        command += ["--folder", str(folder)] if folder else []
        home = tmp_path_factory.mktemp("lab")
        settings = {"JUPYTERLAB_SETTINGS_DIR": str(home / "s"), "JUPYTERLAB_WORKSPACES_DIR": str(home / "w")}
        server = start_process(command, "Serving", home / "log", settings)
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def _servers(start_server, start_lab):
    """One server per notebooks folder, shared by the whole session."""
    running: dict = {}

    def of(folder, kind: str) -> Server:
        if (folder, kind) not in running and kind == "serve":
            # By default a server starts four kernels ahead, most with torch; the light one stands for them.
            running[folder, kind] = start_server(folder, *(() if folder else ("--warm", "sparsity_patterns")))
        elif (folder, kind) not in running:
            running[folder, kind] = start_lab(folder)
        return running[folder, kind]

    return of


@pytest.fixture(scope="session")
def notebook_folder(tmp_path_factory):
    """Write notebooks into a new folder: ``{"dashboards/x": ["md:# Title", "code"]}`` or with a metadata dict first."""

    def write(notebooks: dict[str, list], folder: Path | None = None) -> Path:
        folder = folder or tmp_path_factory.mktemp("notebooks")
        for name, cells in notebooks.items():
            metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
            book = nbformat.v4.new_notebook(metadata=metadata)
            for cell in cells:
                if isinstance(cell, dict):
                    book.metadata["workbench"] = cell
                elif cell.startswith("md:"):
                    book.cells.append(nbformat.v4.new_markdown_cell(cell.removeprefix("md:")))
                else:
                    book.cells.append(nbformat.v4.new_code_cell(cell))
            file = folder / f"{name}.ipynb"
            file.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(book, file)
        return folder

    return write


@pytest.fixture(scope="session")
def view_folder(notebook_folder):
    """Write notebooks of other names than those of other files into one folder, and return it."""
    folder = notebook_folder({})
    return lambda notebooks: notebook_folder(notebooks, folder)


@pytest.fixture(scope="session")
def chromium_path():
    """Where Chromium is; without one these tests are skipped, or fail if WORKBENCH_REQUIRE_BROWSER=1."""
    executable = find_chromium()
    if executable is None:
        reason = "no Chromium found: install chromium or set CHROMIUM to its path"
        if os.environ.get("WORKBENCH_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return executable


@pytest.fixture(scope="module")
def chromium(chromium_path):
    """Headless Chromium.

    It ends with its file: while it is open, Playwright keeps an event loop in this thread, and ``asyncio.run`` in the
    tests of other files would fail.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Watch:
    """What went wrong on a page so far."""

    errors: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)

    def allow(self, text: str):
        """Let errors that contain ``text`` pass: for tests that break something on purpose."""
        self.allowed.append(text)

    def found(self) -> list[str]:
        wrong = [f"left this machine: {url}" for url in self.blocked] + self.errors
        return [entry for entry in wrong if not any(text in entry for text in self.allowed)]

    def attach(self, page):
        page.on("console", lambda m: m.type == "error" and self.errors.append(f"console: {m.text} {m.location}"))
        page.on("pageerror", lambda error: self.errors.append(f"page error: {error}"))
        page.on("requestfailed", lambda r: self._failed(r))
        page.on("response", lambda r: r.status >= 400 and self.errors.append(f"answer {r.status}: {r.url}"))
        page.on("request", lambda r: self.requests.append(r.url))

    def _failed(self, request):
        beacon_of_closing_page = "/pool/leave/" in request.url or "/voila/api/shutdown/" in request.url
        # A page that closes or reloads while it asks whether its kernel is alive drops that question.
        asked_while_closing = "/pool/alive/" in request.url and request.failure == "net::ERR_ABORTED"
        # Pictures of cards that are still on their way when the gallery is left.
        left_behind = "/thumbnail/" in request.url and request.failure == "net::ERR_ABORTED"
        # Chromium asks for the tab's icon again whenever the address changes, and drops the request before.
        icon_asked_again = request.url.endswith("/icon.svg") and request.failure == "net::ERR_ABORTED"
        if (
            not (beacon_of_closing_page or asked_while_closing or left_behind or icon_asked_again)
            and request.url not in self.blocked
        ):
            self.errors.append(f"failed request: {request.url} {request.failure}")


@pytest.fixture
def new_page(chromium):
    """Open pages with other settings: ``new_page(color_scheme="dark", viewport={...})``; all are checked at the end."""
    contexts, watches = [], []

    def open_one(**settings):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        watch = Watch()

        def guard(route):
            if is_local(route.request.url):
                route.continue_()
            else:
                watch.blocked.append(route.request.url)
                route.abort()

        context.route("**/*", guard)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_S * 1000)
        page.watch = watch
        watch.attach(page)
        contexts.append(context)
        watches.append(watch)
        return page

    yield open_one
    found = [entry for watch in watches for entry in watch.found()]
    for context in contexts:
        context.close()
    assert not found, "the browser reported:\n" + "\n".join(found)


@pytest.fixture
def page(new_page):
    """A page in a window of 1280 x 900 pixels."""
    return new_page()


@pytest.fixture
def open_dashboard(page, _servers):
    """Open ``/dashboards/<name>?<query>`` and wait until its widgets are painted."""

    def open_it(name: str, query: str = "", folder: Path | None = None, on=None):
        server = _servers(folder, "serve")
        target = on or page
        target.goto(f"{server.url.split('?')[0]}dashboards/{name}" + (f"?{query}" if query else ""))
        wait_for_widgets(target)
        target.server = server
        return target

    return open_it


def wait_for_widgets(page):
    """Wait until the page shows at least one widget and no loading step; fail with the page's own error sentence."""
    page.wait_for_function(
        "() => document.querySelector('[data-failure], .notice') || (!document.getElementById('loading')"
        " && document.querySelector('#rendered_cells .jupyter-widgets'))"
    )
    notice = page.query_selector("[data-failure], .notice")
    assert notice is None, f"the page shows an error: {notice.inner_text()}"


@pytest.fixture
def open_lab(page, _servers):
    """Open a notebook in JupyterLab, run all its cells and wait until its widgets are painted."""

    def open_it(notebook: str, folder: Path | None = None):
        server = _servers(folder, "lab")
        base, _, token = server.url.partition("?token=")
        page.goto(f"{base.split('/lab')[0].rstrip('/')}/lab/tree/{notebook}?reset&token={token}")
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
        page.evaluate(RUN_ALL_CELLS)
        page.wait_for_selector(".jp-OutputArea .jupyter-widgets")
        page.server = server
        return page

    return open_it


@pytest.fixture
def axe():
    """Return critical and serious accessibility violations of a page, one line each; the checker is bundled."""
    from axe_playwright_python.sync_playwright import Axe

    def violations(page, context: str | None = None) -> list[str]:
        found = Axe().run(page, context=context) if context else Axe().run(page)
        return [
            f"{rule['impact']}: {rule['id']}: {rule['help']}: {rule['nodes'][0]['html'][:200]}"
            for rule in found.response["violations"]
            if rule["impact"] in ("critical", "serious")
        ]

    return violations


@pytest.fixture(scope="session")
def fetch():
    """Fetch an address without a browser: ``fetch(url) -> (status, headers, text)``."""

    def get(url: str, headers=None) -> tuple[int, dict, str]:
        request = urllib.request.Request(url, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return answer.status, dict(answer.headers), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read().decode()

    return get
