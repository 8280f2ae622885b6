"""The dashboards' server over plain HTTP, in a thread of the test's own process."""

import asyncio
import http.client
import json
import logging
import os
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from subprocess import PIPE, Popen
from xml.etree import ElementTree

import nbformat
import pytest
import tornado.httpserver
from jupyter_server.services.kernels.connection.base import serialize_msg_to_ws_v1
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

import workbench.papers
from workbench import folders
from workbench.app import class_size, kernel_pool, lab, thumbnails
from workbench.app import serve as serve_module
from workbench.app.class_size import MB, need_of, private_bytes
from workbench.app.frames import PROTOCOL
from workbench.app.gallery import gallery_cards
from workbench.app.notebook_index import find, notebook_index
from workbench.app.serve import ServeError, is_loopback, listen, make_application, serve
from workbench.app.steps import Outline, step_labels

ECHO = [
    "md:# An echo",
    "# Load the widgets\nimport os\nloaded = os.getpid()",
    "# Say what was asked\nfrom workbench.app.request import query_string\nprint('asked:', query_string())",
]
OUTLINE = Outline(title="Echo", has_heading=True, labels=("Load",), steps=("Load",), numbers=(1,))
BROKEN = ["md:# Broken", "# Load\nx = 1", "# Draw the matrix\nraise ValueError('n must be below 5; got 7')"]


def write_notebook(file, cells, told=None):
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    book = nbformat.v4.new_notebook(metadata={**metadata, **({"workbench": told} if told else {})})
    for cell in cells:
        new = nbformat.v4.new_markdown_cell if cell.startswith("md:") else nbformat.v4.new_code_cell
        book.cells.append(new(cell.removeprefix("md:")))
    file.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    told = {"title": "Echo", "description": "Says what was asked.", "papers": ["smash"]}
    write_notebook(folder / "dashboards" / "echo.ipynb", ECHO, told)
    write_notebook(folder / "dashboards" / "broken.ipynb", BROKEN)
    (folder / "dashboards" / "torn.ipynb").write_text("{")
    (folder / "secret.txt").write_text("secret")
    return folder


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


@pytest.fixture
def start(folder):
    started = []

    def run(**options):
        started.append(Running(options.pop("folder", folder), **options))
        return started[-1]

    yield run
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def server(folder):
    running = Running(folder)
    yield running
    running.stop()


