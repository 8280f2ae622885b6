"""The doors of the dashboards' server over plain HTTP and websockets."""

import asyncio
import http.client
import json
import logging
import os
import re
import time
import urllib.error
import urllib.request

import pytest
from tornado.httpclient import HTTPClientError

import workbench.papers
from tests.workbench.app.serving import connect, frame, kernel_id, soon, warm_page, write_notebook
from workbench.app import serve as serve_module
from workbench.app.frames import PROTOCOL
from workbench.app.gallery import gallery_cards
from workbench.app.steps import Outline

OUTLINE = Outline(title="Echo", has_heading=True, labels=("Load",), steps=("Load",), numbers=(1,))


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


def test_unknown_pages_and_paths_outside_the_folder_are_404(server):
    for path in ("/dashboards/nothing", "/nothing", "/dashboards/../secret.txt", "/dashboards/%2e%2e/secret"):
        status, headers, page = server.get(path)
        assert status == 404, path
        assert headers["X-Request-Id"] in page


def test_other_host_names_are_refused_on_loopback(server):
    assert server.get("/", Host="attacker.example")[0] == 403


@pytest.fixture(scope="module")
def echo(server):
    """The status, the headers and the text of a page whose kernel stays; each kernel costs seconds."""
    return server.get("/dashboards/echo?n=5")


@pytest.mark.slow
def test_page_runs_the_notebook_with_its_query(echo):
    status, _, page = echo
    assert status == 200
    assert "asked: n=5" in page
    assert "Running step" not in page and '"label": "Say what was asked"' in page
    assert "query_string()" not in page, "sources are shown although nobody asked"


@pytest.mark.slow
def test_source_is_shown_only_when_asked(server, echo):
    assert "highlight" not in echo[2].split("<main")[1]
    assert "highlight" in server.get("/dashboards/echo?source=1")[2].split("<main")[1]


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
    warm_page(server, "dashboards/broken.ipynb")
    assert server.get("/dashboards/broken")[0] == 500


@pytest.mark.slow
def test_unreadable_notebook_answers_500_with_a_request_id(server):
    status, headers, page = server.get("/dashboards/torn")
    assert status >= 400
    assert headers["X-Request-Id"] in page


@pytest.mark.slow
def test_browsers_cannot_send_code(server, echo, tmp_path):
    kernel = kernel_id(echo[2])
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
def test_odd_frames_close_their_websocket_and_hold_up_nobody(server, echo, caplog):
    kernel = kernel_id(echo[2])
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


@pytest.mark.slow
def test_late_output_is_waited_for(tmp_path, start):
    hold = "from time import sleep\nget_ipython().kernel.iopub_thread.schedule(lambda: sleep(6))\nprint('came late')"
    write_notebook(tmp_path / "dashboards" / "late.ipynb", ["md:# Late", hold])
    assert "came late" in start(folder=tmp_path).get("/dashboards/late")[2]


@pytest.mark.slow
def test_other_sites_cannot_end_a_kernel(server, echo):
    kernel = kernel_id(echo[2])
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
