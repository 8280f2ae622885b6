"""The doors of the dashboards' server: gallery, pages, kernels' channels, static files."""

import asyncio
import secrets
from http.client import responses
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from jupyter_server.base.handlers import FileFindHandler, JupyterHandler
from jupyter_server.services.kernels.handlers import KernelHandler
from jupyter_server.utils import url_path_join
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler, StaticFileHandler
from voila.static_file_handler import MultiStaticFileHandler
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler
from voila.utils import get_voila_labextensions_path

from workbench.app.gallery import gallery_cards
from workbench.app.kernel_pool import KernelPool, PoolIsFullError
from workbench.app.notebook_index import find, notebook_index
from workbench.app.thumbnails import thumbnail

HEARTBEAT_S = 10
GRACE_S = 0.25
STATIC = Path(__file__).parent / "voila" / "static"
KERNEL_ID = r"(?P<kernel_id>\w+-\w+-\w+-\w+-\w+)"
CONTENT_SECURITY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' ws: wss: blob: data:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)


class WorkbenchHandler(JupyterHandler):
    """What all pages share: the pool, the templates, a request id, and errors shown as our own page."""

    def initialize(self, site):
        self.site = site
        self.request_id = secrets.token_hex(4)

    @property
    def kernel_manager(self) -> KernelPool:
        return self.site.pool

    @property
    def content_security_policy(self) -> str:
        return CONTENT_SECURITY

    def set_default_headers(self):
        super().set_default_headers()
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("Cache-Control", "no-store")

    async def prepare(self):
        await super().prepare(_redirect_to_login=False)
        if self.get_query_argument("token", None) and self.request.method == "GET":
            kept = [pair for pair in parse_qsl(self.request.query, keep_blank_values=True) if pair[0] != "token"]
            self.redirect(self.request.path + ("?" + urlencode(kept) if kept else ""))

    def show(self, template: str, **values):
        self.set_header("X-Request-Id", self.request_id)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(self.site.render(template, request_id=self.request_id, address=self.request.uri, **values))

    def write_error(self, status_code: int, **kwargs):
        error = kwargs.get("exc_info", (None, None, None))[1]
        if status_code == 403 and self.current_user is None:
            self.show("token.html", path=self.request.path)
            return
        told = isinstance(error, HTTPError) and error.log_message
        sentence = told or ("There is no such page." if status_code == 404 else "The server could not do this.")
        self.site.log.error("request %s: %s %s: %s", self.request_id, status_code, self.request.path, error)
        heading = responses.get(status_code, "Error")
        self.show("error.html", status=status_code, heading=heading, sentence=sentence)


class GalleryHandler(WorkbenchHandler):
    async def get(self):
        cards = await asyncio.to_thread(gallery_cards, self.site.folder)
        self.show("gallery.html", cards=cards, families=sorted({card.family for card in cards}))


class ThumbnailHandler(WorkbenchHandler):
    async def get(self, kind, name):
        picture = await asyncio.to_thread(thumbnail, self.site.folder, kind, name)
        self.set_header("Content-Type", picture.mime)
        self.set_header("Cache-Control", "private, max-age=300")
        self.finish(picture.content)


class NotebookIndexHandler(WorkbenchHandler):
    """The gallery and the dashboards as JSON, for JupyterLab's launcher."""

    async def get(self):
        notebooks = await asyncio.to_thread(notebook_index, self.site.folder)
        cards = [{"title": "Gallery", "description": "All dashboards and papers", "address": ""}]
        cards += [
            {"title": n.title, "description": n.description, "address": f"dashboards/{n.name}"}
            for n in notebooks
            if n.kind == "dashboards"
        ]
        self.finish({"icon": (STATIC / "icon.svg").read_text(encoding="utf-8"), "cards": cards})


class PageHandler(WorkbenchHandler):
    """Runs one notebook in a kernel of its own and streams the page, step by step."""

    async def get(self, kind, name):
        path = find(self.site.folder, kind, name.removesuffix(".ipynb"))
        if path is None:
            raise HTTPError(404, f"There is no notebook called {name} among the {kind}.")
        source = self.get_query_argument("source", "1" if kind == "papers" else "") not in ("", "0", "no")
        try:
            page = await self.site.pool.open_page(path.as_posix(), self._environment(), source)
        except PoolIsFullError as full:
            self.set_status(503)
            self.set_header("Retry-After", str(full.retry_s))
            self.show("full.html", retry_s=full.retry_s, capacity=self.site.pool.capacity)
            return
        self._page = page
        page.renderer.request_id = self.request_id
        self.set_header("X-Request-Id", self.request_id)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        try:
            await self._stream(page)
        except StreamClosedError:
            page.task.cancel()
            await self.site.pool.leave(page.kernel_id)

    def _environment(self) -> dict[str, str]:
        return {
            "QUERY_STRING": self.request.query,
            "SCRIPT_NAME": self.request.path,
            "SERVER_SOFTWARE": "sparse-workbench",
        }

    async def _stream(self, page):
        await asyncio.wait({page.task}, timeout=GRACE_S)
        self._report(page)
        if page.task.done() and (page.renderer.failure or page.broken):
            self.set_status(500)
        while True:
            try:
                piece = await asyncio.wait_for(page.pieces.get(), HEARTBEAT_S)
            except TimeoutError:
                piece = "<!-- still running -->\n"
            if piece is None:
                break
            self.write(piece)
            await self.flush()
        self._report(page)
        if page.broken:
            self.write(self.site.render("broken.html", request_id=self.request_id))
            await self.site.pool.leave(page.kernel_id)

    def _report(self, page):
        if getattr(self, "_reported", False) or not (page.broken or page.renderer.failure):
            return
        self._reported = True
        if page.broken:
            self.site.log.error("request %s: %s", self.request_id, self.request.path, exc_info=page.broken)
        else:
            failure = page.renderer.failure
            self.site.log.error(
                "request %s: %s: step %d (%s) failed: %s\n%s",
                *(self.request_id, self.request.path, failure.number, failure.step),
                *(failure.sentence, failure.traceback),
            )