def soon(holds, within_s=10) -> bool:
    """Wait until ``holds()`` is true; tell whether it was in time."""
    deadline = time.monotonic() + within_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def kernel_id(page: str) -> str:
    return json.loads(re.search(r'id="jupyter-config-data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])["kernelId"]


def test_gallery_has_a_card_for_every_notebook(server):
    status, headers, page = server.get("/")
    assert status == 200
    assert "Says what was asked." in page
    assert 'href="/dashboards/echo"' in page
    assert "This notebook cannot be read" in page
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    loaded = re.findall(r'(?:src|<link[^>]*href)="([^"]+)"', page)
    assert loaded and all(address.startswith("/") for address in loaded)


def test_gallery_survives_a_paper_that_does_not_import(folder, tmp_path, monkeypatch):
    (tmp_path / "shattered").mkdir()
    (tmp_path / "shattered" / "__init__.py").touch()
    (tmp_path / "shattered" / "entry.py").write_text("raise RuntimeError('no such matrix')")
    monkeypatch.setattr(workbench.papers, "__path__", [*workbench.papers.__path__, str(tmp_path)])
    cards = {card.key: card for card in gallery_cards(folder)}
    assert "no such matrix" in cards["shattered"].problem
    assert cards["echo"].problem == ""


def test_every_card_has_a_well_formed_picture(server):
    for kind, name in (("dashboards", "echo"), ("papers", "unknown")):
        status, headers, text = server.get(f"/thumbnail/{kind}/{name}")
        assert (status, headers["Content-Type"]) == (200, "image/svg+xml")
        assert ElementTree.fromstring(text).tag.endswith("svg")


def test_thumbnail_draws_the_rows_of_a_record():
    time = {"quantity": "time", "unit": "ms", "kind": "modelled", "matrix": "W0"}
    rows = [{**time, "value": v, "version": f"V{v}"} for v in (1, 2, 4)]
    rows += [{**time, "quantity": "tokens", "unit": "", "value": v, "version": f"V{v}"} for v in (1, 2, 3, 4)]
    drawn = thumbnails._bars(rows, {})
    assert [float(bar) for bar in re.findall(r'<rect[^>]*width="([\d.]+)"', drawn)] == [33.8, 67.5, 135.0]
    assert "time [ms]" in drawn and "modelled" in drawn and "V4" in drawn
    some = [row for row in rows if row["quantity"] == "time" and row["value"] != 2]
    drawn = thumbnails._bars(some, {"version": ["V4", "V1"]})
    assert re.findall(">(V.)<", drawn) == ["V4", "V1"]
    assert thumbnails._bars([], {}) == thumbnails._bars(rows[:1], {}) == ""


def test_the_card_of_smash_shows_the_time_of_its_three_versions():
    drawn = thumbnails.thumbnail(folders.notebooks(), "papers", "smash").content.decode()
    words = re.findall(">([^<]+)</text>", drawn)
    assert words[:2] == ["time [ms]", "modelled"] and words[2::2] == ["V1", "V2", "V3"]
    masks = thumbnails.thumbnail(folders.notebooks(), "dashboards", "attention_masks")
    assert masks.mime == "image/png" and masks.content.startswith(b"\x89PNG")


def test_every_papers_card_shows_the_rows_that_it_names():
    for notebook in notebook_index(folders.notebooks()):
        if notebook.kind == "papers":
            assert notebook.thumbnail.startswith("record:"), notebook.name
            drawn = thumbnails.thumbnail(folders.notebooks(), "papers", notebook.name).content.decode()
            named = notebook.thumbnail.count("|") + 1
            assert drawn.count("<rect") - 1 == (named if named > 1 else 3), notebook.name


def test_unknown_pages_and_paths_outside_the_folder_are_404(server):
    for path in ("/dashboards/nothing", "/nothing", "/dashboards/../secret.txt", "/dashboards/%2e%2e/secret"):
        status, headers, page = server.get(path)
        assert status == 404, path
        assert headers["X-Request-Id"] in page


def test_other_host_names_are_refused_on_loopback(server):
    assert server.get("/", Host="attacker.example")[0] == 403


@pytest.mark.slow
def test_page_runs_the_notebook_with_its_query(server):
    status, _, page = server.get("/dashboards/echo?n=5")
    assert status == 200
    assert "asked: n=5" in page
    assert "Running step" not in page and '"label": "Say what was asked"' in page
    assert "query_string()" not in page, "sources are shown although nobody asked"


@pytest.mark.slow
def test_source_is_shown_only_when_asked(server):
    assert "highlight" not in server.get("/dashboards/echo")[2].split("<main")[1]
    assert "highlight" in server.get("/dashboards/echo?source=1")[2].split("<main")[1]


@pytest.mark.slow
def test_warm_kernel_gets_the_query_of_its_visitor(start):
    server = start()
    server.call(server.site.pool.warm_up("dashboards/echo.ipynb"))
    (warm,) = server.site.pool._warm["dashboards/echo.ipynb"]
    time.sleep(3)
    assert not warm.visited
    _, _, page = server.get("/dashboards/echo?n=17&theme=dark")
    assert kernel_id(page) == warm.kernel_id
    assert "asked: n=17&amp;theme=dark" in page


@pytest.mark.slow
def test_server_stops_while_a_warm_page_is_in_the_middle_of_a_step(tmp_path, start):
    write_notebook(tmp_path / "dashboards" / "long.ipynb", ["import time", "# Wait\ntime.sleep(60)"])
    server = start(folder=tmp_path)
    server.call(server.site.pool.warm_up("dashboards/long.ipynb"))
    time.sleep(2)
    begin = time.monotonic()
    server.stop()
    assert not server.thread.is_alive()
    assert time.monotonic() - begin < 15


@pytest.mark.slow
def test_failing_step_is_named_with_the_request_id_of_the_log(start, caplog):
    server = start()
    with caplog.at_level(logging.ERROR, "workbench.serve"):
        _, headers, page = server.get("/dashboards/broken")
    shown = page.split("data-failure")[1]
    assert "Step 2 of 2 failed: Draw the matrix" in shown
    assert "n must be below 5; got 7" in shown
    assert "Traceback" not in page
    assert headers["X-Request-Id"] in shown
    logged = [r.getMessage() for r in caplog.records if headers["X-Request-Id"] in r.getMessage()]
    assert logged and "Draw the matrix" in logged[0] and "Traceback" in logged[0]
    assert json.loads(server.get(f"/pool/alive/{kernel_id(page)}")[2])["alive"], "widgets of the steps before went dead"


@pytest.mark.slow
def test_failing_step_answers_500_while_the_status_is_still_open(start):
    server = start()
    server.call(server.site.pool.warm_up("dashboards/broken.ipynb"))
    time.sleep(3)
    assert server.get("/dashboards/broken")[0] == 500


@pytest.mark.slow
def test_unreadable_notebook_answers_500_with_a_request_id(server):
    status, headers, page = server.get("/dashboards/torn")
    assert status >= 400
    assert headers["X-Request-Id"] in page


@pytest.mark.slow
def test_full_room_answers_503_and_says_when_to_retry(start):
    server = start(capacity=1)
    first = kernel_id(server.get("/dashboards/echo")[2])
    status, headers, page = server.get("/dashboards/echo")
    assert status == 503
    assert 5 <= int(headers["Retry-After"]) <= kernel_pool.IDLE_S
    assert f'Retry in <b data-countdown="{headers["Retry-After"]}">' in page
    assert server.get(f"/pool/leave/{first}", method="POST")[0] == 204
    assert server.get("/dashboards/echo")[0] == 200


@pytest.mark.slow
def test_dead_kernels_make_pool_and_are_reported(start):
    server = start(capacity=1)
    first = kernel_id(server.get("/dashboards/echo")[2])
    assert json.loads(server.get(f"/pool/alive/{first}")[2]) == {"alive": True}
    server.call(server.site.pool.get_kernel(first).provisioner.kill())
    assert soon(lambda: json.loads(server.get(f"/pool/alive/{first}")[2]) == {"alive": False})
    assert server.get("/dashboards/echo")[0] == 200


@pytest.mark.slow
def test_idle_kernels_are_ended(start):
    server = start(idle_s=2)
    first = kernel_id(server.get("/dashboards/echo")[2])
    assert soon(lambda: first not in server.site.pool, within_s=20)


def test_idle_limit_is_300_s_for_closed_pages(start):
    pool = start().site.pool
    assert (pool.cull_idle_timeout, pool.cull_connected) == (300, False)


def frame(kind, content, channel="shell"):
    header = {"msg_id": kind, "msg_type": kind, "session": "s", "username": "u", "version": "5.3", "date": ""}
    return serialize_msg_to_ws_v1([json.dumps(p).encode() for p in (header, {}, {}, content)], channel)


async def connect(server, kernel, protocol=PROTOCOL, **options):
    address = f"ws://127.0.0.1:{server.port}/api/kernels/{kernel}/channels"
    return await websocket_connect(address, subprotocols=[protocol] if protocol else None, **options)


@pytest.mark.slow
def test_browsers_cannot_send_code(start, tmp_path):
    server = start()
    kernel = kernel_id(server.get("/dashboards/echo")[2])
    mark = tmp_path / "written"

    async def try_it():
        socket = await connect(server, kernel)
        code = {"code": f"open({str(mark)!r}, 'w')", "silent": False}
        await socket.write_message(frame("execute_request", code), binary=True)
        await socket.write_message(frame("kernel_info_request", {}), binary=True)
        while b"kernel_info_reply" not in await asyncio.wait_for(socket.read_message(), 20):
            pass
        socket.close()

    server.call(try_it())
    assert not mark.exists()


@pytest.mark.slow
def test_odd_frames_close_their_websocket_and_hold_up_nobody(start, caplog):
    server = start()
    kernel = kernel_id(server.get("/dashboards/echo")[2])
    odd = {
        (2**40).to_bytes(8, "little") + bytes(8): 1002,
        os.urandom(500): 1002,
        b"": 1002,
        frame("comm_msg", {}, "iopub"): 1002,
        json.dumps({"channel": "shell", "header": {"msg_type": "comm_info_request"}}): 1003,
    }

    async def send(message):
        socket = await connect(server, kernel)
        await socket.write_message(message, binary=isinstance(message, bytes))
        while await asyncio.wait_for(socket.read_message(), 10) is not None:
            pass
        return socket.close_code

    for message, code in odd.items():
        closed = asyncio.run_coroutine_threadsafe(send(message), server.loop)
        begin = time.monotonic()
        assert server.get("/notebooks.json")[0] == 200
        assert time.monotonic() - begin < 1
        assert closed.result(20) == code, message[:20]
    assert json.loads(server.get(f"/pool/alive/{kernel}")[2])["alive"]
    assert sum("closed the websocket" in record.getMessage() for record in caplog.records) == len(odd)


@pytest.mark.slow
def test_websocket_demands_its_protocol_and_a_kernel_without_a_traceback(start, caplog):
    server = start()
    kernel = kernel_id(server.get("/dashboards/echo")[2])
    for wanted, protocol in ((kernel, None), (kernel, "v0"), ("a-b-c-d-e", PROTOCOL)):
        with pytest.raises(HTTPClientError, match=r"400|404"):
            server.call(connect(server, wanted, protocol))
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.slow
def test_quiet_websocket_stays_open_and_one_that_answers_no_ping_is_closed(start, monkeypatch):
    monkeypatch.setattr(serve_module, "PINGS", {"ws_ping_interval": 200, "ws_ping_timeout": 600})
    server = start()
    kernel = kernel_id(server.get("/dashboards/echo")[2])

    connected = server.site.pool._kernel_connections

    async def fall_silent(socket):
        socket.protocol._handle_message = lambda opcode, data: None

    socket = server.call(connect(server, kernel))
    time.sleep(2.5)
    assert connected[kernel] == 1, "a quiet page lost its websocket"
    server.call(fall_silent(socket))
    assert soon(lambda: connected[kernel] == 0)


def test_pings_may_stay_unanswered_three_times_in_both_servers(folder):
    ours = serve_module.PINGS
    assert ours["ws_ping_timeout"] == 3 * ours["ws_ping_interval"]
    assert lab.configuration(folder, 1, "t", "/lab", True)["ServerApp"]["tornado_settings"] == ours


@pytest.mark.slow
def test_late_output_is_waited_for(tmp_path, start):
    hold = "from time import sleep\nget_ipython().kernel.iopub_thread.schedule(lambda: sleep(6))\nprint('came late')"
    write_notebook(tmp_path / "dashboards" / "late.ipynb", ["md:# Late", hold])
    assert "came late" in start(folder=tmp_path).get("/dashboards/late")[2]


@pytest.mark.slow
def test_loading_page_comes_before_the_kernel_and_says_who_is_ahead(start, monkeypatch):
    server = start()

    async def never(*_, **__):
        await asyncio.sleep(60)

    monkeypatch.setattr(server.site.pool, "start_kernel", never)
    opened = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=20) for _ in range(4)]
    begin = time.monotonic()
    for connection in opened:
        connection.request("GET", "/dashboards/echo")
    heads = [connection.getresponse().read1(65536).decode() for connection in opened]
    assert time.monotonic() - begin < 5
    assert all("Say what was asked" in head and 'id="loading-step"' in head for head in heads)
    assert server.site.pool.visitors == 4
    line = server.site.pool.line
    told = list(range(1, 5 - line.at_once))
    assert soon(lambda: [page.ahead for page, _ in line.waiting] == told)
    for connection in opened:
        connection.close()
    assert soon(lambda: server.site.pool.visitors == 0), "places of visitors who went away are not free"


