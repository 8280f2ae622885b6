"""``workbench serve``: the gallery and the dashboards for one person or a class, offline, on one port."""

import argparse
import asyncio
import contextlib
import ipaddress
import logging
import math
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
import webbrowser
from pathlib import Path
from urllib.parse import quote

import tornado.httpserver
import tornado.netutil
import tornado.web
from jupyter_server.auth import AllowAllAuthorizer
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from traitlets.config import Config
from voila.voila_identity_provider import VoilaIdentityProvider

from workbench import folders
from workbench.app.class_size import MB, VISITORS_PER_CORE, kernel_limit_bytes, measure, need_of, places, usable_cores
from workbench.app.dashboard_site import Site
from workbench.app.handlers import routes
from workbench.app.kernel_pool import IDLE_S, KernelPool, VisitorKernelSpecs
from workbench.app.notebook_index import notebook_index
from workbench.app.visitor_kernel import LIMIT

log = logging.getLogger("workbench.serve")
PORTS_TRIED = 50
WARM_AT_MOST = 4
PINGS = {"ws_ping_interval": 30_000, "ws_ping_timeout": 90_000}  # milliseconds; three pings without an answer
# Tornado warns of this, though its own pings are not in use: jupyter_server's handlers send theirs.
logging.getLogger("tornado.general").addFilter(lambda told: "websocket_ping_timeout" not in told.getMessage())
REQUEST_BYTES = 2**20
HOST_NAME = re.compile(r"[\w-]+(\.[\w-]+)*\.?", re.ASCII)


class ServeError(RuntimeError):
    """The server cannot start; the message is one sentence for the person who asked."""


