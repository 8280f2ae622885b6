"""``workbench lab``: JupyterLab on the notebooks, with the dashboards served by the same process under ``/voila/``."""

import argparse
import importlib.util
import logging
import secrets
import sys
import warnings
from pathlib import Path
from urllib.parse import quote

from jupyter_server.extension.application import ExtensionApp
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from jupyterlab.labapp import LabApp
from tornado.web import HTTPError
from traitlets.config import Config

from workbench import folders
from workbench.app.class_size import places
from workbench.app.dashboard_site import Site
from workbench.app.handlers import routes
from workbench.app.kernel_pool import IDLE_S
from workbench.app.serve import PINGS, ServeError, listen, make_pool

TOUR = "start_here"
HERE = Path(__file__).parent
OURS = "workbench.app.lab"
EXTENSIONS = ("jupyterlab", "jupyter_server_terminals", "jupyterlab_jupytext", "jupyter_lsp")


def lab(headless=False, port=8888, *, folder=None, announce=print):
    """Serve JupyterLab on the notebooks folder, with the tour open and the dashboards on the launcher.

    Parameters
    ----------
    headless : print the address with its token and serve, instead of opening a browser.
    port : port on this machine; a busy one gives way to the next free one, 0 takes any.
    folder : notebooks to open; by default those of the workbench.
    announce : receives the lines meant for the person at the terminal.

    Raises
    ------
    ServeError
        If no port is free or there is no notebooks folder.
    """
    folder = Path(folder or folders.notebooks()).resolve()
    if not folder.is_dir():
        raise ServeError(f"lab: there is no notebooks folder at {folder}; give one that exists.")
    sockets = listen("127.0.0.1", port, "lab")
    port = sockets[0].getsockname()[1]
    for bound in sockets:
        bound.close()
    token = secrets.token_urlsafe(24)
    start = _start_page(folder)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="traitlets")
    server = LabApp.initialize_server(argv=[], config=configuration(folder, port, token, start, headless))
    announce(f"Serving JupyterLab on {folder} at http://127.0.0.1:{server.port}{start}?token={quote(token)}")
    server.start()


def configuration(folder: Path, port: int, token: str, start: str, headless: bool) -> Config:
    """Return the configuration of the server: our extension in, everything that asks the network out."""
    wanted = {name: True for name in EXTENSIONS if importlib.util.find_spec(name)}
    return Config(
        ServerApp={
            "ip": "127.0.0.1",
            "port": port,
            "port_retries": 0,
            "open_browser": not headless,
            "root_dir": str(folder),
            "default_url": start,
            "log_level": "WARN",
            "contents_manager_class": ShippedNotebooksStay,
            "tornado_settings": PINGS,
            "allow_root": True,
            "jpserver_extensions": {**wanted, OURS: True, "voila.server_extension": False},
        },
        IdentityProvider={"token": token},
        LabApp={
            "news_url": None,
            "check_for_updates_class": "jupyterlab.handlers.announcements.NeverCheckForUpdate",
            "extension_manager": "readonly",
            "extra_labextensions_path": [str(HERE / "labextension")],
            "app_settings_dir": str(HERE / "labextension" / "settings"),
            "expose_app_in_browser": True,
        },
    )


def _start_page(folder: Path) -> str:
    tours = [folder / f"{TOUR}.ipynb", *sorted((folder / TOUR).glob("*.ipynb"))]
    tour = next((file for file in tours if file.is_file()), None)
    return f"/lab/tree/{quote(tour.relative_to(folder).as_posix())}" if tour else "/lab"


class ShippedNotebooksStay(AsyncLargeFileManager):
    """Opens the notebooks that came with the workbench to be read and run, not to be saved over.

    JupyterLab would save them every two minutes with what they printed: a checkout would be dirty after one look, and
    an update could not come. A notebook came with the workbench if its text stands in ``text/`` under the same name.
    """

    def is_writable(self, path):
        return not self._is_shipped(path) and super().is_writable(path)

    async def save(self, model, path=""):
        if self._is_shipped(path):
            raise HTTPError(403, f"{path} came with the workbench: choose File, Save Notebook As, and another name.")
        return await super().save(model, path)

    def _is_shipped(self, path: str) -> bool:
        file = Path(self.root_dir) / path.strip("/")
        text = Path(self.root_dir) / "text"
        twin = (text / file.relative_to(self.root_dir)).with_suffix(".py") if file.suffix == ".ipynb" else file
        return file.is_file() and twin.is_file() and twin.is_relative_to(text)


class Dashboards(ExtensionApp):
    """The gallery and the dashboards of the served folder, mounted under ``/voila/`` in a running Jupyter server."""

    name = "workbench_dashboards"

    def initialize_handlers(self):
        log = logging.getLogger("workbench.serve")
        self.pool = make_pool(log, capacity=places(), idle_s=IDLE_S)
        site = Site(Path(self.serverapp.root_dir), f"{self.serverapp.base_url}voila/", self.pool, log)
        self.serverapp.web_app.add_handlers(".*$", routes(site))

    async def stop_extension(self):
        await self.pool.close()


def _jupyter_server_extension_points() -> list[dict]:
    return [{"module": OURS, "app": Dashboards}]


def main(arguments=None):
    """Start JupyterLab from ``python -m workbench.app.lab``; the command line proper is ``workbench lab``."""
    parser = argparse.ArgumentParser(prog="python -m workbench.app.lab", description=__doc__)
    parser.add_argument("--port", type=int, default=8888)
    parser.add_argument("--folder")
    chosen = parser.parse_args(arguments)

    def announce(line):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    try:
        lab(headless=True, announce=announce, **vars(chosen))
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