@pytest.mark.slow
def test_connected_page_keeps_its_idle_kernel_until_its_place_is_needed(start):
    server = start(idle_s=2, capacity=1)
    kernel = kernel_id(server.get("/dashboards/echo")[2])
    socket = server.call(connect(server, kernel))
    time.sleep(6)
    assert kernel in server.site.pool
    assert server.get("/dashboards/echo")[0] == 200
    assert kernel not in server.site.pool
    socket.close()


@pytest.mark.slow
def test_place_is_free_as_soon_as_its_visitor_leaves(start, monkeypatch):
    server = start(capacity=1)
    kernel = kernel_id(server.get("/dashboards/echo")[2])
    end = server.site.pool.shutdown_kernel

    async def slowly(*arguments, **options):
        await asyncio.sleep(3)
        await end(*arguments, **options)

    monkeypatch.setattr(server.site.pool, "shutdown_kernel", slowly)
    leaving = asyncio.run_coroutine_threadsafe(server.site.pool.leave(kernel), server.loop)
    time.sleep(0.2)
    assert server.get("/dashboards/echo")[0] == 200
    leaving.result(20)


@pytest.mark.slow
def test_kernel_that_takes_too_much_memory_fails_in_a_sentence(tmp_path, start, monkeypatch):
    take = "import numpy\nprint(numpy.ones((1, 2**20)).sum())\nnumpy.ones((2**10, 2**20))"
    write_notebook(tmp_path / "dashboards" / "greedy.ipynb", ["md:# Greedy", "# Take 8 GB\n" + take])
    page = start(folder=tmp_path).get("/dashboards/greedy")[2]
    assert "Step 1 of 1 failed: Take 8 GB" in page
    assert "Unable to allocate 8.00 GiB" in page


