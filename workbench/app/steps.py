"""A notebook turned into a page, one named step at a time, with a stop in front of what depends on the visitor."""

import asyncio
import json
import re
from dataclasses import dataclass

from jupyter_core.utils import ensure_async
from nbclient.exceptions import CellExecutionError
from nbconvert.preprocessors.clearoutput import ClearOutputPreprocessor
from voila.notebook_renderer import NotebookRenderer

ASKS_FOR_REQUEST = re.compile(r"query_string|wait_for_request", re.IGNORECASE)
LONGEST_LABEL = 60


@dataclass(frozen=True)
class Failure:
    """The step that failed, one sentence on why, and the traceback for the server's log."""

    step: str
    number: int
    sentence: str
    traceback: str


def step_labels(cells) -> list[str | None]:
    """Name every code cell: by its metadata, its first comment or the heading above it; None for other cells."""
    labels, heading, seen = [], "", 0
    for cell in cells:
        if cell["cell_type"] == "markdown":
            heading = _last_heading(cell["source"]) or heading
        if cell["cell_type"] != "code" or not cell["source"].strip():
            labels.append(None)
            continue
        seen += 1
        told = cell["metadata"].get("workbench", {}).get("step", "")
        label = told or _first_comment(cell["source"]) or heading or f"step {seen}"
        labels.append(label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "\u2026")
    return labels


def numbered(labels) -> tuple[list[str], list[int]]:
    """Take cells of one label in a row as one step: the steps, and the number of every cell's step, from 1."""
    steps, numbers = [], []
    for label in labels:
        if label and label not in steps[-1:]:
            steps.append(label)
        numbers.append(len(steps))
    return steps, numbers


def _last_heading(source: str) -> str:
    headings = [line.lstrip("#").strip() for line in source.splitlines() if re.match(r"#{1,6} ", line)]
    return headings[-1] if headings else ""


def _first_comment(source: str) -> str:
    first = source.strip().splitlines()[0]
    return first.lstrip("# ").strip() if first.startswith("#") and not first.startswith("# %%") else ""


class StepRenderer(NotebookRenderer):
    """Renders one notebook with one kernel; ``visitor`` is set when somebody asks for the page."""

    def __init__(self, *, show_source: bool, threads: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.show_source = show_source
        self.threads = threads
        self.visitor = asyncio.get_running_loop().create_future()
        self.failure: Failure | None = None

    async def initialize(self, **kwargs):
        await super().initialize(**kwargs)
        self.labels = step_labels(self.notebook.cells)
        self.steps, self.numbers = numbered(self.labels)
        hide = not self.show_source
        self.exporter.exclude_input = hide
        self.exporter.exclude_input_prompt = True
        self.exporter.exclude_output_prompt = True

    @property
    def title(self) -> str:
        told = self.notebook.metadata.get("workbench", {}).get("title")
        headings = (_last_heading(cell.source) for cell in self.notebook.cells if cell.cell_type == "markdown")
        return told or next(filter(None, headings), "") or self.resources["metadata"]["name"]

    @property
    def has_heading(self) -> bool:
        return any(re.match(r"\s*# ", cell.source) for cell in self.notebook.cells if cell.cell_type == "markdown")

    def next_step(self, index: int) -> dict | None:
        """Say which code cell runs after cell ``index`` (-1: at the start), for the loading page."""
        for following in range(index + 1, len(self.labels)):
            if self.labels[following]:
                return {"number": self.numbers[following], "of": len(self.steps), "label": self.labels[following]}
        return None

    def generate_content_generator(self, kernel_id=None, kernel_future=None):
        async def kernel_start(nb):
            await self._jinja_kernel_start(nb, kernel_id, kernel_future)
            if self.threads:
                await self._tell(f"import kernels\nkernels.set_num_threads({self.threads})")
            return kernel_id

        return self.exporter.generate_from_notebook_node(
            self.notebook,
            resources=self.resources,
            extra_context={
                "page": self,
                "kernel_start": kernel_start,
                "cell_generator": self._jinja_cell_generator,
                "main_js": "voila.js",
                "frontend": "voila",
            },
            page_config=self.page_config,
        )

    async def _jinja_cell_generator(self, nb, kernel_id):
        nb, _ = ClearOutputPreprocessor().preprocess(nb, {"metadata": {"path": self.cwd}})
        try:
            async for done in self._run_all(nb):
                yield done
        finally:
            self.executor.kc.stop_channels()

    async def _run_all(self, nb):
        greeted = False  # a visitor may take a warm page before its kernel was told anything
        for index, cell in enumerate(nb.cells):
            if not greeted and cell.cell_type == "code" and ASKS_FOR_REQUEST.search(cell.source):
                greeted = await self._greet()
            failure = await self._run(cell, index)
            if failure and not greeted:
                greeted = await self._greet()
                failure = await self._run(cell, index)
            if failure:
                self.failure = failure
                break
            yield index, cell
        if not greeted and not self.failure:
            await self._greet()

    async def _greet(self) -> bool:
        """Wait for a visitor, then tell the kernel what was asked for."""
        environment = await self.visitor
        await self._tell(f"import os, json\nos.environ.update(json.loads({json.dumps(environment)!r}))")
        return True

    async def _tell(self, code: str):
        await ensure_async(self.executor.kc.execute(code, silent=True, store_history=False))

    async def _run(self, cell, index: int) -> Failure | None:
        cell.pop("execution_count", None)
        if cell.cell_type == "code":
            cell.outputs = []
        number, step = self.numbers[index], self.labels[index] or "text"
        try:
            await self.executor.execute_cell(cell, None, index, store_history=False)
        except CellExecutionError as error:
            return Failure(step, number, f"{error.ename}: {error.evalue}".splitlines()[0][:300], error.traceback)
        except TimeoutError:
            return Failure(step, number, "It took too long and was stopped.", "timeout")
        except Exception as error:
            return Failure(step, number, "Its kernel stopped unexpectedly.", f"{type(error).__name__}: {error}")
        return None


class Page:
    """One rendering under way: its pieces of HTML arrive in ``pieces`` while the kernel works, None at the end."""

    def __init__(self, renderer: StepRenderer, kernel_id: str, kernel):
        self.renderer = renderer
        self.kernel_id = kernel_id
        self.pieces: asyncio.Queue = asyncio.Queue()
        self.broken: Exception | None = None
        self.task = asyncio.create_task(self._render(kernel))

    async def _render(self, kernel):
        try:
            async for piece, _ in self.renderer.generate_content_generator(self.kernel_id, kernel):
                await self.pieces.put(piece)
        except Exception as error:
            self.broken = error
        finally:
            await self.pieces.put(None)

    def admit(self, environment: dict[str, str]):
        """Let the page run on with the request of its visitor."""
        if not self.renderer.visitor.done():
            self.renderer.visitor.set_result(environment)
