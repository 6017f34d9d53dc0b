"""Who listens on which address, from the kernel's own tables. Empty where there is no /proc."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_LISTEN = "0A"
_UNCONNECTED = "07"  # a bound UDP socket


@dataclass(frozen=True)
class Listener:
    """A socket that waits for others. `pid` is 0 when it is another user's."""

    protocol: str
    address: str
    port: int
    pid: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.address.startswith("127.") or self.address in ("::1", "::ffff:127.0.0.1")


def listeners(pids: set[int] | None = None) -> list[Listener]:
    """All TCP listeners and bound UDP sockets, or those of some processes."""
    holders = dict(_holders(pids))
    found = []
    for protocol, state in (
        ("tcp", _LISTEN),
        ("tcp6", _LISTEN),
        ("udp", _UNCONNECTED),
        ("udp6", _UNCONNECTED),
    ):
        for address, port, inode in _table(protocol, state):
            if pids is None or inode in holders:
                found.append(Listener(protocol, address, port, holders.get(inode, 0)))
    return found


def owner(port: int) -> str:
    """Who keeps others from a TCP port, as "name (pid 12)"; empty when it cannot be seen."""
    for state, form in ((_LISTEN, "{}"), (None, "an outgoing connection of {}")):
        inodes = {inode for table in ("tcp", "tcp6") for _, at, inode in _table(table, state) if at == port}
        for inode, pid in _holders(None) if inodes else ():
            if inode in inodes:
                return form.format(_program(pid))
    return ""


def is_listened_on(port: int) -> bool:
    """Whether a program listens on a TCP port; a port may also be taken by an outgoing connection, for a while."""
    return any(at == port for table in ("tcp", "tcp6") for _, at, _ in _table(table, _LISTEN))


def _program(pid: int) -> str:
    try:
        return f"{(_PROC / str(pid) / 'comm').read_text().strip()} (pid {pid})"
    except OSError:
        return f"pid {pid}"


def _table(protocol: str, wanted: str | None) -> Iterator[tuple[str, int, str]]:
    try:
        lines = (_PROC / "net" / protocol).read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        address, _, port = fields[1].partition(":")
        if wanted in (None, fields[3]):
            yield _address(address), int(port, 16), fields[9]


def _address(text: str) -> str:
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)


def _holders(pids: set[int] | None) -> Iterator[tuple[str, int]]:
    """Socket inode and the process that has it open."""
    candidates = pids if pids is not None else {int(entry.name) for entry in _PROC.glob("[0-9]*")}
    for pid in candidates:
        with contextlib.suppress(OSError):
            folder = _PROC / str(pid) / "fd"
            for descriptor in os.listdir(folder):
                with contextlib.suppress(OSError):
                    target = os.readlink(folder / descriptor)
                    if target.startswith("socket:["):
                        yield target[8:-1], pid