@pytest.mark.slow
def test_other_sites_cannot_end_a_kernel(start):
    server = start()
    kernel = kernel_id(server.get("/dashboards/echo")[2])
    refused = server.get(f"/pool/leave/{kernel}", method="POST", Origin="http://attacker.example")
    assert refused[0] in (403, 404)
    assert kernel in server.site.pool


def test_token_guards_everything_but_style_sheets(start):
    server = start(token="open-sesame", local=False)
    status, _, page = server.get("/")
    assert status == 403 and "needs a token" in page and "echo" not in page
    for path in ("/dashboards/echo", "/notebooks.json", "/thumbnail/dashboards/echo", "/pool/alive/a-b-c-d-e"):
        assert server.get(path)[0] == 403, path
    assert server.get("/?token=wrong")[0] == 403
    assert server.get("/style/workbench.css")[0] == 200
    assert server.get("/", Authorization="token open-sesame")[0] == 200


def test_token_in_the_address_becomes_a_cookie_and_leaves_the_address(start):
    server = start(token="open-sesame", local=False)

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    with pytest.raises(urllib.error.HTTPError) as moved:
        urllib.request.build_opener(Stay).open(f"http://127.0.0.1:{server.port}/?token=open-sesame&find=x", timeout=30)
    assert (moved.value.code, moved.value.headers["Location"]) == (302, "/?find=x")
    cookies = "; ".join(cookie.split(";")[0] for cookie in moved.value.headers.get_all("Set-Cookie"))
    assert server.get("/", Cookie=cookies)[0] == 200


