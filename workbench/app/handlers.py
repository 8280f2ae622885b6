"""The doors of the dashboards' server: gallery, pages, kernels' channels, static files."""

import asyncio
import re
import secrets
from http.client import responses
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from jupyter_server.base.handlers import FileFindHandler, JupyterHandler
from jupyter_server.services.kernels.handlers import KernelHandler
from jupyter_server.utils import url_path_join
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler, StaticFileHandler
from voila.static_file_handler import MultiStaticFileHandler
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler
from voila.utils import get_voila_labextensions_path

from workbench.app.frames import PROTOCOL, BadFrameError, check_frame
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
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)


FOREIGN = ("cross-site", "same-site")


class OurHosts:
    """Which names this server answers to, and whose pages may open its websockets: its own."""

    def check_host(self) -> bool:
        return _hostname(self.request.host) in self.site.hosts or super().check_host()

    def check_origin(self, *origin) -> bool:
        asking = origin[0] if origin else self.request.headers.get("Origin", "")
        return _hostname(urlsplit(asking or "").netloc) in self.site.hosts or super().check_origin(*origin)


def _hostname(host: str) -> str:
    return urlsplit(f"//{host}").hostname or ""


class WorkbenchHandler(OurHosts, JupyterHandler):
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
        if not self.check_host():
            self.current_user = self._jupyter_current_user = None
            told = f"This server does not answer to the name {_hostname(self.request.host)!r}."
            raise HTTPError(403, f"{told} Whoever started it can allow it with --allow-host.")
        await super().prepare(_redirect_to_login=False)
        if self.get_query_argument("token", None) and self.request.method == "GET":
            kept = [pair for pair in parse_qsl(self.request.query, keep_blank_values=True) if pair[0] != "token"]
            self.redirect(_on_this_server(self.request.path, urlencode(kept)))

    async def head(self, *args, **kwargs):
        """Answer as GET would, without a body; tornado leaves that out by itself."""
        await self.get(*args, **kwargs)

    def show(self, template: str, **values):
        self.set_header("X-Request-Id", self.request_id)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(self.site.render(template, request_id=self.request_id, address=self.request.uri, **values))

    def write_error(self, status_code: int, **kwargs):
        error = kwargs.get("exc_info", (None, None, None))[1]
        told = isinstance(error, HTTPError) and error.log_message
        if status_code == 403 and self.current_user is None and not told:
            self.show("token.html", path=self.request.path)
            return
        sentence = told or ("There is no such page." if status_code == 404 else "The server could not do this.")
        self.site.log.error("request %s: %s %s: %s", self.request_id, status_code, self.request.path, error)
        heading = responses.get(status_code, "Error")
        self.show("error.html", status=status_code, heading=heading, sentence=sentence)


def _on_this_server(path: str, query: str) -> str:
    """Return an address that cannot lead elsewhere: ``//host`` and ``/\\host`` would name another server."""
    return re.sub(r"^[/\\]+", "/", path) + (f"?{query}" if query else "")


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

    page = None

    async def head(self, kind, name):
        """Tell whether there is such a page, without a kernel."""
        self._find(kind, name)

    async def get(self, kind, name):
        if name.endswith("/"):
            return self.redirect(_on_this_server(self.request.path.rstrip("/"), self.request.query), permanent=True)
        path = self._find(kind, name)
        if self.request.headers.get("Sec-Fetch-Site") in FOREIGN:
            # A foreign page could fill all places by itself; a reader who followed its link goes on with one click.
            self.set_status(403)
            return self.show("elsewhere.html")
        try:
            outline = self.site.outline(path)
        except ValueError as error:
            raise HTTPError(500, str(error)) from error
        source = self.get_query_argument("source", "1" if kind == "papers" else "") not in ("", "0", "no")
        try:
            page = await self.site.pool.open_page(path.as_posix(), self._environment(), source)
        except PoolIsFullError as full:
            self.set_status(503)
            self.set_header("Retry-After", str(full.retry_s))
            return self.show("full.html", retry_s=full.retry_s, capacity=self.site.pool.capacity)
        self.page = page
        page.request_id = self.request_id
        self.set_header("X-Request-Id", self.request_id)
        self.set_header("X-Accel-Buffering", "no")
        self.set_header("Content-Type", "text/html; charset=utf-8")
        try:
            await self._stream(page, self.site.render("head.html", outline=outline, site=self.site))
        except StreamClosedError:
            self.site.pool.abandon(page)

    def on_connection_close(self):
        """Free the place of a visitor who went away while the page was being built."""
        super().on_connection_close()
        if self.page:
            self.site.pool.abandon(self.page)

    def _find(self, kind: str, name: str) -> Path:
        path = find(self.site.folder, kind, name.removesuffix(".ipynb").rstrip("/"))
        if path is None:
            raise HTTPError(404, f"There is no notebook called {name} among the {kind}.")
        return path

    def _environment(self) -> dict[str, str]:
        return {"QUERY_STRING": self.request.query, "SCRIPT_NAME": self.request.path}

    async def _stream(self, page, head: str):
        if page.kernel_id:  # started ahead: it may be through already, and if it failed the status can still say so
            await asyncio.wait({page.task}, timeout=GRACE_S)
        self._report(page)
        if page.task.done() and (page.failure or page.broken):
            self.set_status(500)
        self.write(head)
        await self.flush()
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
            self.site.pool.abandon(page)

    def _report(self, page):
        if getattr(self, "_reported", False) or not (page.broken or page.failure):
            return
        self._reported = True
        if page.broken:
            self.site.log.error("request %s: %s", self.request_id, self.request.path, exc_info=page.broken)
        else:
            failure = page.failure
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


