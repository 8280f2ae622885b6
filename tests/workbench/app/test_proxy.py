"""The server behind a real nginx that offers it under a path and a name of its own."""

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from jupyter_server.services.kernels.connection.base import serialize_msg_to_ws_v1
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from tests.browser.chromium import start_process
from workbench.app.frames import PROTOCOL

NAME = "www.example.org"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
CONFIGURATION = """
daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location /sparse {{
      proxy_pass http://127.0.0.1:{behind};
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto https;
      proxy_read_timeout 1h;
    }}
  }}
}}
"""


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    if NGINX is None:
        pytest.skip("nginx is not installed")
    folder = tmp_path_factory.mktemp("nginx")
    options = ["--base-path", "/sparse", "--allow-host", NAME, "--token", "open-sesame", "--warm", "sparsity_patterns"]
    server = start_process([sys.executable, "-m", "workbench.app.serve", "--port", "0", *options], "Serving")
    behind = server.url.split(":")[2].split("/")[0]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "nginx.conf").write_text(CONFIGURATION.format(folder=folder, port=port, behind=behind))
    nginx = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")])
    try:
        for _ in range(100):
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield port
    finally:
        nginx.terminate()
        nginx.wait(10)
        server.stop()


def get(port, path, **headers):
    headers = {"Host": NAME, **{name.replace("_", "-"): value for name, value in headers.items()}}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=90) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


@pytest.mark.slow
def test_page_with_its_websocket_works_through_nginx(proxy):
    assert get(proxy, "/sparse/")[0] == 403
    told = {"Authorization": "token open-sesame", "Origin": f"https://{NAME}"}
    status, headers, page = get(proxy, "/sparse/", **told)
    assert status == 200 and 'href="/sparse/dashboards/sparsity_patterns"' in page
    assert all("Path=/sparse/" in c and "Secure" in c for c in headers.get_all("Set-Cookie", []) if "token" in c)
    status, _, page = get(proxy, "/sparse/dashboards/sparsity_patterns", **told)
    assert status == 200
    kernel = json.loads(page.split('id="jupyter-config-data"')[1].split(">", 1)[1].split("</script>")[0])["kernelId"]
    for address in ("style/page.js", "voila/static/voila.js"):
        assert get(proxy, f"/sparse/{address}")[0] == 200

    async def ask():
        request = HTTPRequest(
            f"ws://127.0.0.1:{proxy}/sparse/api/kernels/{kernel}/channels", headers={"Host": NAME, **told}
        )
        channels = await websocket_connect(request, subprotocols=[PROTOCOL])
        header = {"msg_id": "1", "msg_type": "kernel_info_request", "session": "s", "username": "u", "version": "5.3"}
        parts = [json.dumps(part).encode() for part in ({**header, "date": ""}, {}, {}, {})]
        await channels.write_message(serialize_msg_to_ws_v1(parts, "shell"), binary=True)
        while b"kernel_info_reply" not in await asyncio.wait_for(channels.read_message(), 30):
            pass
        channels.close()

    asyncio.run(ask())