def test_redirects_stay_on_this_server(start):
    server = start(token="open-sesame", local=False)
    for path in ("//evil.example/?token=x", "/%5cevil.example/?token=x", "/\\\\evil.example/?token=open-sesame"):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.putrequest("GET", path)
        connection.endheaders()
        location = connection.getresponse().getheader("Location", "/")
        assert re.match(r"/(?![/\\])", location + " "), (path, location)


def test_foreign_pages_start_no_kernels(server):
    before = server.site.pool.visitors
    for site in ("cross-site", "same-site"):
        status, _, page = server.get("/dashboards/echo?n=5", Sec_Fetch_Site=site)
        assert status == 403
        assert 'href="/dashboards/echo?n=5"' in page
    assert server.site.pool.visitors == before
    assert server.get("/", Sec_Fetch_Site="cross-site")[0] == 200


def test_pages_may_reach_this_server_only(server):
    policy = dict(part.partition(" ")[::2] for part in server.get("/")[1]["Content-Security-Policy"].split("; "))
    assert policy["connect-src"] == "'self'"
    assert policy["default-src"] == "'self'"


def test_cookies_are_not_sent_with_the_requests_of_other_sites(start):
    server = start(token="open-sesame", local=False)
    cookies = server.get("/", Authorization="token open-sesame")[1].get_all("Set-Cookie", [])
    cookies += server.get("/?token=open-sesame")[1].get_all("Set-Cookie", [])
    assert cookies and all("SameSite=Lax" in cookie for cookie in cookies), cookies