class VisitorKernelHandler(OurHosts, KernelHandler):
    """Tells the page about its kernel; ending or restarting it by hand is not offered."""

    SUPPORTED_METHODS = ("GET",)

    def initialize(self, site):
        super().initialize()
        self.site = site

    @property
    def kernel_manager(self) -> KernelPool:
        return self.site.pool


class VisitorChannelsHandler(OurHosts, VoilaKernelWebsocketHandler):
    """Carries widget messages between a page and its kernel, after a look at every frame that comes from outside."""

    def initialize(self, site):
        super().initialize()
        self.site = site

    @property
    def kernel_manager(self) -> KernelPool:
        return self.site.pool

    async def get(self, kernel_id):
        offered = self.request.headers.get("Sec-WebSocket-Protocol", "")
        if PROTOCOL not in (name.strip() for name in offered.split(",")):
            raise HTTPError(400, f"The websocket must speak {PROTOCOL}.")
        if kernel_id not in self.kernel_manager:
            raise HTTPError(404, "This kernel has ended.")
        await super().get(kernel_id=kernel_id)

    def on_message(self, frame):
        if self.connection is None or self.close_code:  # closing
            return
        try:
            check_frame(frame)
        except BadFrameError as error:
            self.site.log.warning("closed the websocket of kernel %s: %s", self.kernel_id, error)
            self.close(error.close_code, str(error))
        else:
            super().on_message(frame)

    def on_close(self):
        if getattr(self, "connection", None):  # a refused one never had any
            super().on_close()

    def write_error(self, status_code, **kwargs):
        error = kwargs.get("exc_info", (None, None, None))[1]
        self.finish(getattr(error, "log_message", None) or responses.get(status_code, "Error"))


class NoSniff:
    """Keeps browsers from taking a file for something else than its type says."""

    def set_extra_headers(self, path):
        self.set_header("X-Content-Type-Options", "nosniff")


class StyleHandler(NoSniff, StaticFileHandler):
    """Our own style sheets and scripts."""


class CachedStaticHandler(NoSniff, MultiStaticFileHandler):
    """Voila's style sheets and scripts: kept by the browser for ten minutes."""

    def set_extra_headers(self, path):
        super().set_extra_headers(path)
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
        self.set_header("X-Content-Type-Options", "nosniff")
        far = self.request.remote_ip not in ("127.0.0.1", "::1")
        if far and "gzip" in self.request.headers.get("Accept-Encoding", ""):
            self.set_header("Content-Encoding", "gzip")
            self.finish(await asyncio.to_thread(lambda: self.site.scripts.zipped))
        else:
            self.finish(self.site.scripts.content)

    head = get


class NotFoundHandler(WorkbenchHandler):
    def get(self):
        raise HTTPError(404)


class WithoutSlashHandler(WorkbenchHandler):
    """Leads from the address of the gallery without its last slash to the gallery."""

    def get(self):
        self.redirect(_on_this_server(self.site.prefix, self.request.query), permanent=True)


class OpenFileFindHandler(FileFindHandler):
    """Scripts of the widget packages."""

    def set_default_headers(self):
        super().set_default_headers()
        self.set_header("X-Content-Type-Options", "nosniff")

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
        (rf"/api/kernels/{KERNEL_ID}", VisitorKernelHandler, ours),
        (rf"/api/kernels/{KERNEL_ID}/channels", VisitorChannelsHandler, ours),
        (rf"/pool/alive/{KERNEL_ID}", AliveHandler, ours),
        (rf"/pool/leave/{KERNEL_ID}", LeaveHandler, ours),
        (rf"/voila/api/shutdown/{KERNEL_ID}", LeaveHandler, ours),
        (r"/style/(.*)", StyleHandler, {"path": str(STATIC)}),
        (r"/scripts/(\w+\.js)", PageScriptsHandler, ours),
        (r"/voila/static/(.*)", CachedStaticHandler, {"paths": site.static_paths}),
        (r"/voila/labextensions/(.*)", OpenFileFindHandler, {"path": extensions, "no_cache_paths": []}),
        (r"/.*", NotFoundHandler, ours),
    ]
    table = [(url_path_join(site.prefix, pattern), handler, options) for pattern, handler, options in table]
    if site.prefix != "/":
        table.append((re.escape(site.prefix.rstrip("/")), WithoutSlashHandler, ours))
    return table
