"""Places, turns, warm kernels, idle and dead ones, and the memory of each."""

import asyncio
import http.client
import json
import time

import pytest

from tests.workbench.app.serving import connect, kernel_id, soon, warm_page, write_notebook
from workbench.app import kernel_pool


@pytest.mark.slow
def test_warm_kernel_gets_the_query_of_its_visitor(start):
    server = start()
    warm = warm_page(server, "dashboards/echo.ipynb")
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
    assert soon(lambda: server.site.pool._idle_s().get(kernel, 0) > 4, within_s=30)
    assert server.get("/dashboards/echo")[0] == 200
    assert kernel not in server.site.pool
    server.loop.call_soon_threadsafe(socket.close)


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