def test_files_are_not_taken_for_something_else(server):
    script = re.search(r'src="(/scripts/[^"]+)"', server.site.render("head.html", outline=OUTLINE, site=server.site))[1]
    extension = f"/voila/labextensions/{server.site.entries[0]}"
    for path in ("/", "/style/page.js", "/voila/static/voila.js", extension, script):
        status, headers, _ = server.get(path)
        assert (status, headers["X-Content-Type-Options"]) == (200, "nosniff"), path


def test_head_answers_without_a_body_or_a_kernel(server):
    before = server.site.pool.visitors
    for path in ("/", "/notebooks.json", "/thumbnail/dashboards/echo", "/dashboards/echo", "/style/page.js"):
        status, _, body = server.get(path, method="HEAD")
        assert (status, body) == (200, ""), path
    assert server.get("/dashboards/nothing", method="HEAD")[0] == 404
    assert server.site.pool.visitors == before


def test_addresses_with_a_last_slash_lead_to_the_page(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", "/dashboards/echo/?n=3")
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("Location")) == (301, "/dashboards/echo?n=3")


@pytest.mark.slow
def test_server_behind_a_proxy_answers_to_its_name_under_its_path(start):
    server = start(prefix="/sparse/", hosts=["www.example.org"])
    outside = {"Host": "www.example.org", "Origin": "https://www.example.org"}
    for path in ("/sparse/", "/sparse"):
        status, _, page = server.get(path, **outside)
        assert status == 200 and 'href="/sparse/dashboards/echo"' in page
    assert server.get("/", **outside)[0] == 404
    status, _, page = server.get("/sparse/", Host="other.example.org")
    assert status == 403 and "--allow-host" in page
    kernel = kernel_id(server.get("/sparse/dashboards/echo", **outside)[2])

    async def ask(origin):
        request = HTTPRequest(
            f"ws://127.0.0.1:{server.port}/sparse/api/kernels/{kernel}/channels",
            headers={"Host": "127.0.0.1:8866", "Origin": origin},
        )
        socket = await websocket_connect(request, subprotocols=[PROTOCOL])
        await socket.write_message(frame("kernel_info_request", {}), binary=True)
        while b"kernel_info_reply" not in await asyncio.wait_for(socket.read_message(), 20):
            pass

    server.call(ask("https://www.example.org"))
    with pytest.raises(HTTPClientError, match="403"):
        server.call(ask("https://other.example.org"))


