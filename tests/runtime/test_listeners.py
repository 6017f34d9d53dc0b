"""Listeners are read from the kernel's tables: address, port and process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from runtime import paths
from runtime.loopback import Listener, free_ports, is_free, listeners, port_owner

EVERYWHERE = "0.0.0.0"  # noqa: S104 - the point of the test


@pytest.mark.parametrize(
    ("address", "loopback"), [("127.0.0.1", True), (EVERYWHERE, False), ("::1", True), ("::", False)]
)
def test_a_listener_is_found_with_its_address(address: str, loopback: bool) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as holder:
        (port,) = free_ports(1)
        holder.bind((address, port))
        holder.listen()
        (listener,) = [item for item in listeners({os.getpid()}) if item.port == port]
        assert listener == Listener(listener.protocol, address, port, os.getpid())
        assert listener.loopback is loopback
        assert str(os.getpid()) in port_owner(port)
        assert is_free(port) is (address == "::1"), "is_free checks IPv4 only"
    assert port_owner(port) == ""


def test_a_udp_socket_is_found() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        assert [item.protocol for item in listeners({os.getpid()}) if item.port == holder.getsockname()[1]] == ["udp"]


TAKE = """
import sys
from runtime.loopback import free_ports
print(*free_ports(4000), flush=True)
sys.stdin.read()
"""


def test_a_port_is_given_only_once_to_all_living_processes() -> None:
    first = set(free_ports(100))
    assert first.isdisjoint(free_ports(100))
    command = [sys.executable, "-c", TAKE]
    with subprocess.Popen(command, cwd=paths.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = set(map(int, other.stdout.readline().split()))
        assert len(theirs) == 4000
        assert theirs.isdisjoint(first)
        assert theirs.isdisjoint(free_ports(100))
        other.kill()


def test_free_ports_are_different_and_outside_the_range_of_outgoing_connections() -> None:
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert all(15000 <= port < 32000 for port in ports)
