"""TCP and UDP ports of this machine: which are free, which process listens on them, and whether it answers."""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import random
import socket
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.config import proxies

# The listeners come from the kernel's tables in /proc; without /proc there are none.
_PROC = Path("/proc")
_LISTEN = "0A"
_UNCONNECTED = "07"  # a bound UDP socket


@dataclass(frozen=True)
class Listener:
    """A listening TCP or bound UDP socket. `pid` is 0 if it belongs to another user."""

    protocol: str
    address: str
    port: int
    pid: int

    @property
    def loopback(self) -> bool:
        """Whether it can be reached from this machine only."""
        return self.address.startswith("127.") or self.address in ("::1", "::ffff:127.0.0.1")


def listeners(pids: set[int] | None = None) -> list[Listener]:
    """All listening TCP and bound UDP sockets, or those of `pids`."""
    holders = dict(_holders(pids))
    sockets = []
    for protocol, state in (
        ("tcp", _LISTEN),
        ("tcp6", _LISTEN),
        ("udp", _UNCONNECTED),
        ("udp6", _UNCONNECTED),
    ):
        for address, port, inode in _table(protocol, state):
            if pids is None or inode in holders:
                sockets.append(Listener(protocol, address, port, holders.get(inode, 0)))
    return sockets


def port_owner(port: int) -> str:
    """The process that occupies a TCP port, as "name (pid 12)"; empty if unknown."""
    for state, form in ((_LISTEN, "{}"), (None, "an outgoing connection of {}")):
        inodes = {inode for table in ("tcp", "tcp6") for _, at, inode in _table(table, state) if at == port}
        for inode, pid in _holders(None) if inodes else ():
            if inode in inodes:
                return form.format(_program(pid))
    return ""


def is_listened_on(port: int) -> bool:
    """Whether a program listens on a TCP port. An outgoing connection can also occupy a port for a while."""
    return any(at == port for table in ("tcp", "tcp6") for _, at, _ in _table(table, _LISTEN))


def _program(pid: int) -> str:
    try:
        return f"{(_PROC / str(pid) / 'comm').read_text().strip()} (pid {pid})"
    except OSError:
        return f"pid {pid}"


def _table(protocol: str, state: str | None) -> Iterator[tuple[str, int, str]]:
    try:
        lines = (_PROC / "net" / protocol).read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        address, _, port = fields[1].partition(":")
        if state in (None, fields[3]):
            yield _address(address), int(port, 16), fields[9]


def _address(text: str) -> str:
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)


def _holders(pids: set[int] | None) -> Iterator[tuple[str, int]]:
    """Socket inodes, each with the process that has it open."""
    candidates = pids if pids is not None else {int(entry.name) for entry in _PROC.glob("[0-9]*")}
    for pid in candidates:
        with contextlib.suppress(OSError):
            folder = _PROC / str(pid) / "fd"
            for descriptor in os.listdir(folder):
                with contextlib.suppress(OSError):
                    target = os.readlink(folder / descriptor)
                    if target.startswith("socket:["):
                        yield target[8:-1], pid


HOST = "127.0.0.1"
# Below the range from which the kernel takes ports for outgoing connections, so that a port stays free while its
# program restarts.
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
    """`count` free ports. No other process gets them from this function while this process lives."""
    chooser = random.SystemRandom()
    ports: list[int] = []
    while len(ports) < count:
        port = chooser.randint(_FIRST, _LAST)
        if _reserve(port) and is_free(port):
            ports.append(port)
    return ports


def _reserve(port: int) -> bool:
    """Locks the byte of the port in a file shared by all processes. The kernel unlocks it when this process ends."""
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


def bypass_proxies() -> dict[str, str]:
    """Environment variables that keep calls to this machine away from its proxies."""
    return proxies.bypass_proxies(os.environ)


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
