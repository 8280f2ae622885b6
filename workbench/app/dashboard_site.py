"""What the dashboards' server is made of: folder, templates, kernels and log, under one address prefix."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import nbformat
from jinja2 import Environment, FileSystemLoader
from jupyter_core.paths import jupyter_path
from jupyter_server.services.contents.filemanager import AsyncFileContentsManager
from traitlets.config import Config
from voila.configuration import VoilaConfiguration
from voila.paths import collect_static_paths, collect_template_paths
from voila.utils import get_page_config, get_voila_labextensions_path

from workbench.app.kernel_pool import KernelPool
from workbench.app.page_scripts import join_pieces
from workbench.app.steps import Outline, StepRenderer, outline

TEMPLATE = "workbench"
PLOTLY = "jupyterlab-plotly"
OURS = {"name": "sparse-workbench-page", "load": "../../../style/widgets-again.js", "extension": "./extension"}
# By default an output that is 4 s late is dropped without a word. A kernel that died is noticed at once all the same.
PATIENT = {"iopub_timeout": 600, "raise_on_iopub_timeout": True, "startup_timeout": 300}
OFFLINE_MATHS = {"mathjax_url": None, "mathjax_config": None}
QUIET = logging.getLogger("workbench.contents")
QUIET.setLevel(logging.ERROR)
WIDGET_EXTENSIONS = [
    "@jupyter-widgets/jupyterlab-manager",
    "@voila-dashboards/widgets-manager8",
    "anywidget",
    "jupyterlab-plotly",
]


class Site:
    """The dashboards under one address prefix; the stand-alone server and JupyterLab both mount one.

    ``hosts`` are the names, beside those of this machine itself, under which a proxy offers it.
    """

    def __init__(self, folder: Path, prefix: str, pool: KernelPool, log: logging.Logger, hosts: Sequence[str] = ()):
        self.folder, self.prefix, self.pool, self.log = folder, prefix, pool, log
        self.hosts = frozenset(name.lower() for name in hosts)
        roots = [str(Path(__file__).parent), *jupyter_path()]
        self.template_paths = collect_template_paths(["voila", "nbconvert"], TEMPLATE, prune=True, root_dirs=roots)
        self.static_paths = collect_static_paths(["voila", "nbconvert"], TEMPLATE, prune=True, root_dirs=roots)
        self.templates = Environment(loader=FileSystemLoader(self.template_paths), autoescape=True)
        self.configuration = VoilaConfiguration(
            template=TEMPLATE,
            allow_template_override="NO",
            allow_theme_override="NO",
            extension_allowlist=WIDGET_EXTENSIONS,
        )
        self.contents = AsyncFileContentsManager(root_dir=str(folder), log=QUIET)
        self.page_config = get_page_config(prefix, OFFLINE_MATHS, log, self.configuration)
        self.plotly = _delay(PLOTLY, self.page_config, "../../../style/plotly-later.js")
        self.page_config["federated_extensions"].append(OURS)
        self.scripts = join_pieces(_folder_with("voila.js", self.static_paths), _extension_folders(self.page_config))
        self.entries = [
            f"{extension['name']}/{extension['load'].removeprefix('./')}"
            for extension in self.page_config["federated_extensions"]
            if extension["name"] not in (PLOTLY, OURS["name"])
        ]
        self._outlines: dict[Path, tuple[int, Outline]] = {}
        pool.root_dir = str(folder)
        pool.make_renderer = self.make_renderer

    def render(self, template: str, **values) -> str:
        return self.templates.get_template(template).render(prefix=self.prefix, **values)

    def outline(self, path: Path) -> Outline:
        """Return the outline of a notebook of the folder, read once for each of its versions.

        Raises
        ------
        ValueError : the file is no notebook.
        """
        file = self.folder / path
        version = file.stat().st_mtime_ns
        if self._outlines.get(path, (None,))[0] != version:
            try:
                read = outline(nbformat.read(file, as_version=4), path.stem)
            except Exception as error:
                raise ValueError(f"The notebook {path} cannot be read: {str(error).splitlines()[0]}") from error
            self._outlines[path] = version, read
        return self._outlines[path][1]

    async def make_renderer(self, path: str, show_source: bool, visitor: asyncio.Future) -> StepRenderer:
        """Return the renderer of one notebook, ready to be given a kernel."""
        renderer = StepRenderer(
            visitor=visitor,
            show_source=show_source,
            threads=self.pool.threads,
            voila_configuration=self.configuration,
            traitlet_config=Config(VoilaExecutor=PATIENT),
            notebook_path=path,
            template_paths=self.template_paths,
            contents_manager=self.contents,
            base_url=self.prefix,
            kernel_spec_manager=self.pool.kernel_spec_manager,
            page_config=self.page_config,
        )
        await renderer.initialize()
        return renderer


def _delay(name: str, page_config: dict, stand_in: str) -> str:
    """Have the page load ``stand_in`` for an extension; return the address of the extension's own entry."""
    for extension in page_config["federated_extensions"]:
        if extension["name"] == name:
            entry = f"{page_config['fullLabextensionsUrl']}/{name}/{extension['load'].removeprefix('./')}"
            extension["load"] = stand_in
            return entry
    return ""


def _folder_with(name: str, folders: list[str]) -> Path:
    return next(Path(folder) for folder in folders if (Path(folder) / name).is_file())


def _extension_folders(page_config: dict) -> tuple[Path, ...]:
    names = [extension["name"] for extension in page_config["federated_extensions"] if extension["name"] != PLOTLY]
    places = [Path(place) / name for name in names for place in get_voila_labextensions_path()]
    return tuple(place for place in places if (place / "package.json").is_file())
