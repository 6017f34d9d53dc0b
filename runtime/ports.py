"""Reads dapr.yaml, the one place where ports are written; names each port, and who holds it if it is taken.

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
from runtime.locks import held
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
# Which file of components/ must point at which port.
_POINTERS = {"llm.yaml": "sandbox model", "systems.yaml": "sandbox systems"}


@dataclass(frozen=True)
class Port:
    """A port with the name that people use for it and the place where it is written."""

    name: str
    number: int
    key: str

    def taken(self) -> str:
        """The sentence for a port that something else holds."""
        by = port_owner(self.number)
        return f"{self.name}: port {self.number} is in use{f' by {by}' if by else ''}; change {self.key}."


def read_ports(path: Path) -> dict[str, Port]:
    """Every port of a dapr.yaml, by name. Raises `UserError` with file and key for what is missing or wrong."""
    document = _document(path)
    apps = {app.get("appID"): app for app in document.get("apps", [])}
    found = [*_control_plane(path, document.get("common", {}))]
    for app_id in ("agent", "sandbox"):
        if app_id not in apps:
            raise UserError(f"{path}: there is no app {app_id}.", remedy=f"Add it under apps with appID: {app_id}.")
        found += _sidecar(path, app_id, apps[app_id])
    found.append(_web(path, apps["agent"]))
    found += [_option(path, apps["sandbox"], part) for part in ("model", "systems")]
    _all_different(path, found)
    return {port.name: port for port in found}


def check_free(ports: Iterable[Port]) -> None:
    """Raises one `UserError` that names every port that is taken.

    Sentry's number lies where the kernel takes ports for outgoing connections; the remains of one last a
    minute, and are waited for.
    """
    held = [port for port in ports if not is_free(port.number)]
    if held and not any(is_listened_on(port.number) for port in held):
        with Step(f"waiting for an ended connection at {', '.join(port.name for port in held)}"):
            held = _after_passing(held)
    if held:
        taken = [port.taken() for port in held]
        raise UserError("\n".join(taken), remedy="\nOr end the program that uses it.")


def _after_passing(held: list[Port]) -> list[Port]:
    limit = time.monotonic() + _PASSING_SECONDS
    while held and time.monotonic() < limit:
        time.sleep(_POLL_SECONDS)
        held = [port for port in held if not is_free(port.number)]
    return held


def unserved(ports: Mapping[str, Port], components: Path) -> list[str]:
    """A sentence with file and line for every address of this machine where nobody listens: no error, for what should
    be there, such as a model server, may come later. The sandbox's ports count as served in the file meant for them."""
    sandboxes = {ports[name].number for name in _POINTERS.values()}
    return [
        line
        for file, name in _POINTERS.items()
        if (components / file).exists()
        for line in _strays(components / file, ports[name], sandboxes)
    ]


def checks() -> list[Check]:
    """Ports and addresses of the project, for a doctor. Ports count as free while its own stack holds them."""
    try:
        ports = read_ports(paths.DAPR_YAML)
    except UserError as problem:
        return [Check("ports", False, problem.message, problem.remedy)]
    addresses = Check("addresses", True, " ".join(unserved(ports, paths.COMPONENTS)) or "of components: all served")
    if held(paths.STATE / "lock"):
        return [Check("ports", True, "in use by the running stack"), addresses]
    taken = [port for port in ports.values() if not is_free(port.number)]
    free = f"{len(ports) - len(taken)} of {len(ports)} are free"
    return [Check("ports", not taken, free, "; ".join(port.taken() for port in taken)), addresses]


def control_plane_ports(ports: Mapping[str, Port]) -> ControlPlanePorts:
    """The control plane's three, for `ControlPlane`."""
    return ControlPlanePorts(*(ports[name].number for name in ("sentry", "placement", "scheduler")))


def _strays(file: Path, expected: Port, sandboxes: set[int]) -> Iterable[str]:
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        code = line.partition(" #")[0] if not line.lstrip().startswith("#") else ""
        for found in _LOOPBACK.findall(code):
            port = int(found)
            if port != expected.number and (port in sandboxes or not is_listened_on(port)):
                what = "which is another part of the sandbox" if port in sandboxes else "where nobody listens"
                yield (
                    f"{file}:{number} points at port {found}, {what}; start what should be there, or write"
                    f" {expected.number} ({expected.name}, {expected.key} in dapr.yaml)."
                )


def _document(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {error}.", remedy="Restore it or correct the line.") from None
    if not isinstance(document, dict):
        raise UserError(f"{path} holds no mapping.", remedy="See `dapr run --help` for its form.")
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


def _all_different(path: Path, ports: Iterable[Port]) -> None:
    seen: dict[int, Port] = {}
    for port in ports:
        other = seen.setdefault(port.number, port)
        if other is not port:
            raise UserError(
                f"{path}: {other.name} and {port.name} both have port {port.number}.",
                remedy=f"Change {port.key}.",
            )


if __name__ == "__main__":
    sys.exit(show_checks(checks()))
