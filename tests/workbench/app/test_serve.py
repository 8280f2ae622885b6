"""How the server starts: ports, options, names, pings."""

import asyncio
import re

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from tests.workbench.app.serving import frame, kernel_id
from workbench.app import lab
from workbench.app import serve as serve_module
from workbench.app.frames import PROTOCOL
from workbench.app.serve import ServeError, is_loopback, listen, serve


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


def test_loopback_is_told_from_the_rest():
    assert is_loopback("localhost") and is_loopback("127.0.0.1") and is_loopback("::1")
    assert not is_loopback("0.0.0.0") and not is_loopback("192.0.2.1") and not is_loopback("example.org")


def test_pings_may_stay_unanswered_three_times_in_both_servers(folder):
    ours = serve_module.PINGS
    assert ours["ws_ping_timeout"] == 3 * ours["ws_ping_interval"]
    assert lab.configuration(folder, 1, "t", "/lab", True)["ServerApp"]["tornado_settings"] == ours


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
