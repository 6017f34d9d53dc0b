"""Reads and checks the ports of the stack, which are written in dapr.yaml only.

Needs PyYAML, so it runs in the virtual environment.
"""

from __future__ import annotations

import itertools
import re
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from runtime import paths
from runtime.control_plane import ControlPlanePorts
from runtime.errors import UserError
from runtime.locks import is_held
from runtime.loopback import is_free, is_listened_on, port_owner
from runtime.prerequisites import Check, show_checks
from runtime.progress import Step

_APP_KEYS = {
    "daprHTTPPort": "daprd HTTP",
    "daprGRPCPort": "daprd gRPC",
    "daprInternalGRPCPort": "daprd internal gRPC",
    "metricsPort": "daprd metrics",
}
_LOOPBACK = re.compile(r"\b(?:127\.0\.0\.1|localhost):(\d+)\b")
_PASSING_SECONDS = 65.0
_POLL_SECONDS = 0.1
# The files of components/, each with the port that it must point at.
_POINTERS = {"llm.yaml": "sandbox model", "systems.yaml": "sandbox systems"}


@dataclass(frozen=True)
class Port:
    """A port with its name for users, and its key in dapr.yaml."""

    name: str
    number: int
    key: str

    def conflict(self) -> str:
        """The error text if another program uses the port."""
        by = port_owner(self.number)
        return f"{self.name}: port {self.number} is in use{f' by {by}' if by else ''}; change {self.key}."


def read_ports(path: Path) -> dict[str, Port]:
    """All ports of a dapr.yaml, by name. Raises `UserError` with file and key for a missing or wrong port."""
    document = _document(path)
    apps = {app.get("appID"): app for app in document.get("apps", [])}
    ports = [*_control_plane(path, document.get("common", {}))]
    for app_id in ("agent", "sandbox"):
        if app_id not in apps:
            raise UserError(f"{path}: there is no app {app_id}.", remedy=f"Add it under apps with appID: {app_id}.")
        ports += _sidecar(path, app_id, apps[app_id])
    ports.append(_web(path, apps["agent"]))
    ports += [_option(path, apps["sandbox"], part) for part in ("model", "systems")]
    _check_different(path, ports)
    return {port.name: port for port in ports}


def check_free(ports: Iterable[Port]) -> None:
    """Raises one `UserError` that names all ports in use.

    Sentry's port is in the range from which the kernel takes ports for outgoing connections. An ended connection
    occupies its port for another minute; this function waits for that.
    """
    occupied = [port for port in ports if not is_free(port.number)]
    if occupied and not any(is_listened_on(port.number) for port in occupied):
        with Step(f"waiting for an ended connection at {', '.join(port.name for port in occupied)}"):
            occupied = _wait_until_free(occupied)
    if occupied:
        conflicts = [port.conflict() for port in occupied]
        raise UserError("\n".join(conflicts), remedy="\nOr end the program that uses it.")


def _wait_until_free(occupied: list[Port]) -> list[Port]:
    """Waits for the ports, and returns those that are still in use after about a minute."""
    limit = time.monotonic() + _PASSING_SECONDS
    while occupied and time.monotonic() < limit:
        time.sleep(_POLL_SECONDS)
        occupied = [port for port in occupied if not is_free(port.number)]
    return occupied


def unserved_addresses(ports: Mapping[str, Port], components: Path) -> list[str]:
    """A warning with file and line for each address of this machine at which no program listens.

    It is no error, since the program, such as a model server, may start later. A file of `_POINTERS` may always point
    at its port of the sandbox.
    """
    sandboxes = {ports[name].number for name in _POINTERS.values()}
    return [
        line
        for file, name in _POINTERS.items()
        if (components / file).exists()
        for line in _wrong_addresses(components / file, ports[name], sandboxes)
    ]


