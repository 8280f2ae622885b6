"""The dashboards' kernels: a bounded number, started in turn, ended when idle, some before their visitor comes."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_core.utils import ensure_async
from jupyter_server._tz import utcnow
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from traitlets import Dict, Float, Integer

from workbench.app.request import SERVED
from workbench.app.steps import Page, StepRenderer

IDLE_S = 300
PATIENCE_S = 5
TURN_S = 20
START_S = 300
WIDGET_MESSAGES = ["comm_open", "comm_close", "comm_msg", "comm_info_request", "kernel_info_request"]


class PoolIsFullError(Exception):
    """All places are taken; ``retry_s`` is when the next one may become free."""

    def __init__(self, retry_s: int):
        super().__init__(f"all places are taken; retry in {retry_s} s")
        self.retry_s = retry_s


class VisitorKernelSpecs(KernelSpecManager):
    """Starts Python kernels through ``workbench.app.visitor_kernel``, which limits their memory."""

    def get_kernel_spec(self, kernel_name):
        spec = super().get_kernel_spec(kernel_name)
        spec.argv = ["workbench.app.visitor_kernel" if part == "ipykernel_launcher" else part for part in spec.argv]
        return spec


class StartingLine:
    """Lets a few pages start at a time, in the order in which they came, visitors before pages started ahead.

    Thirty kernels that start together each take thirty times as long. Two by two, the first visitor waits for one start
    and the last no longer than before.
    """

    def __init__(self, at_once: int):
        self.at_once = at_once
        self.starting: set[Page] = set()
        self.waiting: list[tuple[Page, asyncio.Future]] = []

    async def turn(self, page: Page):
        """Wait until the page may start; ``page.ahead`` tells its visitor how many come before."""
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append((page, turn))
        try:
            self._advance()
            await turn
        except asyncio.CancelledError:
            self.waiting = [(other, future) for other, future in self.waiting if other is not page]
            self.done(page)
            raise
        asyncio.get_running_loop().call_later(TURN_S, self.done, page)

    def done(self, page: Page):
        """Let the next page start: this one has, or takes long."""
        self.starting.discard(page)
        self._advance()

    def _advance(self):
        self.waiting.sort(key=lambda waiting: not waiting[0].visited)
        while self.waiting and len(self.starting) < self.at_once:
            page, turn = self.waiting.pop(0)
            if not turn.done():
                self.starting.add(page)
                turn.set_result(None)
        for ahead, (page, _) in enumerate(self.waiting, start=1):
            page.wait(ahead)


class KernelPool(AsyncMappingKernelManager):
    """At most ``capacity`` visitors' kernels.

    A kernel without an open page is ended after ``cull_idle_timeout`` seconds without a message; one whose page is open
    stays, until all places are taken: then the longest idle one makes room, once it was idle for as long. A browser may
    only exchange widget messages with them, never code. A kernel that dies stays dead: its state is gone, and the page
    says so.
    """

    capacity = Integer(16, min=1, help="visitors at the same time")
    refill_s = Float(1.0, help="pause before a used warm kernel is replaced")
    threads = Integer(None, allow_none=True, help="threads of our compiled kernels in each; None: all cores")
    starts_at_once = Integer(2, min=1, help="pages that start at the same time; the others wait for their turn")
    environment = Dict(help="environment variables that every kernel gets")

    def __init__(self, **kwargs):
        kwargs.setdefault("allowed_message_types", WIDGET_MESSAGES)
        kwargs.setdefault("cull_idle_timeout", IDLE_S)
        kwargs.setdefault("cull_interval", 15)
        kwargs.setdefault("cull_connected", False)
        kwargs.setdefault("kernel_info_timeout", START_S)
        super().__init__(**kwargs)
        self.make_renderer: Callable[..., Awaitable[StepRenderer]] | None = None
        self.line = StartingLine(self.starts_at_once)
        self._warm: dict[str, list[Page]] = {}
        self._without_kernel: set[Page] = set()
        self._ending: set[str] = set()
        self._starts: set[asyncio.Future] = set()
        self._tasks: set[asyncio.Task] = set()

    @property
    def visitors(self) -> int:
        """Visitors that hold a place: their pages wait for a kernel or have one that nobody is ending."""
        taken = set(self.list_kernel_ids()) - self._warm_ids() - self._ending
        return len(taken) + sum(page.visited for page in self._without_kernel)

    def _warm_ids(self) -> set[str]:
        return {page.kernel_id for pages in self._warm.values() for page in pages if page.kernel_id}

    def _idle_s(self) -> dict[str, float]:
        """Return for how long each visitor's kernel had no message."""
        hidden = self._warm_ids() | self._ending
        return {
            kernel_id: (utcnow() - kernel.last_activity).total_seconds()
            for kernel_id, kernel in self._kernels.items()
            if kernel_id not in hidden and getattr(kernel, "execution_state", "") == "idle"
        }

    def retry_s(self) -> int:
        """Seconds until the longest-idle kernel is ended if nobody touches it, between 5 and the idle limit."""
        longest = max(self._idle_s().values(), default=0)
        return int(min(max(self.cull_idle_timeout - longest, 5), max(self.cull_idle_timeout, 5)))

    async def open_page(self, path: str, environment: dict[str, str], show_source: bool = False) -> Page:
        """Return a page under way for a visitor: a warm one if there is one, else one that waits for its turn.

        Raises
        ------
        PoolIsFullError : all places are taken.
        """
        if self.visitors >= self.capacity:
            await self._make_room()
        if self.visitors >= self.capacity:
            raise PoolIsFullError(self.retry_s())
        page = (None if show_source else await self._take_warm(path)) or self._start_page(path, show_source)
        page.admit(environment)
        return page

    async def warm_up(self, path: str):
        """Start a kernel for the notebook and run it up to the first step that depends on the visitor."""
        if not self._warm.get(path):
            self._warm.setdefault(path, []).append(self._start_page(path))

    async def alive(self, kernel_id: str) -> bool:
        """Tell whether the kernel still holds its state."""
        return (
            kernel_id in self
            and kernel_id not in self._ending
            and await ensure_async(self.get_kernel(kernel_id).is_alive())
        )

    async def leave(self, kernel_id: str):
        """End a kernel whose page was closed; its place is free at once, unknown ones are no error."""
        if kernel_id not in self or kernel_id in self._ending:
            return
        self._ending.add(kernel_id)
        try:
            await ensure_async(self.shutdown_kernel(kernel_id, now=True))
        finally:
            self._ending.discard(kernel_id)

    def abandon(self, page: Page):
        """Stop a page whose visitor went away before it was complete; its place is free at once."""
        page.task.cancel()
        self._without_kernel.discard(page)
        if page.kernel_id:
            self._in_background(self.leave(page.kernel_id))

    def _start_page(self, path: str, show_source: bool = False) -> Page:
        """Return a page that gets its kernel when its turn comes."""

        async def render(page: Page):
            try:
                await self.line.turn(page)
                page.renderer = await self.make_renderer(path, show_source, page.visitor)
                async for piece, _ in page.renderer.pieces(
                    page, lambda: self._start_kernel(page, os.path.dirname(path))
                ):
                    yield piece
            finally:
                self._without_kernel.discard(page)
                self.line.done(page)

        page = Page(render)
        self._without_kernel.add(page)
        return page

    async def _start_kernel(self, page: Page, folder: str):
        asked = page.visitor.result() if page.visited else {}
        name = page.renderer.notebook.metadata.kernelspec.name
        environment = {**os.environ, **SERVED, **self.environment, **asked}
        starting = asyncio.ensure_future(self.start_kernel(kernel_name=name, path=folder, env=environment))
        page.kernel_id = await self._unless_abandoned(starting)
        self._without_kernel.discard(page)
        return page.kernel_id, self.get_kernel(page.kernel_id)

    async def _unless_abandoned(self, starting: asyncio.Future) -> str:
        """Return the id of a kernel being started; end the kernel if its page is abandoned meanwhile."""
        self._starts.add(starting)
        starting.add_done_callback(self._starts.discard)
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            self._in_background(self._end_when_started(starting))
            raise

    async def _end_when_started(self, starting: asyncio.Future):
        (ended,) = await asyncio.gather(starting, return_exceptions=True)
        if isinstance(ended, str):
            await self.leave(ended)

    async def _take_warm(self, path: str) -> Page | None:
        if path not in self._warm:
            return None
        waiting = self._warm[path]
        page = waiting.pop(0) if waiting else None
        self._in_background(self._refill(path))
        if page and (page.task.done() or not (page.kernel_id and await self.alive(page.kernel_id))):
            self.abandon(page)
            return None
        return page

    def _in_background(self, work):
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _refill(self, path: str):
        await asyncio.sleep(self.refill_s)
        if self.visitors < self.capacity:
            await self.warm_up(path)

    async def _make_room(self):
        """End what is dead, and if that is not enough the kernel that was idle longest, if it was idle for long."""
        for kernel_id in self.list_kernel_ids():
            if kernel_id not in self._ending and not await self.alive(kernel_id):
                await self.leave(kernel_id)
        if self.visitors >= self.capacity:
            idle_s, kernel_id = max(((s, k) for k, s in self._idle_s().items()), default=(0, ""))
            if idle_s >= self.cull_idle_timeout:
                await self.leave(kernel_id)

    async def cull_kernel_if_idle(self, kernel_id: str):
        if kernel_id not in self or kernel_id in self._warm_ids() | self._ending:
            return
        if self.get_kernel(kernel_id).trait_has_value("last_activity"):  # else it is in the middle of its start
            await super().cull_kernel_if_idle(kernel_id)

    async def close(self):
        """End every kernel, the warm ones included."""
        pages = [page for warm in self._warm.values() for page in warm]
        for page in pages:
            page.visitor.cancel()
        unfinished = [*self._tasks, *(page.task for page in [*pages, *self._without_kernel])]
        for task in unfinished:
            task.cancel()
        if unfinished:
            await asyncio.wait(unfinished, timeout=PATIENCE_S)
        if self._starts:  # a kernel in the middle of its start cannot be ended before
            await asyncio.wait(self._starts, timeout=PATIENCE_S)
        self._warm.clear()
        await ensure_async(self.shutdown_all(now=True))
        shutil.rmtree(self.connection_dir, ignore_errors=True)
