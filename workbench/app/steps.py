"""A notebook turned into a page, one named step at a time, with a stop in front of what depends on the visitor."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from jinja2 import BytecodeCache
from jupyter_core.utils import ensure_async
from nbclient.exceptions import CellExecutionError
from nbconvert.preprocessors.clearoutput import ClearOutputPreprocessor
from voila.notebook_renderer import NotebookRenderer

ASKS_FOR_REQUEST = re.compile(r"query_string|wait_for_request", re.IGNORECASE)
LONGEST_LABEL = 60


class CompiledTemplates(BytecodeCache):
    """Keeps compiled templates: every page has an environment of its own, and compiling took a tenth of a second."""

    def __init__(self):
        self.code: dict[str, bytes] = {}

    def load_bytecode(self, bucket):
        if bucket.key in self.code:
            bucket.bytecode_from_string(self.code[bucket.key])

    def dump_bytecode(self, bucket):
        self.code[bucket.key] = bucket.bytecode_to_string()


COMPILED = CompiledTemplates()


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


@dataclass(frozen=True)
class Outline:
    """What can be said of a notebook before any of it runs: its title and its steps."""

    title: str
    has_heading: bool
    labels: tuple[str | None, ...]
    steps: tuple[str, ...]
    numbers: tuple[int, ...]

    def next_step(self, index: int) -> dict | None:
        """Say which code cell runs after cell ``index`` (-1: at the start), for the loading page."""
        for following in range(index + 1, len(self.labels)):
            if self.labels[following]:
                return {"number": self.numbers[following], "of": len(self.steps), "label": self.labels[following]}
        return None


def outline(notebook, name: str) -> Outline:
    """Return the outline of a notebook; ``name`` stands for the title where it has none."""
    texts = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    labels = step_labels(notebook["cells"])
    steps, numbers = numbered(labels)
    told = notebook["metadata"].get("workbench", {}).get("title")
    return Outline(
        title=told or next(filter(None, map(_last_heading, texts)), "") or name,
        has_heading=any(re.match(r"\s*# ", text) for text in texts),
        labels=tuple(labels),
        steps=tuple(steps),
        numbers=tuple(numbers),
    )


class StepRenderer(NotebookRenderer):
    """Renders one notebook with one kernel; ``visitor`` is set when somebody asks for the page."""

    def __init__(self, *, visitor: asyncio.Future, show_source: bool, threads: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.visitor = visitor
        self.show_source = show_source
        self.threads = threads
        self.failure: Failure | None = None

    async def initialize(self, **kwargs):
        await super().initialize(**kwargs)
        self.outline = outline(self.notebook, self.resources["metadata"]["name"])
        self.exporter.environment.bytecode_cache = COMPILED
        self.exporter.exclude_input = not self.show_source
        self.exporter.exclude_input_prompt = True
        self.exporter.exclude_output_prompt = True

    def pieces(self, page: "Page", start: Callable[[], Awaitable[tuple[str, Any]]]):
        """Yield what follows the page's head, piece by piece; ``start`` makes the kernel."""

        async def kernel_start(nb):
            kernel_id, kernel = await start()
            await self._jinja_kernel_start(nb, kernel_id, kernel)
            if self.threads:
                await self._tell(f"import kernels\nkernels.set_num_threads({self.threads})")
            return kernel_id

        return self.exporter.generate_from_notebook_node(
            self.notebook,
            resources=self.resources,
            extra_context={
                "page": page,
                "renderer": self,
                "kernel_start": kernel_start,
                "cell_generator": self._jinja_cell_generator,
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
        number, step = self.outline.numbers[index], self.outline.labels[index] or "text"
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
    """One rendering under way: its pieces of HTML arrive in ``pieces`` while the kernel works, None at the end.

    ``render(page)`` yields the pieces. Until a visitor is admitted, it stops in front of what depends on one.
    """

    def __init__(self, render: Callable[["Page"], AsyncIterator[str]]):
        self.visitor = asyncio.get_running_loop().create_future()
        self.renderer: StepRenderer | None = None
        self.kernel_id: str | None = None
        self.request_id = ""
        self.ahead = 0
        self.pieces: asyncio.Queue = asyncio.Queue()
        self.broken: Exception | None = None
        self.task = asyncio.create_task(self._fill(render))

    async def _fill(self, render):
        try:
            async for piece in render(self):
                self.pieces.put_nowait(piece)
        except Exception as error:
            self.broken = error
        finally:
            self.pieces.put_nowait(None)

    @property
    def failure(self) -> Failure | None:
        """The step that failed, if one did."""
        return self.renderer and self.renderer.failure

    @property
    def visited(self) -> bool:
        """Whether somebody asked for this page."""
        return self.visitor.done()

    def admit(self, environment: dict[str, str]):
        """Let the page run on with the request of its visitor."""
        if not self.visited:
            self.visitor.set_result(environment)

    def wait(self, ahead: int):
        """Tell the visitor how many pages start before this one."""
        self.ahead = ahead
        if self.visited:
            self.pieces.put_nowait(f"<script>workbench.waiting({ahead})</script>")