def serve(
    host="127.0.0.1",
    port=8866,
    token=None,
    open_browser=True,
    class_size=None,
    force=False,
    *,
    folder=None,
    base_path="/",
    allow_hosts=(),
    capacity=None,
    idle_s=IDLE_S,
    warm=None,
    announce=print,
):
    """Serve the gallery and the dashboards until interrupted.

    Parameters
    ----------
    host : address to listen on. Anything but loopback demands a token.
    port : port to listen on; a busy one gives way to the next free one, 0 takes any.
    token : secret that visitors need; made up when ``host`` is not loopback and none is given.
    open_browser : open the gallery in the browser of this machine.
    class_size : number of visitors at the same time; the memory and cores they need are printed before the start.
    force : start even though the machine is too small for the class.
    folder : notebooks to serve; by default those of the workbench.
    base_path : the path under which a proxy offers the server, such as ``/sparse``; the proxy must pass it on.
    allow_hosts : names under which a proxy offers the server; other names than those of this machine are refused.
    capacity : kernels at the same time; by default ``class_size``, or what fits into half of the free memory.
    idle_s : seconds after which an idle kernel is ended when its page is closed or another visitor needs its place.
    warm : names of the dashboards of which one kernel waits started; by default all up to four.
    announce : receives the lines meant for the person at the terminal.

    Raises
    ------
    ServeError
        If no port is free, the folder has no notebooks, the path or a name is none, or the machine is too small for
        the class.
    """
    folder = Path(folder or folders.notebooks()).resolve()
    if not folder.is_dir():
        raise ServeError(f"serve: there is no notebooks folder at {folder}; give one that exists.")
    if class_size is not None and not 1 <= class_size <= 500:
        raise ServeError(f"serve: class must be from 1 to 500 visitors, got {class_size}.")
    dashboards = [notebook.name for notebook in notebook_index(folder) if notebook.kind == "dashboards"]
    warm = dashboards[:WARM_AT_MOST] if warm is None else warm
    unknown = sorted(set(warm) - set(dashboards))
    if unknown:
        raise ServeError(
            f"serve: there is no dashboard {unknown[0]!r} to start ahead; there are {', '.join(dashboards)}."
        )
    prefix = _prefix(base_path)
    for name in allow_hosts:
        if not HOST_NAME.fullmatch(name):
            raise ServeError(f"serve: allow-host takes a name such as www.example.org, got {name!r}.")
    sockets = listen(host, port)
    if not is_loopback(host):
        token = token or secrets.token_urlsafe(18)
    link = f"http://{_shown_host(host)}:{sockets[0].getsockname()[1]}{prefix}"
    link += f"?token={quote(token)}" if token else ""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(
            _run(
                *make_application(
                    folder,
                    token=token,
                    local=is_loopback(host),
                    prefix=prefix,
                    hosts=allow_hosts,
                    capacity=capacity or class_size or places(),
                    idle_s=idle_s,
                    threads=max(1, usable_cores() // math.ceil(class_size / VISITORS_PER_CORE)) if class_size else None,
                ),
                sockets,
                warm,
                lambda: _announce(announce, folder, link, open_browser),
                (class_size, dashboards, force, announce) if class_size else None,
            )
        )


def make_application(
    folder: Path, *, token=None, local=True, prefix="/", hosts=(), capacity=16, idle_s=IDLE_S, threads=None
) -> tuple[tornado.web.Application, Site]:
    """Return the Tornado application with all routes, and the site behind it."""
    pool = make_pool(log, capacity=capacity, idle_s=idle_s, threads=threads)
    site = Site(folder, prefix, pool, log, hosts)
    cookies = {"samesite": "Lax"}  # not Strict: a link with a token, followed from elsewhere, must work
    identity = VoilaIdentityProvider(token=token or "", log=log, cookie_options=cookies)
    application = tornado.web.Application(
        routes(site),
        base_url=prefix,
        cookie_secret=secrets.token_bytes(32),
        xsrf_cookies=True,
        xsrf_cookie_kwargs={"path": prefix, **cookies},
        allow_remote_access=not local,
        identity_provider=identity,
        authorizer=AllowAllAuthorizer(log=log, identity_provider=identity),
        kernel_websocket_connection_class=ZMQChannelsWebsocketConnection,
        kernel_manager=pool,
        kernel_spec_manager=pool.kernel_spec_manager,
        # Widget messages are no prints that run away: to drop one is to lose a picture.
        config=Config(ZMQChannelsWebsocketConnection={"limit_rate": False}),
        log_function=_log_request,
        compress_response=bool(hosts) or not local,
        websocket_max_message_size=64 * 2**20,
        **PINGS,
    )
    return application, site


def make_pool(log: logging.Logger, *, capacity: int, idle_s: int = IDLE_S, threads: int | None = None) -> KernelPool:
    """Return an empty pool: connection files in a folder of its own, dead kernels left dead."""
    transport = "ipc" if sys.platform == "linux" else "tcp"
    return KernelPool(
        connection_dir=tempfile.mkdtemp(prefix="workbench-"),
        kernel_spec_manager=VisitorKernelSpecs(),
        capacity=capacity,
        starts_at_once=usable_cores(),
        config=Config(KernelManager={"autorestart": False, "transport": transport}),
        cull_idle_timeout=idle_s,
        cull_interval=max(1, min(15, idle_s // 2)),
        environment={
            "PYTHONPATH": _our_python_path(),
            LIMIT: str(kernel_limit_bytes(capacity)),
            **_thread_limits(threads),
        },
        threads=threads,
        log=log,
    )


def listen(host: str, port: int, command: str = "serve") -> list[socket.socket]:
    """Bind to the port or the next free one; raise ServeError in one sentence if that cannot be done."""
    if not 0 <= port < 65536:
        raise ServeError(f"{command}: port must be from 0 to 65535, got {port}.")
    for tried in [port] if port == 0 else range(port, min(port + PORTS_TRIED, 65536)):
        try:
            return tornado.netutil.bind_sockets(tried, host)
        except PermissionError:
            raise ServeError(f"{command}: port {tried} may not be used by this user; pick one above 1024.") from None
        except socket.gaierror:
            raise ServeError(f"{command}: {host!r} is not an address of this machine.") from None
        except OSError as error:
            if error.errno == 99:
                raise ServeError(f"{command}: {host!r} is not an address of this machine.") from None
    raise ServeError(f"{command}: ports {port} to {port + PORTS_TRIED - 1} are all busy; name another with --port.")


def _prefix(base_path: str) -> str:
    """Return the path with a slash at both ends."""
    parts = [part for part in base_path.split("/") if part]
    if not all(re.fullmatch(r"[\w.~-]+", part, re.ASCII) and set(part) != {"."} for part in parts):
        raise ServeError(f"serve: base-path takes a path of letters, digits, '-', '_', '.', '~', got {base_path!r}.")
    return "/".join(["", *parts, ""])


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _run(application, site: Site, sockets, warm: list[str], started, for_class):
    try:
        if for_class:
            await _check_class(site, warm, *for_class)
        limits = {"max_buffer_size": 256 * 2**20, "max_body_size": REQUEST_BYTES}
        server = tornado.httpserver.HTTPServer(application, xheaders=bool(site.hosts), **limits)
        server.add_sockets(sockets)
        stop = asyncio.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(name, stop.set)
        started()
        warming = asyncio.create_task(_warm_up(site, warm))
        await stop.wait()
        warming.cancel()
        server.stop()
    finally:
        await site.pool.close()


async def _check_class(site: Site, warm: list[str], visitors: int, dashboards: list[str], force: bool, announce):
    need = need_of(visitors, *await measure(site, dashboards), warm=len(warm))
    for sentence in need.sentences():
        announce(sentence)
    if not need.fits and not force:
        lacking = (
            f"{need.bytes // MB} MB of memory, {need.free_bytes // MB} MB are free"
            if need.bytes > need.free_bytes
            else f"{need.cores} cores, there are {need.free_cores}"
        )
        raise ServeError(
            f"serve: a class of {visitors} needs {lacking}; use a larger machine, or --force to start anyway."
        )


def _announce(announce, folder: Path, link: str, open_browser: bool):
    announce(f"Serving {folder} at {link}")
    if open_browser:
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(link, new=2)


def _thread_limits(threads: int | None) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return dict.fromkeys(names, str(threads)) if threads else {}


async def _warm_up(site: Site, names: list[str]):
    for name in names:
        try:
            await site.pool.warm_up(f"dashboards/{name}.ipynb")
        except Exception:
            log.exception("dashboard %s could not be started ahead", name)


def _log_request(handler):
    status = handler.get_status()
    level = logging.ERROR if status >= 500 and status != 503 else logging.WARNING if status >= 400 else logging.DEBUG
    duration_ms = 1000 * handler.request.request_time()
    log.log(level, "%d %s %s %.0f ms", status, handler.request.method, handler.request.path, duration_ms)


def _our_python_path() -> str:
    """Make kernels import the same workbench as this server, wherever it lies."""
    known = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(Path(__file__).resolve().parents[2]), *([known] if known else [])])


def _shown_host(host: str) -> str:
    if host in ("0.0.0.0", "::", ""):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def main(arguments=None):
    """Start the server from ``python -m workbench.app.serve``; the command line proper is ``workbench serve``."""
    parser = argparse.ArgumentParser(prog="python -m workbench.app.serve", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8866)
    parser.add_argument("--token")
    parser.add_argument("--folder")
    parser.add_argument("--base-path", default="/")
    parser.add_argument("--allow-host", action="append", dest="allow_hosts", default=[])
    parser.add_argument("--capacity", type=int)
    parser.add_argument("--idle-s", type=int, default=IDLE_S)
    parser.add_argument("--warm", action="append")
    parser.add_argument("--class", type=int, dest="class_size")
    parser.add_argument("--force", action="store_true")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")

    def announce(line):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    try:
        serve(open_browser=False, announce=announce, **vars(chosen))
    except ServeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
