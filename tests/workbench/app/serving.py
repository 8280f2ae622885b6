"""A server in a thread of the test's own process, notebooks for it, and the frames that a page would send."""

import asyncio
import json
import re
import threading
import time
import urllib.error
import urllib.request

import nbformat
import tornado.httpserver
from jupyter_server.services.kernels.connection.base import serialize_msg_to_ws_v1
from tornado.websocket import websocket_connect

from workbench.app.frames import PROTOCOL
from workbench.app.serve import listen, make_application

ECHO = [
    "md:# An echo",
    "# Load the widgets\nimport os\nloaded = os.getpid()",
    "# Say what was asked\nfrom workbench.app.request import query_string\nprint('asked:', query_string())",
]
BROKEN = ["md:# Broken", "# Load\nx = 1", "# Draw the matrix\nraise ValueError('n must be below 5; got 7')"]


def write_notebook(file, cells, told=None):
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    book = nbformat.v4.new_notebook(metadata={**metadata, **({"workbench": told} if told else {})})
    for cell in cells:
        new = nbformat.v4.new_markdown_cell if cell.startswith("md:") else nbformat.v4.new_code_cell
        book.cells.append(new(cell.removeprefix("md:")))
    file.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, file)


class Running:
    """A server in a thread; ``call`` runs a coroutine there."""

    def __init__(self, folder, **options):
        self.ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._main(folder, options)), daemon=True)
        self.thread.start()
        assert self.ready.wait(30)

    async def _main(self, folder, options):
        self.loop = asyncio.get_running_loop()
        self.stopping = asyncio.Event()
        application, self.site = make_application(folder, **options)
        server = tornado.httpserver.HTTPServer(application)
        sockets = listen("127.0.0.1", 0)
        server.add_sockets(sockets)
        self.port = sockets[0].getsockname()[1]
        self.ready.set()
        await self.stopping.wait()
        server.stop()
        await self.site.pool.close()

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def get(self, path, method="GET", **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read().decode()

    def stop(self):
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.stopping.set)
        self.thread.join(30)


def soon(holds, within_s=10) -> bool:
    """Wait until ``holds()`` is true; tell whether it was in time."""
    deadline = time.monotonic() + within_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def warm_page(server, path):
    """Start a page ahead, and return it when it has come as far as it can without a visitor."""
    server.call(server.site.pool.warm_up(path))
    (page,) = server.site.pool._warm[path]
    assert soon(lambda: page.visitor._callbacks, within_s=60), "the page does not wait for its visitor"
    return page


def kernel_id(page: str) -> str:
    return json.loads(re.search(r'id="jupyter-config-data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])["kernelId"]


def frame(kind, content, channel="shell"):
    header = {"msg_id": kind, "msg_type": kind, "session": "s", "username": "u", "version": "5.3", "date": ""}
    return serialize_msg_to_ws_v1([json.dumps(p).encode() for p in (header, {}, {}, content)], channel)


async def connect(server, kernel, protocol=PROTOCOL, **options):
    address = f"ws://127.0.0.1:{server.port}/api/kernels/{kernel}/channels"
    return await websocket_connect(address, subprotocols=[protocol] if protocol else None, **options)