def checks() -> list[Check]:
    """The checks of ports and addresses for `make doctor`. Ports that our own stack uses are fine."""
    try:
        ports = read_ports(paths.DAPR_YAML)
    except UserError as problem:
        return [Check("ports", False, problem.message, problem.remedy)]
    addresses = Check(
        "addresses", True, " ".join(unserved_addresses(ports, paths.COMPONENTS)) or "of components: all served"
    )
    if is_held(paths.STATE / "lock"):
        return [Check("ports", True, "in use by the running stack"), addresses]
    occupied = [port for port in ports.values() if not is_free(port.number)]
    free = f"{len(ports) - len(occupied)} of {len(ports)} are free"
    return [Check("ports", not occupied, free, "; ".join(port.conflict() for port in occupied)), addresses]


def control_plane_ports(ports: Mapping[str, Port]) -> ControlPlanePorts:
    """The ports of the control plane, for `ControlPlane`."""
    return ControlPlanePorts(*(ports[name].number for name in ("sentry", "placement", "scheduler")))


def _wrong_addresses(file: Path, expected: Port, sandboxes: set[int]) -> Iterable[str]:
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        code = line.partition(" #")[0] if not line.lstrip().startswith("#") else ""
        for digits in _LOOPBACK.findall(code):
            port = int(digits)
            if port != expected.number and (port in sandboxes or not is_listened_on(port)):
                problem = "which is another part of the sandbox" if port in sandboxes else "where no program listens"
                yield (
                    f"{file}:{number} points at port {port}, {problem}; start what should be there, or write"
                    f" {expected.number} ({expected.name}, {expected.key} in dapr.yaml)."
                )


def _document(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {error}.", remedy="Restore it or correct the line.") from None
    if not isinstance(document, dict):
        raise UserError(f"{path} is not a mapping.", remedy="See `dapr run --help` for its form.")
    return document


def _control_plane(path: Path, common: Mapping[str, Any]) -> Iterable[Port]:
    yield Port("sentry", ControlPlanePorts.sentry, "nothing (the dapr CLI expects sentry there; free the port)")
    for name in ("placement", "scheduler"):
        key = f"common.{name}HostAddress"
        host, _, port = str(common.get(f"{name}HostAddress", "")).rpartition(":")
        if host not in ("127.0.0.1", "localhost"):
            raise UserError(f"{path}: {key} is not 127.0.0.1:<port>.", remedy=f"Write {key}: 127.0.0.1:<port>.")
        yield Port(name, _number(path, key, port), key)


def _sidecar(path: Path, app_id: str, app: Mapping[str, Any]) -> Iterable[Port]:
    for key, name in _APP_KEYS.items():
        full = f"apps[{app_id}].{key}"
        yield Port(f"{app_id} {name}", _number(path, full, app.get(key)), full)


def _web(path: Path, agent: Mapping[str, Any]) -> Port:
    key = "apps[agent].env.REFUND_AGENT_WEB_PORT"
    return Port("agent web", _number(path, key, agent.get("env", {}).get("REFUND_AGENT_WEB_PORT")), key)


def _option(path: Path, sandbox: Mapping[str, Any], part: str) -> Port:
    option = f"--{part}-port"
    key = f"{option} of apps[sandbox].command"
    command = [str(word) for word in sandbox.get("command", [])]
    following = dict(itertools.pairwise(command))
    return Port(f"sandbox {part}", _number(path, key, following.get(option)), key)


def _number(path: Path, key: str, value: object) -> int:
    text = str(value)
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        shown = "missing" if value is None else f"{value!r}"
        raise UserError(f"{path}: {key} is {shown}.", remedy="Write a port number from 1 to 65535.")
    return int(text)


def _check_different(path: Path, ports: Iterable[Port]) -> None:
    by_number: dict[int, Port] = {}
    for port in ports:
        other = by_number.setdefault(port.number, port)
        if other is not port:
            raise UserError(
                f"{path}: {other.name} and {port.name} both have port {port.number}.",
                remedy=f"Change {port.key}.",
            )


if __name__ == "__main__":
    sys.exit(show_checks(checks()))
