"""The tests' own guard: nothing leaves this machine, from here or from a process started here."""

import socket
import subprocess
import sys

import pytest

ATTEMPTS = {
    "address": "import socket; socket.create_connection(('192.0.2.1', 80), 1)",
    "address 6": "import socket; socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))",
    "datagram": "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
    "name": "import socket; socket.getaddrinfo('example.org', 443)",
    "old name": "import socket; socket.gethostbyname('example.org')",
    "url": "import urllib.request; urllib.request.urlopen('http://example.org/')",
}


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_a_way_out_is_blocked_here(attempt):
    with pytest.raises(OSError, match="outbound network is blocked"):
        exec(attempt, {})


def test_every_way_out_is_blocked_in_a_subprocess():
    for attempt in ATTEMPTS.values():
        done = subprocess.run([sys.executable, "-c", attempt], capture_output=True, text=True, check=False)
        assert done.returncode != 0 and "outbound network is blocked" in done.stderr, attempt


def test_loopback_stays_open():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(("localhost", server.getsockname()[1]), 2) as client,
    ):
        assert client.getpeername()[0] == "127.0.0.1"
