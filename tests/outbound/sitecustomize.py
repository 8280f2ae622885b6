"""Blocks outbound network in this process. Python loads it at start-up in every process that the tests begin."""

import ipaddress
import socket
import sys

_NAMES = {"localhost", "localhost.localdomain", "ip6-localhost", socket.gethostname()}


def _is_local(host):
    if host in (None, "", b"") or host in _NAMES:
        return True
    host = host.decode() if isinstance(host, bytes) else str(host)
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host in _NAMES
    return address.is_loopback or address.is_unspecified


def _is_numeric(host):
    try:
        ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host)
    except ValueError:
        return False
    return True


def _refuse(what):
    raise OSError(f"tests: outbound network is blocked; this process tried to {what}")


def _is_outbound(sock, address):
    return sock.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple) and not _is_local(address[0])


def _guard(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and _is_outbound(args[0], args[1]):
        _refuse(f"reach {args[1][0]}:{args[1][1]}")
    looks_up = event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
    if looks_up and not _is_local(args[0]) and not _is_numeric(args[0]):
        _refuse(f"look up {args[0]!r}")


sys.addaudithook(_guard)
