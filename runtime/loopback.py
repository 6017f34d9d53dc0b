"""Ports of this machine: which are free, and whether something answers there. Only 127.0.0.1 is used."""

from __future__ import annotations

import functools
import http.client
import os
import random
import socket
import tempfile
from pathlib import Path

from app.config import proxies

HOST = "127.0.0.1"
# Below the range from which the kernel takes ports for outgoing connections, so that a port stays free
# while the program that owns it is being restarted.
_FIRST, _LAST = 15000, 31999
_PROBE_SECONDS = 1.0
_reserved: set[int] = set()


def is_free(port: int) -> bool:
    """Whether a program could listen on this port now, on loopback and on all addresses."""
    for address in ("", HOST):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True


def free_ports(count: int) -> list[int]:
    """Ports that are free now, and that nobody else on this machine gets from here while this process lives."""
    chooser = random.SystemRandom()
    found: list[int] = []
    while len(found) < count:
        port = chooser.randint(_FIRST, _LAST)
        if _reserve(port) and is_free(port):
            found.append(port)
    return found


def _reserve(port: int) -> bool:
    """Locks the port's byte in a file that all processes share; the kernel unlocks it when this one ends."""
    if port in _reserved:
        return False
    descriptor = _shared_file()
    os.lseek(descriptor, port, os.SEEK_SET)
    try:
        os.lockf(descriptor, os.F_TLOCK, 1)
    except BlockingIOError:
        return False
    _reserved.add(port)
    return True


@functools.cache
def _shared_file() -> int:
    path = Path(tempfile.gettempdir()) / f"refund-agent-ports-{os.getuid()}.lock"
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def past_proxies() -> dict[str, str]:
    """Environment that keeps a machine's proxies out of calls to itself."""
    return proxies.past_proxies(os.environ)


def answers(port: int, path: str) -> bool:
    """Whether GET `path` on this port gives a 2xx answer."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", path)
        return 200 <= connection.getresponse().status < 300
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