def test_busy_port_gives_way_to_the_next():
    (taken,) = listen("127.0.0.1", 0)
    port = taken.getsockname()[1]
    (other,) = listen("127.0.0.1", port)
    assert port < other.getsockname()[1] <= port + 50
    taken.close()
    other.close()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"port": 70000}, "port must be from 0 to 65535"),
        ({"host": "203.0.113.7", "port": 0}, "not an address of this machine"),
        ({"folder": "/nowhere"}, "there is no notebooks folder"),
        ({"class_size": 0}, "class must be from 1 to 500"),
        ({"warm": ["tpyo"]}, "no dashboard 'tpyo'"),
        ({"base_path": "/a b"}, "base-path takes a path"),
        ({"base_path": "/../x"}, "base-path takes a path"),
        ({"allow_hosts": ["https://www.example.org"]}, "allow-host takes a name"),
    ],
)
def test_wrong_options_get_one_sentence(folder, options, told):
    with pytest.raises(ServeError, match=re.escape(told)):
        serve(**{"folder": folder, "open_browser": False, **options})


@pytest.mark.slow
def test_class_is_refused_with_numbers_when_memory_is_short(tmp_path, monkeypatch):
    write_notebook(tmp_path / "dashboards" / "echo.ipynb", ECHO)
    monkeypatch.setattr(class_size, "free_memory_bytes", lambda: 500 * MB)
    lines = []
    with pytest.raises(ServeError, match=r"a class of 40 needs \d+ MB of memory, 500 MB are free"):
        serve(port=0, folder=tmp_path, open_browser=False, class_size=40, announce=lines.append)
    assert "measured on echo" in lines[0]
    assert 20 < float(re.search(r"holds (\d+) MB", lines[0])[1]) < 300


def test_class_needs_grow_with_visitors(monkeypatch):
    monkeypatch.setattr(class_size, "free_memory_bytes", lambda: 8000 * MB)
    monkeypatch.setattr(class_size, "usable_cores", lambda: 4)
    need = need_of(20, 100 * MB, "echo", True, warm=2)
    assert (need.bytes, need.cores, need.fits) == (22 * 100 * MB + class_size.SERVER_BYTES, 4, True)
    assert not need_of(21, 100 * MB, "echo", True, warm=2).fits
    assert not need_of(20, 400 * MB, "echo", True, warm=2).fits


def test_private_memory_is_what_a_process_and_its_children_alone_hold():
    held = "import os, sys; block = bytearray(os.urandom(64 << 20)); sys.stdout.write('+'); sys.stdout.flush()"
    child = f"{held}; sys.stdin.read()"
    with Popen([sys.executable, "-c", child], stdin=PIPE, stdout=PIPE) as process:
        assert process.stdout.read(1) == b"+"
        alone = private_bytes(process.pid)
        process.stdin.close()
    assert 64 * MB < alone < 100 * MB
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with Popen([sys.executable, "-c", parent], stdin=PIPE, stdout=PIPE) as process:
        assert process.stdout.read(1) == b"+"
        both = private_bytes(process.pid)
        process.stdin.close()
    assert alone < both < alone + 40 * MB
    assert private_bytes(process.pid) == 0


def test_steps_are_named_by_metadata_comment_or_heading():
    cells = [
        nbformat.v4.new_markdown_cell("# Title\n\n## Loading"),
        nbformat.v4.new_code_cell("import os"),
        nbformat.v4.new_code_cell("# Draw the matrix\nx = 1"),
        nbformat.v4.new_code_cell("y = 1", metadata={"workbench": {"step": "Count"}}),
        nbformat.v4.new_code_cell(""),
        nbformat.v4.new_code_cell("# " + "long " * 30),
    ]
    labels = step_labels(cells)
    assert labels[:5] == [None, "Loading", "Draw the matrix", "Count", None]
    assert len(labels[5]) == 60 and labels[5].endswith("\u2026")


def test_the_index_reads_titles_and_survives_torn_files(folder):
    found = {notebook.name: notebook for notebook in notebook_index(folder)}
    assert found["echo"].title == "Echo"
    assert found["broken"].title == "Broken"
    assert "cannot be read" in found["torn"].description
    assert find(folder, "dashboards", "../secret") is None


def test_loopback_is_told_from_the_rest():
    assert is_loopback("localhost") and is_loopback("127.0.0.1") and is_loopback("::1")
    assert not is_loopback("0.0.0.0") and not is_loopback("192.0.2.1") and not is_loopback("example.org")