class AliveHandler(WorkbenchHandler):
    async def get(self, kernel_id):
        self.finish({"alive": await self.site.pool.alive(kernel_id)})


class LeaveHandler(WorkbenchHandler):
    """A closing page gives its kernel back; a beacon cannot carry an XSRF header, so the origin is checked instead."""

    def check_xsrf_cookie(self):
        known = hasattr(self, "_jupyter_current_user")
        if known and not self.check_origin():
            raise HTTPError(403, "This request came from another site.")

    async def post(self, kernel_id):
        await self.site.pool.leave(kernel_id)
        self.set_status(204)


class RoomKernelHandler(KernelHandler):
    """Tells the page about its kernel; ending or restarting it by hand is not offered."""

    SUPPORTED_METHODS = ("GET",)

    def initialize(self, site):
        super().initialize()
        self.site = site

    @property
    def kernel_manager(self) -> KernelPool:
        return self.site.pool


class RoomChannelsHandler(VoilaKernelWebsocketHandler):
    def initialize(self, site):
        super().initialize()
        self.site = site

    @property
    def kernel_manager(self) -> KernelPool:
        return self.site.pool


class CachedStaticHandler(MultiStaticFileHandler):
    """Voila's style sheets and scripts: kept by the browser for ten minutes."""

    def set_extra_headers(self, path):
        self.set_header("Cache-Control", "public, max-age=600")


class PageScriptsHandler(RequestHandler):
    """All script pieces of a page at once; the address changes with the content, so browsers keep it for good."""

    def initialize(self, site):
        self.site = site

    async def get(self, name):
        if name != self.site.scripts.name:
            raise HTTPError(404)
        self.set_header("Content-Type", "text/javascript; charset=utf-8")
        self.set_header("Cache-Control", "public, max-age=31536000, immutable")
        self.set_header("Vary", "Accept-Encoding")
        far = self.request.remote_ip not in ("127.0.0.1", "::1")
        if far and "gzip" in self.request.headers.get("Accept-Encoding", ""):
            self.set_header("Content-Encoding", "gzip")
            self.finish(await asyncio.to_thread(lambda: self.site.scripts.zipped))
        else:
            self.finish(self.site.scripts.content)


class NotFoundHandler(WorkbenchHandler):
    def get(self):
        raise HTTPError(404)


class OpenFileFindHandler(FileFindHandler):
    """Scripts of the widget packages."""

    async def prepare(self):
        """Answer without a token: these files are public packages."""


def routes(site) -> list[tuple]:
    """Return every route below the site's prefix, the gallery at the prefix itself."""
    ours = {"site": site}
    extensions = get_voila_labextensions_path()
    table = [
        ("/", GalleryHandler, ours),
        (r"/(?P<kind>dashboards|papers)/(?P<name>[\w\-/]+)", PageHandler, ours),
        (r"/voila/render/(?P<kind>dashboards|papers)/(?P<name>[\w\-/]+\.ipynb)", PageHandler, ours),
        (r"/notebooks\.json", NotebookIndexHandler, ours),
        (r"/thumbnail/(?P<kind>dashboards|papers)/(?P<name>[\w\-/]+)", ThumbnailHandler, ours),
        (rf"/api/kernels/{KERNEL_ID}", RoomKernelHandler, ours),
        (rf"/api/kernels/{KERNEL_ID}/channels", RoomChannelsHandler, ours),
        (rf"/pool/alive/{KERNEL_ID}", AliveHandler, ours),
        (rf"/pool/leave/{KERNEL_ID}", LeaveHandler, ours),
        (rf"/voila/api/shutdown/{KERNEL_ID}", LeaveHandler, ours),
        (r"/style/(.*)", StaticFileHandler, {"path": str(STATIC)}),
        (r"/scripts/(\w+\.js)", PageScriptsHandler, ours),
        (r"/voila/static/(.*)", CachedStaticHandler, {"paths": site.static_paths}),
        (r"/voila/labextensions/(.*)", OpenFileFindHandler, {"path": extensions, "no_cache_paths": []}),
        (r"/.*", NotFoundHandler, ours),
    ]
    return [(url_path_join(site.prefix, pattern), handler, options) for pattern, handler, options in table]
