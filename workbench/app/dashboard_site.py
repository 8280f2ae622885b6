"""What the dashboards' server is made of: folder, templates, kernels and log, under one address prefix."""

import logging
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from jupyter_core.paths import jupyter_path
from jupyter_server.services.contents.filemanager import AsyncFileContentsManager
from traitlets.config import Config
from voila.configuration import VoilaConfiguration
from voila.paths import collect_static_paths, collect_template_paths
from voila.utils import get_page_config

from workbench.app.kernel_room import KernelRoom
from workbench.app.steps import StepRenderer

TEMPLATE = "workbench"
QUIET = logging.getLogger("workbench.contents")
QUIET.setLevel(logging.ERROR)
WIDGET_EXTENSIONS = [
    "@jupyter-widgets/jupyterlab-manager",
    "@voila-dashboards/widgets-manager8",
    "anywidget",
    "jupyterlab-plotly",
]


class Site:
    """The dashboards under one address prefix; the stand-alone server and JupyterLab both mount one."""

    def __init__(self, folder: Path, prefix: str, room: KernelRoom, log: logging.Logger):
        self.folder, self.prefix, self.room, self.log = folder, prefix, room, log
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
        self.preloads = _scripts_of_voila(self.static_paths)
        room.root_dir = str(folder)
        room.make_renderer = self.make_renderer

    def render(self, template: str, **values) -> str:
        return self.templates.get_template(template).render(prefix=self.prefix, **values)

    async def make_renderer(self, path: str, show_source: bool) -> StepRenderer:
        """Return the renderer of one notebook, ready to be given a kernel."""
        offline_maths = {"mathjax_url": None, "mathjax_config": None}
        renderer = StepRenderer(
            show_source=show_source,
            voila_configuration=self.configuration,
            traitlet_config=Config(),
            notebook_path=path,
            template_paths=self.template_paths,
            contents_manager=self.contents,
            base_url=self.prefix,
            kernel_spec_manager=self.room.kernel_spec_manager,
            page_config=get_page_config(self.prefix, offline_maths, self.log, self.configuration),
        )
        await renderer.initialize()
        renderer.site = self
        return renderer


def _scripts_of_voila(static_paths: list[str]) -> list[str]:
    """Name the scripts that Voila's entry loads first, so that browsers fetch them while the kernel starts."""
    entry = next((Path(folder) / "voila.js" for folder in static_paths if (Path(folder) / "voila.js").is_file()), None)
    if entry is None:
        return []
    start = re.search(r"Promise\.all\(\[((?:\w\.e\(\d+\),?)+)\]\)\.then\(\w\.bind", entry.read_text(encoding="utf-8"))
    names = [f"{number}.voila.js" for number in re.findall(r"\d+", start.group(1))] if start else []
    return ["voila.js", *(name for name in names if (entry.parent / name).is_file())]
