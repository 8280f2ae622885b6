"""The dashboards' kernels: a bounded number, ended when idle, and some started before their visitor comes."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable

from jupyter_core.utils import ensure_async
from jupyter_server._tz import utcnow
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from traitlets import Dict, Float, Integer

from workbench.app.steps import Page, StepRenderer

IDLE_S = 300
PATIENCE_S = 5
WIDGET_MESSAGES = ["comm_open", "comm_close", "comm_msg", "comm_info_request", "kernel_info_request"]


class PoolIsFullError(Exception):
    """All places are taken; ``retry_s`` is when the next one may become free."""

    def __init__(self, retry_s: int):
        super().__init__(f"all places are taken; retry in {retry_s} s")
        self.retry_s = retry_s


class KernelPool(AsyncMappingKernelManager):
    """At most ``capacity`` visitors' kernels, ended after ``cull_idle_timeout`` seconds without a message.

    A browser may only exchange widget messages with them, never code. A kernel that dies stays dead: its state is
    gone, and the page says so.
    """

    capacity = Integer(16, min=1, help="visitors at the same time")
    refill_s = Float(1.0, help="pause before a used warm kernel is replaced")
    threads = Integer(None, allow_none=True, help="threads of our compiled kernels in each; None: all cores")
    environment = Dict(help="environment variables that every kernel gets")

    def __init__(self, **kwargs):
        kwargs.setdefault("allowed_message_types", WIDGET_MESSAGES)
        kwargs.setdefault("cull_idle_timeout", IDLE_S)
        kwargs.setdefault("cull_interval", 15)
        kwargs.setdefault("cull_connected", True)
        super().__init__(**kwargs)
        self.make_renderer: Callable[..., Awaitable[StepRenderer]] | None = None
        self._warm: dict[str, list[Page]] = {}
        self._starting = 0
        self._refills: set[asyncio.Task] = set()

    @property
    def visitors(self) -> int:
        """Kernels that belong to a visitor, those being started included."""
        return len(self) - len(self._warm_ids()) + self._starting

    def _warm_ids(self) -> set[str]:
        return {page.kernel_id for pages in self._warm.values() for page in pages}

    def retry_s(self) -> int:
        """Seconds until the longest-idle kernel is ended if nobody touches it, between 5 and the idle limit."""
        warm = self._warm_ids()
        idle = [
            (utcnow() - kernel.last_activity).total_seconds()
            for kernel_id, kernel in self._kernels.items()
            if kernel_id not in warm and hasattr(kernel, "last_activity")
        ]
        return int(min(max(self.cull_idle_timeout - max(idle, default=0), 5), max(self.cull_idle_timeout, 5)))

    async def open_page(self, path: str, environment: dict[str, str], show_source: bool = False) -> Page:
        """Return a page under way for a visitor: a warm one if there is one, else one on a kernel of its own."""
        if self.visitors >= self.capacity:
            await self._forget_the_dead()
        if self.visitors >= self.capacity:
            raise PoolIsFullError(self.retry_s())
        page = None if show_source else await self._take_warm(path)
        if page is None:
            self._starting += 1
            try:
                page = await self._start_page(path, environment, show_source)
            finally:
                self._starting -= 1
        page.admit(environment)
        return page

    async def warm_up(self, path: str):
        """Start a kernel for the notebook and run it up to the first step that depends on the visitor."""
        if self._warm.get(path):
            return
        page = await self._start_page(path, {}, show_source=False, admitted=False)
        self._warm.setdefault(path, []).append(page)

    async def alive(self, kernel_id: str) -> bool:
        """Tell whether the kernel still holds its state."""
        return kernel_id in self and await ensure_async(self.get_kernel(kernel_id).is_alive())

    async def leave(self, kernel_id: str):
        """End a kernel whose page was closed; unknown ones are no error."""
        if kernel_id in self:
            await ensure_async(self.shutdown_kernel(kernel_id, now=True))

    async def _start_page(self, path: str, environment: dict[str, str], show_source: bool, admitted=True) -> Page:
        renderer = await self.make_renderer(path, show_source)
        if admitted:
            renderer.visitor.set_result(environment)
        kernel_id = await ensure_async(
            self.start_kernel(
                kernel_name=renderer.notebook.metadata.kernelspec.name,
                path=os.path.dirname(path),
                env={**os.environ, **self.environment, **environment},
            )
        )
        return Page(renderer, kernel_id, self.get_kernel(kernel_id))

    async def _take_warm(self, path: str) -> Page | None:
        if path not in self._warm:
            return None
        waiting = self._warm[path]
        page = waiting.pop(0) if waiting else None
        refill = asyncio.create_task(self._refill(path))
        self._refills.add(refill)
        refill.add_done_callback(self._refills.discard)
        if page and (page.task.done() or not await self.alive(page.kernel_id)):
            await self.leave(page.kernel_id)
            return None
        return page

    async def _refill(self, path: str):
        await asyncio.sleep(self.refill_s)
        if self.visitors < self.capacity:
            await self.warm_up(path)

    async def _forget_the_dead(self):
        for kernel_id in self.list_kernel_ids():
            if not await self.alive(kernel_id):
                await self.leave(kernel_id)

    async def cull_kernel_if_idle(self, kernel_id: str):
        if kernel_id in self and kernel_id not in self._warm_ids():
            await super().cull_kernel_if_idle(kernel_id)

    async def close(self):
        """End every kernel, the warm ones included."""
        pages = [page for warm in self._warm.values() for page in warm]
        for page in pages:
            page.renderer.visitor.cancel()
        unfinished = [*self._refills, *(page.task for page in pages)]
        for task in unfinished:
            task.cancel()
        if unfinished:
            await asyncio.wait(unfinished, timeout=PATIENCE_S)
        self._warm.clear()
        await ensure_async(self.shutdown_all(now=True))
        shutil.rmtree(self.connection_dir, ignore_errors=True)
